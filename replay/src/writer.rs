//! Records into a lake without a broker: for imports, simulations and benchmarks.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use marquee_runtime::bus::{Handler, RawRecord};
use marquee_runtime::{BusError, Clock};
use marquee_schemas::DeadLetter;

use crate::config::{CompactionConfig, FlushConfig, RetentionConfig};
use crate::disk::OsDisk;
use crate::error::Error;
use crate::lake::Lake;
use crate::sink::{Context, DeadLetters, Sink, SinkCounts};

/// Refused records that are kept; more are counted.
const KEPT: usize = 1_000;

/// Records that were not written.
#[derive(Debug, Clone, Default)]
pub struct RefusedRecords {
    /// How many.
    pub count: u64,
    /// The first thousand of them, with their reasons.
    pub first: Vec<DeadLetter>,
}

#[derive(Debug, Clone, Default)]
struct Refused(Arc<Mutex<RefusedRecords>>);

impl DeadLetters for Refused {
    fn publish(&self, letters: &[DeadLetter]) -> Result<(), BusError> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.count += letters.len() as u64;
        let room = KEPT.saturating_sub(refused.first.len());
        refused.first.extend(letters.iter().take(room).cloned());
        Ok(())
    }
}

/// Writes records into a lake exactly as the service does; the lake has one writer at a time.
///
/// A record's partition and offset are its identity: one that was written before is passed over.
#[derive(Debug)]
pub struct LakeWriter {
    sink: Sink,
    refused: Refused,
    counts: Arc<SinkCounts>,
}

impl LakeWriter {
    /// Takes the lake for writing.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process writes to it; otherwise as the service.
    pub fn open(
        lake_dir: &Path,
        flush: FlushConfig,
        compaction: CompactionConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let refused = Refused::default();
        let counts = Arc::new(SinkCounts::default());
        let context = Context {
            flush,
            compaction,
            retention: RetentionConfig::default(),
            keep_replaced_ms: 0,
            clock,
            dead_letters: Box::new(refused.clone()),
            counts: Arc::clone(&counts),
        };
        Ok(Self {
            sink: Sink::new(Lake::open(lake_dir, OsDisk::shared())?, context),
            refused,
            counts,
        })
    }

    /// Takes records in the order of their offsets. They are durable after a flush; [`LakeWriter::close`] makes the last.
    ///
    /// # Errors
    /// [`Error`]; the lake is then as after its last flush.
    pub fn write(&mut self, records: Vec<RawRecord>) -> Result<(), Error> {
        self.sink.handle(records)?;
        self.sink.remove_replaced();
        Ok(())
    }

    /// Rows that are durable.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.counts.rows()
    }

    /// Commits what is buffered and lets go of the lake. Gives the records that were not written.
    ///
    /// # Errors
    /// As [`LakeWriter::write`].
    pub fn close(mut self) -> Result<RefusedRecords, Error> {
        self.sink.flush_all()?;
        let refused = self.refused.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(refused.clone())
    }
}
