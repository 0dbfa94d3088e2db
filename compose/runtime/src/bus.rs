//! The bus: one Kafka-speaking layer for the embedded broker and for Apache Kafka alike.
//!
//! Three ways to use it. [`Publisher`] sends typed records with idempotence and acknowledgement by all replicas.
//! [`Subscriber`] drives a [`Handler`] with batches in partition order, on a thread of its own: a batch's *effect*
//! (the handler's own transaction) comes before the offset commit, which is only a hint. [`Bus::read_range`] reads
//! a topic between two named offsets and ends.

mod admin;
mod config;
mod error;
mod publisher;
mod reader;
mod subscriber;

pub use admin::Watermarks;
pub use config::BusConfig;
pub use error::BusError;
pub use publisher::{Outgoing, Publisher, Unsendable};
pub use subscriber::{Handler, RawRecord, Start, Subscriber, SubscriberConfig, Subscription};

/// A connection description from which publishers, subscribers and readers are made. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    config: std::sync::Arc<BusConfig>,
}

impl Bus {
    /// A bus for these brokers; connects on first use.
    #[must_use]
    pub fn new(config: BusConfig) -> Self {
        Self {
            config: std::sync::Arc::new(config),
        }
    }

    /// Where it connects to.
    #[must_use]
    pub fn config(&self) -> &BusConfig {
        &self.config
    }
}
