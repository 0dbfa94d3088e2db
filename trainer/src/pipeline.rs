//! One batch of retrain events after the other, each step durable before the next.
//!
//! The steps of a training, in order: the run is *recorded* with the offsets it trains on; the snapshot is read and
//! the model fitted on another thread; the bundle is *stored*; version, aliases, position and events are *committed*
//! by one rename; the events are *sent*; the outbox is *cleared*. A kill after any of them is mended by
//! [`Worker::settle`] at the next start: a recorded run is run again on the same offsets, a committed one is only
//! sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use marquee_runtime::bus::{Outgoing, RawRecord};
use marquee_runtime::{BusError, Clock};
use marquee_schemas::{
    Bytes64, DeadLetter, DecodeError, PartitionOffset, Reason, RetrainEvent, SchemaVersion,
};
use tokio_util::sync::CancellationToken;

use crate::bundle::{self, Bundle, Manifest};
use crate::registry::{Finished, RegistryError, RunInProgress};
use crate::retrain::{joined_offsets, joined_reason};
use crate::run::{self, LoggedWatch, RunError, RunSettings, Stage, Trained, Watch as _};
use crate::snapshot::Snapshot;
use crate::{Config, Error, Registry};

/// Where snapshots come from.
pub(crate) trait Source: Send + Sync + 'static {
    fn pin(&self, named: &[PartitionOffset]) -> Result<Vec<PartitionOffset>, BusError>;
    fn read(&self, offsets: &[PartitionOffset], stop: &dyn Fn() -> bool) -> Result<Snapshot, BusError>;
}

/// Where events go. Returns when they are acknowledged; retries until `stop`.
pub(crate) trait Sink: Send + 'static {
    fn send(&self, records: &[Outgoing], stop: &dyn Fn() -> bool) -> Result<(), BusError>;
}

/// What has just become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    RunRecorded,
    BundleStored,
    Committed,
    EventsSent,
}

/// How long to sleep between asking the training thread and the token.
const GLANCE: Duration = Duration::from_millis(20);
/// Pause before a broker that was away is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Answers retrain events.
pub(crate) struct Worker<S, O> {
    config: Config,
    registry: Registry,
    source: Arc<S>,
    sink: O,
    clock: Arc<dyn Clock>,
    token: CancellationToken,
    /// Ends the worker as a kill would, right after a step. Only tests set it.
    pub(crate) kill_after: Option<Durable>,
}

/// Why the training thread gave no model.
enum Failure {
    Bus(BusError),
    Run(RunError),
    Panicked,
}

impl<S: Source, O: Sink> Worker<S, O> {
    pub(crate) fn new(
        config: Config,
        registry: Registry,
        source: S,
        sink: O,
        clock: Arc<dyn Clock>,
        token: CancellationToken,
    ) -> Self {
        Self {
            config,
            registry,
            source: Arc::new(source),
            sink,
            clock,
            token,
            kill_after: None,
        }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Finishes what an earlier start left: events that were not sent, a run that did not end.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        self.deliver()?;
        if self.registry.state().run.is_some() {
            self.execute()?;
        }
        Ok(())
    }

    /// Answers a batch of records of `retrain-events`.
    pub(crate) fn take(&mut self, batch: &[RawRecord]) -> Result<(), Error> {
        self.settle()?;
        let mut events: Vec<RetrainEvent> = Vec::new();
        let mut dead = Vec::new();
        let mut next_offsets = BTreeMap::new();
        for record in batch {
            let done = self.registry.state().next_offsets.get(&record.partition);
            if done.is_some_and(|&next| record.offset < next) {
                continue;
            }
            next_offsets.insert(record.partition, record.next_offset());
            match marquee_schemas::decode::<RetrainEvent>(record.value.as_deref().unwrap_or_default()) {
                Ok(event) if self.is_known(&event, &events) => {
                    tracing::info!(event_id = event.event_id, "retrain event was answered before");
                }
                Ok(event) => events.push(event),
                Err(error) => dead.push(dead_letter(record, &error, self.clock.now_ms())),
            }
        }
        if !dead.is_empty() {
            tracing::warn!(
                records = dead.len(),
                "retrain events that cannot be read go to the dead letters"
            );
            self.send(&dead)?;
        }
        if next_offsets.is_empty() {
            return Ok(());
        }
        if events.is_empty() {
            return Ok(self.registry.skip_to(&next_offsets)?);
        }
        self.record(events, next_offsets)?;
        self.execute()
    }

