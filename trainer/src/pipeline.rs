//! Retrain events, commands and figures in; models and their events out; each step durable before the next.
//!
//! Records are *taken*: retrain events join those that wait, commands are obeyed, figures become evidence, and the
//! position moves, in one rename of the registry. Between batches the worker *ticks*: it sends what the outbox holds,
//! begins a training for everything that waits, looks whether the one under way has ended, and judges the rollout.
//!
//! The steps of a training, in order: the run is *recorded* with the offsets it trains on; the snapshot is read and
//! the model fitted on another thread; the bundle is *stored*; version, aliases and events are *committed* by one
//! rename; the events are *sent*; the outbox is *cleared*. A kill after any of them is mended by the next start: a
//! recorded run is run again on the same offsets, a committed one is only sent. Events that arrive meanwhile wait, and
//! the next training answers all of them.

mod intake;
mod progress;
mod training;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::{Outgoing, RawRecord};
use marquee_runtime::{BusError, Clock};
use marquee_schemas::PartitionOffset;
use tokio_util::sync::CancellationToken;

use crate::bundle::{self, Manifest};
use crate::registry::{Finished, RegistryError, RunInProgress};
use crate::retrain::{joined_offsets, joined_reason};
use crate::rollout::Answer;
use crate::run::{RunSettings, Trained};
use crate::snapshot::Snapshot;
use crate::{Config, Error, Registry};
pub(crate) use progress::Progress;
use training::{Failure, Training};

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
    Taken,
    RunRecorded,
    BundleStored,
    Committed,
    EventsSent,
    RolloutMoved,
}

/// Pause before a broker that was away is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Answers retrain events and commands.
pub(crate) struct Worker<S, O> {
    config: Config,
    registry: Registry,
    source: Arc<S>,
    sink: O,
    clock: Arc<dyn Clock>,
    token: CancellationToken,
    training: Option<Training>,
    progress: Progress,
    /// Ends the worker as a kill would, right after a step. Only tests set it.
    pub(crate) kill_after: Option<Durable>,
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
            training: None,
            progress: Progress::default(),
            kill_after: None,
        }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Whether nothing waits and nothing is under way.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.registry.state();
        self.training.is_none() && state.run.is_none() && state.pending.is_empty() && state.outbox.is_empty()
    }

    /// Takes a batch of records of any topic it follows.
    pub(crate) fn take(&mut self, batch: &[RawRecord]) -> Result<(), Error> {
        let sorted = intake::sort(batch, self.registry.state(), self.clock.now_ms());
        if !sorted.dead.is_empty() {
            tracing::warn!(
                records = sorted.dead.len(),
                "records that cannot be read go to the dead letters"
            );
            self.send(&sorted.dead)?;
        }
        if sorted.intake.positions.is_empty() {
            return Ok(());
        }
        let cancelled = self.registry.take(sorted.intake, self.clock.now_ms())?;
        if cancelled && let Some(training) = &mut self.training {
            training.abandon();
        }
        self.reached(Durable::Taken)
    }

    /// Does what is due; see the [module](self).
    pub(crate) fn tick(&mut self) -> Result<(), Error> {
        self.deliver()?;
        self.report()?;
        if let Some(training) = &self.training {
            if let Some(outcome) = training.outcome() {
                self.end_training(outcome)?;
            }
        } else if self.registry.state().run.is_some() {
            self.begin_training()?;
        } else if !self.registry.state().pending.is_empty() {
            self.record()?;
        }
        self.roll_out()?;
        self.deliver()
    }

    /// Leaves a training under way to the next start.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        if let Some(mut training) = self.training.take() {
            training.abandon();
            self.registry.interrupted()?;
        }
        Ok(())
    }

    /// Makes a run for everything that waits durable, with the offsets that it will train on.
    fn record(&mut self) -> Result<(), Error> {
        let events = self.registry.state().pending.clone();
        let named = joined_offsets(&events);
        let (offsets, refused) = match self.source.pin(&named) {
            Ok(offsets) => (offsets, None),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "asking for the ends of the log failed, trying again");
                // The subscriber's idle time is the pause.
                return Ok(());
            }
            Err(error @ BusError::Fatal(_)) => return Err(error.into()),
            Err(error) => (named, Some(error.to_string())),
        };
        self.registry.begin(RunInProgress {
            events,
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

    /// Starts the recorded run on its thread.
    fn begin_training(&mut self) -> Result<(), Error> {
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
        let version = self.registry.state().next_version();
        tracing::info!(
            %version,
            reason = joined_reason(&run.events),
            attempt = run.attempts,
            "training begins"
        );
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
        self.progress.begin(version, &run);
        match Training::spawn(
            Arc::clone(&self.source),
            run.offsets,
            champion,
            lost,
            settings,
            self.progress.clone(),
            self.token.child_token(),
        ) {
            Ok(training) => {
                self.training = Some(training);
                Ok(())
            }
            Err(error) => self.give_up(&format!("starting the training thread: {error}")),
        }
    }

    fn end_training(&mut self, outcome: Result<(Snapshot, Trained), Failure>) -> Result<(), Error> {
        let Some(training) = self.training.take() else {
            return Ok(());
        };
        if training.is_abandoned() {
            tracing::info!("the cancelled training has ended");
            return Ok(());
        }
        match outcome {
            Ok((snapshot, mut trained)) => {
                if let Some(lost) = &training.champion_lost {
                    trained.decision.reason = format!(
                        "the champion cannot be loaded ({lost}); {}",
                        trained.decision.reason
                    );
                }
                self.conclude(&training.settings, snapshot, trained)
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

    fn conclude(
        &mut self,
        settings: &RunSettings,
        snapshot: Snapshot,
        trained: Trained,
    ) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let version = self.registry.state().next_version();
        let events = self.registry.state().run.as_ref().map(|run| run.events.clone());
        let events = events.unwrap_or_default();
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
            retrain_event_ids: events.iter().map(|event| event.event_id.clone()).collect(),
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
                reason: joined_reason(&events),
                staged: self.config.rollout.enabled,
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
        self.registry.fail(reason, self.clock.now_ms())?;
        self.reached(Durable::Committed)?;
        self.deliver()
    }

    /// Moves the rollout as its evidence says.
    fn roll_out(&mut self) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let Some(rollout) = &self.registry.state().rollout else {
            return Ok(());
        };
        let version = rollout.version.clone();
        let judgement = rollout.judge(&self.config.rollout, now_ms);
        match judgement.answer {
            Answer::Wait => return Ok(()),
            Answer::Advance => {
                self.registry
                    .advance_rollout(&judgement.reason, judgement.numbers, now_ms)?;
            }
            Answer::RollBack => {
                self.registry
                    .abort_rollout(&judgement.reason, judgement.numbers, now_ms)?;
            }
        }
        tracing::info!(%version, answer = ?judgement.answer, reason = judgement.reason, "rollout moves");
        self.reached(Durable::RolloutMoved)
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

    /// Tells people who wait how far the training is. Lost by a kill, and then told again by the next attempt.
    fn report(&self) -> Result<(), Error> {
        let events = self.progress.drain(self.clock.now_ms());
        if events.is_empty() {
            return Ok(());
        }
        self.send(&events)
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

#[cfg(test)]
mod tests;
