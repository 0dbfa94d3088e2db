//! Where the outbox goes.

use std::sync::{Arc, Mutex, PoisonError};

use marquee_runtime::bus::{Outgoing, Publisher};
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

/// Publishes on the bus, acknowledged by all replicas; waits for a broker that is away until the service stops.
#[derive(Debug)]
pub struct BusSink {
    publisher: Publisher,
    stopping: CancellationToken,
}

impl BusSink {
    /// A sink that gives up on transient failures only once `stopping` is cancelled.
    #[must_use]
    pub fn new(publisher: Publisher, stopping: CancellationToken) -> Self {
        Self { publisher, stopping }
    }
}

impl Sink for BusSink {
    fn publish(&mut self, records: &[Outgoing]) -> Result<bool, Error> {
        match self
            .publisher
            .publish_all_blocking(records, || self.stopping.is_cancelled())
        {
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
