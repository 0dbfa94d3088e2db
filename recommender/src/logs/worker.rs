//! Sends request logs, and keeps them on disk while it cannot.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{RequestLog, Severity, decode};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::queue::LogStats;
use super::spool::Spool;
use crate::alerts::Alerts;
use crate::sink::{Sink, SinkError};

/// How a worker sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The most records sent before their acknowledgements are awaited.
    pub batch: usize,
    /// Records not acknowledged for so long go to the spool.
    pub ack_timeout: Duration,
    /// Pause between attempts to drain the spool.
    pub retry: Duration,
    /// How long the last records may take at the end.
    pub flush: Duration,
}

/// The worker. Runs on a thread of its own, because it writes to disk.
#[derive(Debug)]
pub struct Worker<S> {
    receiver: mpsc::Receiver<RequestLog>,
    sink: S,
    spool: Spool,
    config: WorkerConfig,
    stats: Arc<LogStats>,
    alerts: Alerts,
}

/// What came of sending one batch.
enum Sent {
    /// So many arrived, the others were refused for good.
    All(usize),
    /// Something failed that may work later.
    Failed(SinkError),
}

/// All acknowledgements of one batch, in one future.
type InFlight = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// A batch from the spool's head on its way.
struct Draining {
    records: Vec<Vec<u8>>,
    outcome: InFlight,
}

/// What the worker woke up for while the spool holds records.
enum Woken {
    Settled(Sent),
    Due,
    Record(Option<Box<RequestLog>>),
}

impl<S: Sink> Worker<S> {
    /// A worker for the queue behind `receiver`.
    #[must_use]
    pub fn new(
        receiver: mpsc::Receiver<RequestLog>,
        sink: S,
        spool: Spool,
        config: WorkerConfig,
        stats: Arc<LogStats>,
        alerts: Alerts,
    ) -> Self {
        Self {
            receiver,
            sink,
            spool,
            config,
            stats,
            alerts,
        }
    }

    /// Sends until `token` is cancelled or the last [`super::LogQueue`] is gone, then empties the queue: to the
    /// broker while time is left, to the spool otherwise. Returns the number of records left in the spool.
    pub async fn run(mut self, token: CancellationToken) -> u64 {
        self.note_spool();
        let mut open = true;
        while open {
            open = if self.spool.is_empty() {
                self.direct(&token).await
            } else {
                self.draining(&token).await
            };
        }
        self.finish().await
    }

    /// One batch straight to the broker. Returns whether to go on.
    async fn direct(&mut self, token: &CancellationToken) -> bool {
        let mut logs = Vec::with_capacity(self.config.batch);
        let taken = tokio::select! {
            biased;
            () = token.cancelled() => return false,
            taken = self.receiver.recv_many(&mut logs, self.config.batch) => taken,
        };
        if taken == 0 {
            return false;
        }
        self.deliver_or_spool(&logs, Instant::now() + self.config.ack_timeout)
            .await;
        true
    }

    async fn deliver_or_spool(&mut self, logs: &[RequestLog], deadline: Instant) {
        let records: Vec<Outgoing> = logs.iter().map(Outgoing::of).collect();
        let outcome = timeout_at(deadline, self.send(&records)).await;
        let why = match outcome {
            Ok(Sent::All(delivered)) => {
                LogStats::add(&self.stats.delivered, delivered);
                return;
            }
            Ok(Sent::Failed(error)) => error.to_string(),
            Err(_) => "no acknowledgement in time".to_owned(),
        };
        tracing::warn!(
            records = records.len(),
            error = %why,
            "request logs go to the spool"
        );
        self.keep(&records);
    }

    /// While the spool holds records: new ones go behind them, the oldest are sent as soon as the broker takes them.
    async fn draining(&mut self, token: &CancellationToken) -> bool {
        let mut due = Instant::now();
        let mut on_its_way: Option<Draining> = None;
        while on_its_way.is_some() || !self.spool.is_empty() {
            let woken = tokio::select! {
                biased;
                // Unfinished batches stay in the spool: whoever drains it next sends them again.
                () = token.cancelled() => return false,
                settled = settle(&mut on_its_way) => Woken::Settled(settled),
                () = tokio::time::sleep_until(due), if on_its_way.is_none() => Woken::Due,
                log = self.receiver.recv() => Woken::Record(log.map(Box::new)),
            };
            match woken {
                Woken::Settled(Sent::All(delivered)) => {
                    if let Some(done) = on_its_way.take() {
                        LogStats::add(&self.stats.delivered, delivered);
                        self.advance(&done.records);
                    }
                }
                Woken::Settled(Sent::Failed(error)) => {
                    tracing::debug!(%error, records = self.spool.len(), "the spool waits");
                    on_its_way = None;
                    due = Instant::now() + self.config.retry;
                }
                Woken::Due => match self.spool.peek(self.config.batch) {
                    Ok(records) => on_its_way = Some(self.drain(records)),
                    Err(error) => {
                        self.spool_failed(&error);
                        due = Instant::now() + self.config.retry;
                    }
                },
                Woken::Record(None) => return false,
                Woken::Record(Some(log)) => {
                    let mut batch = vec![Outgoing::of(&*log)];
                    while batch.len() < self.config.batch
                        && let Ok(log) = self.receiver.try_recv()
                    {
                        batch.push(Outgoing::of(&log));
                    }
                    self.keep(&batch);
                }
            }
        }
        tracing::info!("the spool is drained");
        true
    }

