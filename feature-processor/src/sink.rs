//! Where the outbox goes.

use std::sync::{Arc, Mutex, PoisonError};

use marquee_runtime::Clock;
use marquee_runtime::bus::{BusError, Outgoing, Publisher};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Takes the outbox's records.
pub trait Sink: Send + 'static {
    /// Sends all records and waits until they are safe. `false` means that the processor is stopping and gave up:
    /// the records stay in the outbox and go out after the next start.
    ///
    /// # Errors
    /// A failure that no retry mends.
    fn publish(&mut self, records: &[Outgoing]) -> Result<bool, Error>;
}

/// Publishes on the bus, acknowledged by all replicas; waits for a broker that is away until the service stops. A record
/// that no broker takes is passed over with an alert: in the outbox it would hold up every later one, also after a
/// restart.
#[derive(Debug)]
pub struct BusSink {
    publisher: Publisher,
    stopping: CancellationToken,
    clock: Arc<dyn Clock>,
}

impl BusSink {
    /// A sink that gives up on transient failures only once `stopping` is cancelled.
    #[must_use]
    pub fn new(publisher: Publisher, stopping: CancellationToken, clock: Arc<dyn Clock>) -> Self {
        Self {
            publisher,
            stopping,
            clock,
        }
    }

    /// Sends what can be sent, and of the rest an alert each.
    fn send(&self, records: &[Outgoing]) -> Result<(), BusError> {
        let give_up = || self.stopping.is_cancelled();
        let refused = self.publisher.publish_each_blocking(records, give_up)?;
        let mut alerts = Vec::with_capacity(refused.len());
        for unsendable in refused {
            tracing::error!(
                kafka.topic = %unsendable.record.topic,
                key = %String::from_utf8_lossy(&unsendable.record.key),
                bytes = unsendable.record.value.as_ref().map_or(0, Vec::len),
                error = %unsendable.error,
                "a record that the broker refuses is dropped from the outbox"
            );
            alerts.push(Outgoing::of(
                &unsendable.alert("feature-processor", self.clock.now_ms()),
            ));
        }
        self.publisher.publish_all_blocking(&alerts, give_up)
    }
}

impl Sink for BusSink {
    fn publish(&mut self, records: &[Outgoing]) -> Result<bool, Error> {
        match self.send(records) {
            Ok(()) => Ok(true),
            Err(error) if error.is_transient() && self.stopping.is_cancelled() => {
                tracing::warn!(%error, records = records.len(), "stopping with records left in the outbox");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Keeps the records in memory, for tests and for folding files without a broker. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemorySink(Arc<Mutex<Vec<Outgoing>>>);

impl MemorySink {
    /// Everything published so far, in order.
    #[must_use]
    pub fn records(&self) -> Vec<Outgoing> {
        self.since(0)
    }

    /// The same without the first `known` records.
    #[must_use]
    pub fn since(&self, known: usize) -> Vec<Outgoing> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(known..).unwrap_or_default().to_vec()
    }
}

impl Sink for MemorySink {
    fn publish(&mut self, records: &[Outgoing]) -> Result<bool, Error> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(records);
        Ok(true)
    }
}
