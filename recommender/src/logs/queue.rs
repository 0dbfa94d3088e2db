//! The bounded queue between handlers and worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use marquee_schemas::{RequestLog, Severity};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::alerts::Alerts;

/// What became of request logs, all since the start except where said.
#[derive(Debug, Default)]
pub struct LogStats {
    pub(super) accepted: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) spooled: AtomicU64,
    pub(super) dropped_queue: AtomicU64,
    pub(super) dropped_spool: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) spool_records: AtomicU64,
    pub(super) spool_bytes: AtomicU64,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        impl LogStats {
            $($(#[$doc])* #[must_use] pub fn $name(&self) -> u64 { self.$name.load(Ordering::Relaxed) })*
        }
    };
}

getters! {
    /// Taken into the queue.
    accepted,
    /// Acknowledged by the broker.
    delivered,
    /// Written to the spool.
    spooled,
    /// Lost because the queue was full.
    dropped_queue,
    /// Lost because the spool was full or could not be written.
    dropped_spool,
    /// Refused by the broker for good, too large for example.
    refused,
    /// Records in the spool now.
    spool_records,
    /// Bytes of the spool now.
    spool_bytes,
}

impl LogStats {
    /// Records lost, for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dropped_queue() + self.dropped_spool() + self.refused()
    }

    pub(super) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// The handlers' end of the queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogQueue {
    sender: mpsc::Sender<RequestLog>,
    stats: Arc<LogStats>,
    alerts: Alerts,
}

impl LogQueue {
    /// A queue of at most `len` records, and its other end.
    #[must_use]
    pub fn bounded(len: usize, alerts: Alerts) -> (Self, mpsc::Receiver<RequestLog>) {
        let (sender, receiver) = mpsc::channel(len.max(1));
        let queue = Self {
            sender,
            stats: Arc::default(),
            alerts,
        };
        (queue, receiver)
    }

    /// Puts a record into the queue; never waits. When the queue is full the record is dropped, counted, and alerted.
    pub fn log(&self, log: RequestLog) {
        match self.sender.try_send(log) {
            Ok(()) => LogStats::add(&self.stats.accepted, 1),
            Err(error) => {
                LogStats::add(&self.stats.dropped_queue, 1);
                let why = match error {
                    TrySendError::Full(_) => "the queue is full",
                    TrySendError::Closed(_) => "the queue is closed",
                };
                self.alerts.raise(
                    Severity::Critical,
                    "request_log_overflow",
                    "queue",
                    format!("a request log was dropped: {why}"),
                    &[("dropped", self.stats.dropped_queue() as f64)],
                );
            }
        }
    }

    /// Records waiting.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// What became of the records.
    #[must_use]
    pub fn stats(&self) -> &Arc<LogStats> {
        &self.stats
    }
}