    fn is_known(&self, event: &RetrainEvent, batch: &[RetrainEvent]) -> bool {
        self.registry.state().handled.contains(&event.event_id)
            || batch.iter().any(|other| other.event_id == event.event_id)
    }

    /// Makes the run durable with the offsets that it will train on.
    fn record(&mut self, events: Vec<RetrainEvent>, next_offsets: BTreeMap<i32, i64>) -> Result<(), Error> {
        let named = joined_offsets(&events);
        let pinned = loop {
            match self.source.pin(&named) {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "asking for the ends of the log failed, trying again");
                    if self.token.is_cancelled() {
                        return Err(Error::Cancelled);
                    }
                    std::thread::sleep(RETRY);
                }
                other => break other,
            }
        };
        let (offsets, refused) = match pinned {
            Ok(offsets) => (offsets, None),
            Err(error @ BusError::Fatal(_)) => return Err(error.into()),
            Err(error) => (named, Some(error.to_string())),
        };
        self.registry.begin(RunInProgress {
            events,
            next_offsets,
            offsets,
            began_at_ms: self.clock.now_ms(),
            attempts: 0,
        })?;
        self.reached(Durable::RunRecorded)?;
        match refused {
            Some(reason) => self.give_up(&reason),
            None => Ok(()),
        }
    }

    /// Runs the recorded run to its end, good or bad.
    fn execute(&mut self) -> Result<(), Error> {
        let Some(mut run) = self.registry.state().run.clone() else {
            return Ok(());
        };
        if run.attempts >= self.config.max_attempts {
            return self.give_up(&format!(
                "given up: {} starts ended with the process before the training did",
                run.attempts
            ));
        }
        run.attempts += 1;
        self.registry.begin(run.clone())?;
        let reason = joined_reason(&run.events);
        let version = self.registry.state().next_version();
        tracing::info!(%version, reason, attempt = run.attempts, "training begins");

        let (champion, lost) = match self.registry.load_champion() {
            Ok(champion) => (champion, None),
            Err(RegistryError::Bundle(error)) => {
                // Recommenders cannot load it either: whatever is sound is better.
                tracing::error!(%error, "the champion's bundle cannot be used");
                (None, Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        let mut settings = RunSettings::from(&self.config);
        if self.config.quick_bootstrap && self.registry.state().champion().is_none() {
            settings = settings.without_ranker();
        }
        match self.compute(&run, champion, &settings) {
            Ok((snapshot, mut trained)) => {
                if let Some(lost) = lost {
                    trained.decision.reason = format!(
                        "the champion cannot be loaded ({lost}); {}",
                        trained.decision.reason
                    );
                }
                self.conclude(&run, &settings, snapshot, trained)
            }
            Err(_) if self.token.is_cancelled() => {
                self.registry.interrupted()?;
                Err(Error::Cancelled)
            }
            Err(Failure::Bus(error @ BusError::Fatal(_))) => Err(error.into()),
            Err(Failure::Bus(error)) => self.give_up(&format!("reading the data: {error}")),
            Err(Failure::Run(error)) => self.give_up(&error.to_string()),
            Err(Failure::Panicked) => self.give_up("the training panicked; see the log"),
        }
    }

    /// Reads and trains on another thread, so that a stop need not wait for a long fit: the thread is then left to
    /// itself. It writes nothing but the snapshot cache, and ends at its next stage.
    fn compute(
        &self,
        run: &RunInProgress,
        champion: Option<Bundle>,
        settings: &RunSettings,
    ) -> Result<(Snapshot, Trained), Failure> {
        let (sender, receiver) = sync_channel(1);
        let source = Arc::clone(&self.source);
        let settings = settings.clone();
        let offsets = run.offsets.clone();
        let token = self.token.clone();
        let spawned = std::thread::Builder::new()
            .name("marquee-training".into())
            .spawn(move || {
                let outcome = read_and_train(source.as_ref(), &offsets, champion.as_ref(), &settings, &token);
                // The receiver is gone only if the work was abandoned.
                drop(sender.send(outcome));
            });
        if let Err(error) = spawned {
            return Err(Failure::Run(RunError::Threads(error.to_string())));
        }
        loop {
            match receiver.recv_timeout(GLANCE) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Panicked),
                Err(RecvTimeoutError::Timeout) if self.token.is_cancelled() => {
                    return Err(Failure::Run(RunError::Cancelled));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn conclude(
        &mut self,
        run: &RunInProgress,
        settings: &RunSettings,
        snapshot: Snapshot,
        trained: Trained,
    ) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let version = self.registry.state().next_version();
        let mut manifest = Manifest {
            format_version: bundle::FORMAT_VERSION,
            version: version.clone(),
            created_at_ms: now_ms,
            code_revision: self.config.code_revision.clone(),
            counts: snapshot.counts,
            users: snapshot.users.len() as u64,
            movies: snapshot.movies.len() as u64,
            trained_until_ms: snapshot.until_ms(),
            offsets: snapshot.offsets,
            split: trained.split,
            seed: settings.seed,
            params: settings.params.clone(),
            metrics: trained.metrics,
            genres: snapshot.genres,
            retrain_event_ids: run.events.iter().map(|event| event.event_id.clone()).collect(),
            files: BTreeMap::new(),
        };
        let stored = self
            .registry
            .store(&mut manifest, &trained.model, &snapshot.movies);
        let bundle_sha256 = match stored {
            Ok(digest) => digest,
            Err(error) => return self.give_up(&format!("storing the bundle: {error}")),
        };
        self.reached(Durable::BundleStored)?;
        let (promoted, verdict) = (trained.decision.promoted, trained.decision.reason.clone());
        self.registry.finish(
            Finished {
                manifest,
                bundle_sha256,
                decision: trained.decision,
                reason: joined_reason(&run.events),
            },
            now_ms,
        )?;
        tracing::info!(%version, promoted, reason = verdict, "training done");
        self.reached(Durable::Committed)?;
        self.deliver()?;
        Ok(self.registry.prune(self.config.keep_versions)?)
    }

    /// Ends the recorded run as failed.
    fn give_up(&mut self, reason: &str) -> Result<(), Error> {
        tracing::error!(reason, "training failed");
        let events = self
            .registry
            .state()
            .run
            .as_ref()
            .map(|run| run.events.clone())
            .unwrap_or_default();
        self.registry.fail(&events, reason, self.clock.now_ms())?;
        self.reached(Durable::Committed)?;
        self.deliver()
    }

    fn deliver(&mut self) -> Result<(), Error> {
        let records: Vec<Outgoing> = self.registry.state().outbox.iter().map(Outgoing::of).collect();
        if records.is_empty() {
            return Ok(());
        }
        self.send(&records)?;
        self.reached(Durable::EventsSent)?;
        Ok(self.registry.clear_outbox()?)
    }

    fn send(&self, records: &[Outgoing]) -> Result<(), Error> {
        match self.sink.send(records, &|| self.token.is_cancelled()) {
            Err(error) if error.is_transient() && self.token.is_cancelled() => Err(Error::Cancelled),
            outcome => Ok(outcome?),
        }
    }

    fn reached(&self, step: Durable) -> Result<(), Error> {
        if self.kill_after == Some(step) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

fn read_and_train(
    source: &impl Source,
    offsets: &[PartitionOffset],
    champion: Option<&Bundle>,
    settings: &RunSettings,
    token: &CancellationToken,
) -> Result<(Snapshot, Trained), Failure> {
    let stop = || token.is_cancelled();
    let watch = LoggedWatch::new(stop);
    if !watch.begins(Stage::Snapshot) {
        return Err(Failure::Run(RunError::Cancelled));
    }
    let snapshot = loop {
        match source.read(offsets, &stop) {
            Ok(snapshot) => break snapshot,
            Err(error) if error.is_transient() && !stop() => {
                tracing::warn!(%error, "reading the training data failed, trying again");
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(Failure::Bus(error)),
        }
    };
    let trained = run::train(&snapshot, champion, settings, &watch).map_err(Failure::Run)?;
    watch.ended();
    Ok((snapshot, trained))
}

fn dead_letter(record: &RawRecord, error: &DecodeError, now_ms: i64) -> Outgoing {
    let reason = match &record.value {
        Some(value) if !value.is_empty() => error.reason(),
        _ => Reason::Empty,
    };
    Outgoing::of(&DeadLetter {
        schema_version: SchemaVersion,
        topic: record.topic.name().to_owned(),
        partition: record.partition,
        offset: record.offset,
        stage: "trainer".to_owned(),
        reason,
        detail: error.to_string(),
        key: record.key.clone().map(Bytes64),
        payload: Bytes64(record.value.clone().unwrap_or_default()),
        at_ms: now_ms,
    })
}

#[cfg(test)]
mod tests;
