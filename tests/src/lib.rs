//! What tests across services share: brokers that can be stopped and restarted in the middle of a test, child
//! processes that cannot be left behind, foreign Kafka clients, and waiting for a condition without fixed sleeps.
//!
//! Two brokers stand behind one type, [`Broker`]: the embedded one and a real Apache Kafka. A suite written against
//! it runs over both.

mod broker;
mod cache;
mod clients;
mod embedded;
mod foreign;
pub mod kafka;
mod mlflow;
mod process;
mod require;
mod wait;

pub use broker::Broker;
pub use cache::cache_dir;
pub use clients::{commit_group_offset, publish_in_transaction};
pub use embedded::EmbeddedServer;
pub use foreign::{Foreign, kcat, python, python_with};
pub use kafka::KafkaServer;
pub use mlflow::MlflowServer;
pub use process::Guarded;
pub use require::{Unavailable, required};
pub use wait::{eventually, eventually_async};
