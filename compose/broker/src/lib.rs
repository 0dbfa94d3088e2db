//! The Kafka-compatible broker inside the process: the default of `marquee up`.
//!
//! A seam of three calls, so that the engine behind it can be exchanged: [`start`], [`EmbeddedBroker::address`],
//! [`EmbeddedBroker::run`]. The engine is `tansu-broker` on an SQLite file, with the records in a folder of logs beside
//! it. It survives a killed process; what was appended is synced once a second, so a *power cut* may cost the last
//! moments. Whoever needs more points marquee at an Apache Kafka.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

#[cfg(feature = "embedded")]
mod engine;

/// Where the broker listens and keeps its log.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Address to listen on; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// The SQLite file, with the logs of the topics in a folder of the same name ending in `.log`; its folder must
    /// exist.
    pub database: PathBuf,
    /// Called on each of its threads, first.
    pub on_thread_start: fn(),
}

/// Why the broker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The log file cannot be used.
    #[error("broker log {path}: {detail}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The engine ended by itself.
    #[error("the embedded broker ended: {0}")]
    Ended(String),
    /// Built without the `embedded` feature.
    #[error("this build has no embedded broker: name an external one with --brokers host:port")]
    NotBuilt,
}

/// A broker that accepts connections until it is dropped or told to stop.
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
    stop: CancellationToken,
    end: tokio::sync::oneshot::Receiver<Result<(), BrokerError>>,
}

/// Starts the broker; it accepts connections soon after this returns.
///
/// # Errors
/// The port is taken, the file cannot be opened, or the engine is not built in.
pub async fn start(config: BrokerConfig) -> Result<EmbeddedBroker, BrokerError> {
    #[cfg(feature = "embedded")]
    return engine::start(config).await;
    #[cfg(not(feature = "embedded"))]
    {
        drop(config);
        Err(BrokerError::NotBuilt)
    }
}

impl EmbeddedBroker {
    /// The address it listens on, with the port that was chosen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `token` is cancelled.
    ///
    /// # Errors
    /// [`BrokerError::Ended`] if the engine ends before that.
    pub async fn run(mut self, token: CancellationToken) -> Result<(), BrokerError> {
        let early = tokio::select! {
            () = token.cancelled() => None,
            end = &mut self.end => Some(end),
        };
        match early {
            None => {
                self.stop.cancel();
                match (&mut self.end).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(BrokerError::Ended("while stopping".into())),
                }
            }
            Some(Ok(Err(error))) => Err(error),
            Some(_) => Err(BrokerError::Ended("without a reason".into())),
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
