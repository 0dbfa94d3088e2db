//! One type for both brokers, so that a suite runs over either.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use marquee_runtime::{Bus, BusConfig};
use marquee_schemas::ALL_TOPICS;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{EmbeddedServer, KafkaServer, Unavailable};

/// Apache Kafka takes seconds to start, so one serves all tests of a binary in turn.
static SHARED: Mutex<Option<KafkaServer>> = Mutex::new(None);

const ASK: Duration = Duration::from_secs(20);

/// A running broker without topics.
#[derive(Debug)]
pub enum Broker {
    /// The embedded broker, started for this test.
    Embedded(EmbeddedServer),
    /// The test binary's Apache Kafka, lent to this test alone; other borrowers wait.
    Apache(MutexGuard<'static, Option<KafkaServer>>),
}

impl Broker {
    /// A fresh embedded broker.
    ///
    /// # Panics
    /// It does not start: nothing outside the repository is needed for it.
    #[must_use]
    pub fn embedded() -> Self {
        match EmbeddedServer::start_fresh() {
            Ok(server) => Self::Embedded(server),
            Err(error) => panic!("the embedded broker does not start: {error}"),
        }
    }

    /// The shared Apache Kafka, cleared of the topics that earlier borrowers made.
    ///
    /// # Errors
    /// [`Unavailable`] where it cannot be had.
    pub fn apache() -> Result<Self, Unavailable> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.as_mut() {
            Some(server) => {
                // An earlier test may have failed while it was stopped.
                server.restart()?;
                clear(&server.brokers())?;
            }
            None => *shared = Some(KafkaServer::start()?),
        }
        Ok(Self::Apache(shared))
    }

    /// `host:port` to connect to.
    #[must_use]
    pub fn brokers(&self) -> String {
        match self {
            Self::Embedded(server) => server.brokers(),
            Self::Apache(server) => server.as_ref().map_or_else(String::new, KafkaServer::brokers),
        }
    }

    /// A bus to it with usual settings.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::new(BusConfig::for_brokers(self.brokers()))
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) {
        match self {
            Self::Embedded(server) => server.stop(),
            Self::Apache(server) => {
                if let Some(server) = server.as_mut() {
                    server.stop();
                }
            }
        }
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        match self {
            Self::Embedded(server) => server.stop(),
            Self::Apache(server) => {
                if let Some(server) = server.as_mut() {
                    server.kill();
                }
            }
        }
    }

    /// Starts it again on the same port and log; it answers when this returns.
    ///
    /// # Panics
    /// It does not come back.
    pub fn restart(&mut self) {
        let outcome = match self {
            Self::Embedded(server) => server.restart().map_err(|e| e.to_string()),
            Self::Apache(server) => server
                .as_mut()
                .map_or(Ok(()), |server| server.restart().map_err(|e| e.to_string())),
        };
        if let Err(error) = outcome {
            panic!("the broker does not come back: {error}");
        }
    }
}

/// Deletes all topics of ours and waits until they are gone.
fn clear(brokers: &str) -> Result<(), Unavailable> {
    let failed = |why: String| Unavailable::new("a cleared Apache Kafka", why);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let names = ALL_TOPICS.map(marquee_schemas::Topic::name);
    let asker: BaseConsumer = config.create().map_err(|e| failed(e.to_string()))?;
    let left = || -> Result<Vec<&str>, Unavailable> {
        let metadata = asker
            .fetch_metadata(None, ASK)
            .map_err(|e| failed(e.to_string()))?;
        Ok(names
            .into_iter()
            .filter(|name| metadata.topics().iter().any(|topic| topic.name() == *name))
            .collect())
    };
    let old = left()?;
    if old.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|e| failed(e.to_string()))?;
    // The caller may stand on a runtime's thread, where another cannot be entered.
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|e| e.to_string())?;
                runtime
                    .block_on(admin.delete_topics(&old, &AdminOptions::new().operation_timeout(Some(ASK))))
                    .map_err(|e| e.to_string())
            })
            .join()
    });
    match outcome {
        Ok(outcome) => outcome.map_err(failed)?,
        Err(_) => return Err(failed("deleting topics panicked".into())),
    };
    let deadline = Instant::now() + ASK;
    while !left()?.is_empty() {
        if Instant::now() > deadline {
            return Err(failed("its old topics do not go".into()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
