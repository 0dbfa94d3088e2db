//! What arrives, and how trainings begin and end.

use std::collections::BTreeMap;

use marquee_schemas::{
    ModelAction, ModelCommand, ModelEvent, ModelEventKind, ModelVersion, QualityMetric, RetrainEvent,
    SchemaVersion, Topic,
};

use super::super::RegistryError;
use super::super::state::{Entry, HANDLED_KEPT, ModelState, PENDING_KEPT, RunInProgress};
use super::Registry;
use crate::bundle::Manifest;
use crate::gate::Decision;
use crate::retrain::joined_offsets;

/// How a run ended well: a stored bundle and the gate's answer.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) manifest: Manifest,
    pub(crate) bundle_sha256: String,
    pub(crate) decision: Decision,
    pub(crate) reason: String,
    /// Whether a challenger that passes is first rolled out in steps.
    pub(crate) staged: bool,
}

/// What a batch of records says. Duplicates have been left out.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    pub(crate) retrains: Vec<RetrainEvent>,
    pub(crate) commands: Vec<ModelCommand>,
    pub(crate) figures: Vec<QualityMetric>,
    pub(crate) positions: BTreeMap<Topic, BTreeMap<i32, i64>>,
}

impl Registry {
    /// Takes a batch: retrain events wait, commands are obeyed or refused, figures become evidence, and the position
    /// moves, all at once. Says whether the training under way was cancelled.
    pub(crate) fn take(&mut self, intake: Intake, now_ms: i64) -> Result<bool, RegistryError> {
        self.change(|registry| {
            let ran = registry.state.run.is_some();
            for (topic, next) in intake.positions {
                let known = registry
                    .state
                    .positions
                    .entry(topic.name().to_owned())
                    .or_default();
                known.extend(next);
            }
            for event in intake.retrains {
                registry.wait(event);
            }
            for figure in &intake.figures {
                if let Some(rollout) = &mut registry.state.rollout {
                    rollout.observe(figure);
                }
            }
            for command in &intake.commands {
                registry.remember(command.command_id.clone());
                registry.obey(command, now_ms)?;
            }
            Ok(ran && registry.state.run.is_none())
        })
    }

    /// Puts an event among those that wait. A full queue keeps of a further one the data that it asks for.
    fn wait(&mut self, event: RetrainEvent) {
        if self.state.pending.len() < PENDING_KEPT {
            self.state.pending.push(event);
            return;
        }
        tracing::warn!(
            event_id = event.event_id,
            "so many retrain events wait that this one's reason is dropped"
        );
        self.remember(event.event_id.clone());
        if let Some(last) = self.state.pending.last_mut() {
            last.offsets = joined_offsets(&[last.clone(), event]);
        }
    }

    fn remember(&mut self, id: String) {
        self.state.handled.push_back(id);
        while self.state.handled.len() > HANDLED_KEPT {
            self.state.handled.pop_front();
        }
    }

    /// A command that makes no sense becomes an event that says so; only a failing disk is an error.
    fn obey(&mut self, command: &ModelCommand, now_ms: i64) -> Result<(), RegistryError> {
        let reason = match &command.issued_by {
            Some(person) => format!("{} (by {person})", command.reason),
            None => command.reason.clone(),
        };
        let sent = self.state.outbox.len();
        let outcome = match command.action {
            ModelAction::Promote => match &command.version {
                Some(version) => self.crown_by_hand(&version.0, &reason, now_ms).map(drop),
                None => Err(RegistryError::Refused("promote names no version".to_owned())),
            },
            ModelAction::Rollback => self.return_to_previous(&reason, now_ms).map(drop),
            ModelAction::AdvanceRollout => self.advance(&reason, BTreeMap::new(), now_ms),
            ModelAction::CancelTraining => self.cancel_run(&reason, now_ms),
        };
        match outcome {
            Ok(()) => {}
            Err(error @ (RegistryError::Io { .. } | RegistryError::Taken { .. })) => return Err(error),
            Err(error) => {
                tracing::warn!(command_id = command.command_id, %error, "a model command is refused");
                let version = command.version.clone().or_else(|| self.state.champion().cloned());
                let version = version.unwrap_or_else(|| self.state.next_version());
                self.state.outbox.push(ModelEvent {
                    event_id: format!("refused/{}", command.command_id),
                    ..self.bare_event(
                        version,
                        ModelEventKind::CommandRefused,
                        &error.to_string(),
                        now_ms,
                    )
                });
            }
        }
        for event in self.state.outbox.iter_mut().skip(sent) {
            event.command_id = Some(command.command_id.clone());
        }
        Ok(())
    }

    fn cancel_run(&mut self, reason: &str, now_ms: i64) -> Result<(), RegistryError> {
        let Some(run) = self.state.run.clone() else {
            return Err(RegistryError::Refused("no training is under way".to_owned()));
        };
        self.end_without_model(&run.events, &format!("cancelled: {reason}"), now_ms);
        Ok(())
    }

    /// Turns everything that waits into the run in progress.
    pub(crate) fn begin(&mut self, run: RunInProgress) -> Result<(), RegistryError> {
        self.change(|registry| {
            registry
                .state
                .pending
                .retain(|waiting| !run.events.contains(waiting));
            registry.state.run = Some(run);
            Ok(())
        })
    }