    fn drain(&self, records: Vec<Vec<u8>>) -> Draining {
        let mut outgoing = Vec::with_capacity(records.len());
        for record in &records {
            match decode::<RequestLog>(record) {
                Ok(log) => outgoing.push(Outgoing::of(&log)),
                Err(error) => {
                    LogStats::add(&self.stats.refused, 1);
                    tracing::error!(%error, "a spooled record cannot be read and is left out");
                }
            }
        }
        Draining {
            records,
            outcome: Box::pin(self.send(&outgoing)),
        }
    }

    /// Sends all records; resolves when all have arrived or one has failed. What is refused for good is counted,
    /// alerted, and not sent again.
    fn send(&self, records: &[Outgoing]) -> impl Future<Output = Sent> + Send + use<S> {
        let mut pending = Vec::with_capacity(records.len());
        let mut failed = None;
        for record in records {
            match self.sink.send(record) {
                Ok(acknowledged) => pending.push(acknowledged),
                Err(SinkError::Refused(why)) => self.refused(&why),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let (stats, alerts) = (Arc::clone(&self.stats), self.alerts.clone());
        async move {
            if let Some(error) = failed {
                return Sent::Failed(error);
            }
            let mut delivered = 0;
            for acknowledged in pending {
                match acknowledged.await {
                    Ok(()) => delivered += 1,
                    Err(SinkError::Refused(why)) => refuse(&stats, &alerts, &why),
                    Err(error) => return Sent::Failed(error),
                }
            }
            Sent::All(delivered)
        }
    }

    fn refused(&self, why: &str) {
        refuse(&self.stats, &self.alerts, why);
    }

    /// Keeps records in the spool; what does not fit is dropped, counted, and alerted.
    fn keep(&mut self, records: &[Outgoing]) {
        let lines = records
            .iter()
            .map(|record| record.value.as_deref().unwrap_or_default());
        let kept = match self.spool.append(lines) {
            Ok((kept, _)) => kept,
            Err(error) => {
                self.spool_failed(&error);
                0
            }
        };
        LogStats::add(&self.stats.spooled, kept);
        let lost = records.len() - kept;
        if lost > 0 {
            LogStats::add(&self.stats.dropped_spool, lost);
            self.alerts.raise(
                Severity::Critical,
                "request_log_overflow",
                "spool",
                format!("{lost} request logs were dropped: the spool is full or cannot be written"),
                &[("dropped", self.stats.dropped_spool() as f64)],
            );
        }
        self.note_spool();
    }

    fn advance(&mut self, delivered: &[Vec<u8>]) {
        if let Err(error) = self.spool.advance(delivered) {
            self.spool_failed(&error);
        }
        self.note_spool();
    }

    fn spool_failed(&self, error: &io::Error) {
        self.alerts.raise(
            Severity::Critical,
            "request_log_spool_failed",
            "",
            format!("the request-log spool failed: {error}"),
            &[],
        );
    }

    fn note_spool(&self) {
        self.stats
            .spool_records
            .store(self.spool.len(), Ordering::Relaxed);
        self.stats
            .spool_bytes
            .store(self.spool.bytes(), Ordering::Relaxed);
    }

    /// Empties the queue within the time to flush; the rest is spooled.
    async fn finish(mut self) -> u64 {
        // Nothing more comes in; what is in the queue stays to be read.
        self.receiver.close();
        let deadline = Instant::now() + self.config.flush;
        let mut logs = Vec::new();
        while self.receiver.recv_many(&mut logs, self.config.batch).await > 0 {
            if self.spool.is_empty() && Instant::now() < deadline {
                self.deliver_or_spool(&logs, deadline).await;
            } else {
                let records: Vec<Outgoing> = logs.iter().map(Outgoing::of).collect();
                self.keep(&records);
            }
            logs.clear();
        }
        // An older spool gets what time is left.
        while !self.spool.is_empty() && Instant::now() < deadline {
            let Ok(records) = self.spool.peek(self.config.batch) else {
                break;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, self.drain(records.clone()).outcome).await {
                Ok(Sent::All(delivered)) => {
                    LogStats::add(&self.stats.delivered, delivered);
                    self.advance(&records);
                }
                Ok(Sent::Failed(_)) | Err(_) => break,
            }
        }
        let left = self.spool.len();
        if left > 0 {
            tracing::warn!(
                records = left,
                "request logs wait in the spool for the next start"
            );
        }
        let alerts = self.alerts.clone();
        if let Err(error) = self.spool.close() {
            alerts.raise(
                Severity::Warning,
                "request_log_spool_failed",
                "",
                format!("the spool was not trimmed, some records will be sent twice: {error}"),
                &[],
            );
        }
        left
    }
}

fn refuse(stats: &LogStats, alerts: &Alerts, why: &str) {
    LogStats::add(&stats.refused, 1);
    alerts.raise(
        Severity::Critical,
        "request_log_refused",
        "",
        format!("a request log was refused for good: {why}"),
        &[],
    );
}

/// Waits for the batch on its way; for ever where there is none.
async fn settle(on_its_way: &mut Option<Draining>) -> Sent {
    match on_its_way {
        Some(draining) => draining.outcome.as_mut().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
