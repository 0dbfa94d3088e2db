//! The embedded broker on a thread of its own, so that a test can stop it as it would stop a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use marquee_broker::{BrokerConfig, BrokerError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::kafka::answers;

const START_PATIENCE: Duration = Duration::from_secs(30);

/// The embedded broker; it can be stopped and restarted on the same port and log.
#[derive(Debug)]
pub struct EmbeddedServer {
    database: PathBuf,
    address: SocketAddr,
    running: Option<Running>,
    _folder: Option<TempDir>,
}

#[derive(Debug)]
struct Running {
    token: CancellationToken,
    thread: JoinHandle<Result<(), BrokerError>>,
}

impl EmbeddedServer {
    /// Starts a broker on a free port with its log in `folder`; it answers when this returns.
    ///
    /// # Errors
    /// The broker's own, also when it does not answer in time.
    pub fn start(folder: &Path) -> Result<Self, BrokerError> {
        let mut server = Self {
            database: folder.join("broker.db"),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            running: None,
            _folder: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// [`EmbeddedServer::start`] with the log in a temporary folder that goes with the server.
    ///
    /// # Errors
    /// As [`EmbeddedServer::start`].
    pub fn start_fresh() -> Result<Self, BrokerError> {
        let folder = tempfile::tempdir().map_err(|e| BrokerError::Ended(e.to_string()))?;
        let mut server = Self::start(folder.path())?;
        server._folder = Some(folder);
        Ok(server)
    }

    /// `host:port` to connect to.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.address.to_string()
    }

    /// Ends it; its log stays. There is no gentler and no harder way: the engine is aborted either way.
    pub fn stop(&mut self) {
        if let Some(Running { token, thread }) = self.running.take() {
            token.cancel();
            drop(thread.join());
        }
    }

    /// Starts it again on the same port and log; it answers when this returns. Does nothing while it runs.
    ///
    /// # Errors
    /// As [`EmbeddedServer::start`].
    pub fn restart(&mut self) -> Result<(), BrokerError> {
        if self.running.is_some() {
            return Ok(());
        }
        let config = BrokerConfig {
            listen: self.address,
            database: self.database.clone(),
            on_thread_start: || {},
        };
        let token = CancellationToken::new();
        let (told, tell) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("embedded-broker".into())
            .spawn({
                let token = token.clone();
                move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread()
                        .worker_threads(2)
                        .enable_all()
                        .build()
                        .map_err(|e| BrokerError::Ended(e.to_string()))?;
                    let outcome = runtime.block_on(async move {
                        let broker = marquee_broker::start(config).await?;
                        // Nobody listens only if the starter gave up.
                        let _unheard = told.send(broker.address());
                        broker.run(token).await
                    });
                    // Connections' tasks end here, as they would with their process.
                    runtime.shutdown_timeout(Duration::from_secs(5));
                    outcome
                }
            })
            .map_err(|e| BrokerError::Ended(e.to_string()))?;
        let Ok(address) = tell.recv() else {
            return Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => BrokerError::Ended("before it listened".into()),
            });
        };
        self.address = address;
        self.running = Some(Running { token, thread });
        let deadline = Instant::now() + START_PATIENCE;
        while !answers(&self.brokers()) {
            if Instant::now() >= deadline || self.running.as_ref().is_some_and(|r| r.thread.is_finished()) {
                self.stop();
                return Err(BrokerError::Ended(format!(
                    "it does not answer at {}",
                    self.brokers()
                )));
            }
        }
        Ok(())
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_stops_and_comes_back_on_the_same_port() {
        let mut server = EmbeddedServer::start_fresh().unwrap();
        let brokers = server.brokers();
        server.stop();
        assert!(!answers(&brokers));
        server.restart().unwrap();
        assert_eq!(server.brokers(), brokers);
        assert!(answers(&brokers));
    }
}