    /// Takes back the count of an attempt that ended because the service was told to stop.
    pub(crate) fn interrupted(&mut self) -> Result<(), RegistryError> {
        self.change(|registry| {
            if let Some(run) = &mut registry.state.run {
                run.attempts = run.attempts.saturating_sub(1);
            }
            Ok(())
        })
    }

    /// Ends the run in progress with a model: version, aliases and events change in one step.
    pub(crate) fn finish(&mut self, finished: Finished, now_ms: i64) -> Result<(), RegistryError> {
        let Finished {
            manifest,
            bundle_sha256,
            decision,
            reason,
            staged,
        } = finished;
        self.change(|registry| {
            let events = registry.close_run();
            let version = manifest.version.clone();
            let ids: Vec<String> = events.into_iter().map(|event| event.event_id).collect();
            let recipe_sha256 = manifest.recipe_sha256();
            let semver = registry.next_semver(&recipe_sha256);
            registry.state.last_ordinal = version.ordinal().unwrap_or(registry.state.last_ordinal + 1);
            registry.state.versions.push(Entry {
                version: version.clone(),
                state: ModelState::None,
                semver,
                recipe_sha256,
                bundle_sha256,
                pruned: false,
                created_at_ms: manifest.created_at_ms,
                offsets: manifest.offsets,
                metrics: manifest.metrics.clone(),
                decision: decision.clone(),
                retrain_event_ids: ids.clone(),
                steps: Vec::new(),
            });
            let sent = registry.state.outbox.len();
            let trained = ModelEvent {
                numbers: manifest.metrics,
                ..registry.event(&version, ModelEventKind::Trained, &reason, now_ms)?
            };
            registry.state.outbox.push(trained);
            let kind = Some(ModelEventKind::Trained);
            registry.step(&version, kind, ModelState::None, &reason, now_ms);
            if !decision.promoted {
                registry.reject(&version, &decision, now_ms)?;
            } else if staged && registry.state.champion().is_some() {
                registry.stage(&version, &decision, now_ms)?;
            } else {
                registry.crown(&version, &decision.reason, decision.numbers, now_ms)?;
            }
            for event in registry.state.outbox.iter_mut().skip(sent) {
                event.retrain_event_id = ids.first().cloned();
                event.joined_retrain_event_ids = ids.iter().skip(1).cloned().collect();
                if event.kind != ModelEventKind::Trained {
                    event.checks.clone_from(&decision.checks);
                }
            }
            Ok(())
        })
    }

    /// Ends the run in progress without a model.
    pub(crate) fn fail(&mut self, reason: &str, now_ms: i64) -> Result<(), RegistryError> {
        self.change(|registry| {
            let events = registry.state.run.as_ref().map(|run| run.events.clone());
            registry.end_without_model(&events.unwrap_or_default(), reason, now_ms);
            Ok(())
        })
    }

    fn end_without_model(&mut self, events: &[RetrainEvent], reason: &str, now_ms: i64) {
        let run = self.state.run.as_ref();
        let offsets = run.map(|run| run.offsets.clone()).unwrap_or_default();
        let version = self.state.next_version();
        self.close_run();
        for event in events {
            self.state.outbox.push(ModelEvent {
                event_id: format!("{version}/failed/{}", event.event_id),
                offsets: offsets.clone(),
                retrain_event_id: Some(event.event_id.clone()),
                ..self.bare_event(version.clone(), ModelEventKind::Failed, reason, now_ms)
            });
        }
    }

    fn close_run(&mut self) -> Vec<RetrainEvent> {
        let Some(run) = self.state.run.take() else {
            return Vec::new();
        };
        for event in &run.events {
            self.remember(event.event_id.clone());
        }
        run.events
    }

    /// See [`Entry::semver`].
    fn next_semver(&self, recipe_sha256: &str) -> String {
        let major = crate::bundle::FORMAT_VERSION;
        let Some(last) = self.state.versions.last() else {
            return format!("{major}.0.0");
        };
        let mut parts = last
            .semver
            .split('.')
            .map(|part| part.parse::<u64>().unwrap_or(0));
        let (old, minor, patch) = (
            parts.next().unwrap_or(0),
            parts.next().unwrap_or(0),
            parts.next().unwrap_or(0),
        );
        if old != u64::from(major) {
            format!("{major}.0.0")
        } else if last.recipe_sha256 == recipe_sha256 {
            format!("{major}.{minor}.{}", patch + 1)
        } else {
            format!("{major}.{}.0", minor + 1)
        }
    }

    /// An event without a bundle, about a version that may not exist.
    pub(super) fn bare_event(
        &self,
        version: ModelVersion,
        kind: ModelEventKind,
        reason: &str,
        at_ms: i64,
    ) -> ModelEvent {
        ModelEvent {
            schema_version: SchemaVersion,
            event_id: String::new(),
            version,
            kind,
            reason: reason.to_owned(),
            bundle_uri: None,
            bundle_sha256: None,
            offsets: Vec::new(),
            numbers: BTreeMap::new(),
            retrain_event_id: None,
            joined_retrain_event_ids: Vec::new(),
            previous: self.state.champion().cloned(),
            checks: Vec::new(),
            command_id: None,
            at_ms,
        }
    }
}
