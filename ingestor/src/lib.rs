//! How events enter marquee.
//!
//! A [`Dataset`] comes from a directory in one of the MovieLens layouts ([`Dataset::load`]), from GroupLens
//! ([`download`]) or from a seed ([`synthetic`]). A [`Replayer`] publishes its catalogue and then its ratings in
//! event-time order at a chosen [`Speed`]. A [`Gateway`] takes events over HTTP from producers that have no Kafka
//! client. No feature logic lives here: whatever is well formed is published.

pub mod dataset;
pub mod download;
mod error;
pub mod gateway;
pub mod replay;
pub mod simulator;
mod sink;
pub mod synthetic;

pub use dataset::{DamagedRows, Dataset, Rating, Summary, locate};
pub use download::{DownloadConfig, Downloader};
pub use error::Error;
pub use gateway::{Gateway, GatewayConfig};
pub use replay::{Progress, ReplayConfig, Replayer, Shift, Speed};
pub use simulator::{Scenario, Simulator, SimulatorConfig};
pub use sink::{Acknowledgement, Sink};
pub use synthetic::SyntheticConfig;
