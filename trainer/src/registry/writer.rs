//! The single writer.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_schemas::{ModelEvent, ModelEventKind, ModelVersion, Movie, RetrainEvent, SchemaVersion};

use super::state::{self, Entry, HANDLED_KEPT, LINEAGE_KEPT, ModelState, RunInProgress, Snapshot, Step};
use super::{LOCK, RegistryError, STATE, load, models_dir, orphans};
use crate::bundle::{self, Bundle, Manifest};
use crate::durable;
use crate::gate::Decision;

/// The registry, locked for writing until it is dropped.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    state: Snapshot,
    /// Holds the lock.
    _lock: File,
}

/// How a run ended well: a stored bundle and the gate's answer.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) manifest: Manifest,
    pub(crate) bundle_sha256: String,
    pub(crate) decision: Decision,
    pub(crate) reason: String,
}

impl Registry {
    /// Opens or creates the registry for writing, and removes what interrupted runs left behind.
    ///
    /// # Errors
    /// [`RegistryError::Locked`] while another process has it; otherwise as reading does.
    pub fn open(dir: &Path) -> Result<Self, RegistryError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| RegistryError::Io { path, source }
        };
        let models = models_dir(dir);
        fs::create_dir_all(&models).map_err(io(&models))?;
        let dir = fs::canonicalize(dir).map_err(io(dir))?;
        let models = models_dir(&dir);
        let lock_path = dir.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RegistryError::Locked { path: dir }),
            Err(TryLockError::Error(source)) => {
                return Err(RegistryError::Io {
                    path: lock_path,
                    source,
                });
            }
        }
        let path = dir.join(STATE);
        let state = match state::read(&path)? {
            Some(state) => state,
            None => {
                let empty = Snapshot::default();
                // A run is recorded before its bundle is written, so bundles without a registry mean that the
                // registry was lost, not that a run was interrupted.
                if let Some(lost) = orphans(&models, &empty)?.first() {
                    return Err(RegistryError::Damaged {
                        path,
                        detail: format!("it is missing, but {} exists", lost.display()),
                    });
                }
                empty
            }
        };
        for orphan in orphans(&models, &state)? {
            tracing::info!(path = %orphan.display(), "removing what an interrupted run left behind");
            fs::remove_dir_all(&orphan).map_err(io(&orphan))?;
        }
        Ok(Self {
            dir,
            state,
            _lock: lock,
        })
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> &Snapshot {
        &self.state
    }

    /// The bundle of the version that serves; `None` without a champion.
    ///
    /// # Errors
    /// [`RegistryError::Bundle`] by what is wrong with it.
    pub fn load_champion(&self) -> Result<Option<Bundle>, RegistryError> {
        match self.state.champion() {
            Some(version) => load(&self.dir, self.state.find(&version.0)?).map(Some),
            None => Ok(None),
        }
    }

    /// Makes a version the champion by hand.
    ///
    /// # Errors
    /// As [`super::promote`].
    pub fn promote(&mut self, name: &str, reason: &str, now_ms: i64) -> Result<ModelEvent, RegistryError> {
        let entry = self.state.find(name)?;
        let version = entry.version.clone();
        if self.state.champion() == Some(&version) {
            return Err(RegistryError::Refused(format!(
                "{version} is the champion already"
            )));
        }
        load(&self.dir, entry)?;
        self.change(|registry| {
            let numbers = registry.state.find(&version.0)?.metrics.clone();
            registry.crown(&version, reason, numbers, None, now_ms)
        })
    }

    /// Lets the previous champion serve again.
    ///
    /// # Errors
    /// As [`super::rollback`].
    pub fn rollback(&mut self, reason: &str, now_ms: i64) -> Result<ModelEvent, RegistryError> {
        let previous =
            self.state.previous().cloned().ok_or_else(|| {
                RegistryError::Refused("there is no previous champion to return to".to_owned())
            })?;
        load(&self.dir, self.state.find(&previous.0)?)?;
        self.change(|registry| {
            let old = registry.state.lineage.pop();
            if let Some(old) = &old {
                let replaced = format!("rolled back to {previous}: {reason}");
                registry.step(old, None, ModelState::Archived, &replaced, now_ms);
            }
            let event = registry.event(&previous, ModelEventKind::RolledBack, reason, now_ms)?;
            let kind = Some(ModelEventKind::RolledBack);
            registry.step(&previous, kind, ModelState::Production, reason, now_ms);
            let event = ModelEvent {
                previous: old,
                ..event
            };
            registry.state.outbox.push(event.clone());
            Ok(event)
        })
    }

    /// Sends what the outbox holds, in order, waiting for the broker until `give_up` says otherwise, and empties it.
    /// Gives the number of events sent.
    ///
    /// # Errors
    /// [`crate::Error::Bus`] if the broker refuses or was given up, [`crate::Error::Registry`] if the disk fails.
    pub fn flush_outbox(
        &mut self,
        publisher: &Publisher,
        give_up: impl Fn() -> bool,
    ) -> Result<usize, crate::Error> {
        if self.state.outbox.is_empty() {
            return Ok(0);
        }
        let records: Vec<Outgoing> = self.state.outbox.iter().map(Outgoing::of).collect();
        publisher.publish_all_blocking(&records, give_up)?;
        self.clear_outbox()?;
        Ok(records.len())
    }

    pub(crate) fn clear_outbox(&mut self) -> Result<(), RegistryError> {
        self.change(|registry| {
            registry.state.outbox.clear();
            Ok(())
        })
    }

    /// Remembers that records of `retrain-events` need no work.
    pub(crate) fn skip_to(&mut self, next_offsets: &BTreeMap<i32, i64>) -> Result<(), RegistryError> {
        self.change(|registry| {
            registry.state.next_offsets.extend(next_offsets);
            Ok(())
        })
    }

    pub(crate) fn begin(&mut self, run: RunInProgress) -> Result<(), RegistryError> {
        self.change(|registry| {
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

    /// Writes the bundle; nobody knows of it until [`Registry::finish`].
    pub(crate) fn store(
        &self,
        manifest: &mut Manifest,
        model: &[u8],
        movies: &[Movie],
    ) -> Result<String, bundle::BundleError> {
        bundle::publish(&models_dir(&self.dir), manifest, model, movies)
    }

    /// Ends the run in progress with a model: version, aliases, position and events change in one step.
    pub(crate) fn finish(&mut self, finished: Finished, now_ms: i64) -> Result<(), RegistryError> {
        let Finished {
            manifest,
            bundle_sha256,
            decision,
            reason,
        } = finished;
        self.change(|registry| {
            let events = registry.close_run();
            let version = manifest.version.clone();
            let first_id = events.first().map(|event| event.event_id.clone());
            registry.state.last_ordinal = version.ordinal().unwrap_or(registry.state.last_ordinal + 1);
            registry.state.versions.push(Entry {
                version: version.clone(),
                state: ModelState::None,
                bundle_sha256,
                pruned: false,
                created_at_ms: manifest.created_at_ms,
                offsets: manifest.offsets,
                metrics: manifest.metrics.clone(),
                decision: decision.clone(),
                retrain_event_ids: events.into_iter().map(|event| event.event_id).collect(),
                steps: Vec::new(),
            });
            let trained = ModelEvent {
                numbers: manifest.metrics,
                retrain_event_id: first_id.clone(),
                ..registry.event(&version, ModelEventKind::Trained, &reason, now_ms)?
            };
            registry.state.outbox.push(trained);
            let kind = Some(ModelEventKind::Trained);
            registry.step(&version, kind, ModelState::None, &reason, now_ms);
            if decision.promoted {
                registry.crown(&version, &decision.reason, decision.numbers, first_id, now_ms)?;
            } else {
                let rejected = ModelEvent {
                    numbers: decision.numbers,
                    retrain_event_id: first_id,
                    ..registry.event(&version, ModelEventKind::Rejected, &decision.reason, now_ms)?
                };
                registry.state.outbox.push(rejected);
                let kind = Some(ModelEventKind::Rejected);
                registry.step(&version, kind, ModelState::Archived, &decision.reason, now_ms);
            }
            Ok(())
        })
    }

    /// Ends the run in progress, or events that never became one, without a model.
    pub(crate) fn fail(
        &mut self,
        events: &[RetrainEvent],
        reason: &str,
        now_ms: i64,
    ) -> Result<(), RegistryError> {
        self.change(|registry| {
            let run = registry.state.run.as_ref();
            let offsets = run.map(|run| run.offsets.clone()).unwrap_or_default();
            registry.close_run();
            for event in events {
                registry.state.outbox.push(ModelEvent {
                    schema_version: SchemaVersion,
                    event_id: format!("{}/failed/{}", registry.state.next_version(), event.event_id),
                    version: registry.state.next_version(),
                    kind: ModelEventKind::Failed,
                    reason: reason.to_owned(),
                    bundle_uri: None,
                    bundle_sha256: None,
                    offsets: offsets.clone(),
                    numbers: BTreeMap::new(),
                    retrain_event_id: Some(event.event_id.clone()),
                    previous: registry.state.champion().cloned(),
                    at_ms: now_ms,
                });
            }
            Ok(())
        })
    }

    /// Removes the files of all but the `keep` newest versions, champion and previous excepted. Entries stay.
    pub(crate) fn prune(&mut self, keep: usize) -> Result<(), RegistryError> {
        let spared = [self.state.champion().cloned(), self.state.previous().cloned()];
        let old: Vec<ModelVersion> = self
            .state
            .versions
            .iter()
            .rev()
            .skip(keep)
            .filter(|entry| !entry.pruned && !spared.contains(&Some(entry.version.clone())))
            .map(|entry| entry.version.clone())
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        // Marked first: a kill in between leaves files that nobody needs, never an entry that promises them.
        self.change(|registry| {
            for version in &old {
                if let Some(entry) = registry.state.find_mut(version) {
                    entry.pruned = true;
                }
            }
            Ok(())
        })?;
        for version in old {
            let path = models_dir(&self.dir).join(&version.0);
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(%error, path = %path.display(), "removing an old bundle");
            }
        }
        Ok(())
    }

    fn close_run(&mut self) -> Vec<RetrainEvent> {
        let Some(run) = self.state.run.take() else {
            return Vec::new();
        };
        self.state.next_offsets.extend(run.next_offsets);
        for event in &run.events {
            self.state.handled.push_back(event.event_id.clone());
        }
        while self.state.handled.len() > HANDLED_KEPT {
            self.state.handled.pop_front();
        }
        run.events
    }

    /// Puts `version` at the end of the lineage.
    fn crown(
        &mut self,
        version: &ModelVersion,
        reason: &str,
        numbers: BTreeMap<String, f64>,
        retrain_event_id: Option<String>,
        now_ms: i64,
    ) -> Result<ModelEvent, RegistryError> {
        let previous = self.state.champion().cloned();
        if let Some(previous) = &previous {
            let replaced = format!("replaced by {version}");
            self.step(previous, None, ModelState::Archived, &replaced, now_ms);
        }
        let event = ModelEvent {
            numbers,
            retrain_event_id,
            previous,
            ..self.event(version, ModelEventKind::Promoted, reason, now_ms)?
        };
        let kind = Some(ModelEventKind::Promoted);
        self.step(version, kind, ModelState::Production, reason, now_ms);
        self.state.lineage.push(version.clone());
        let surplus = self.state.lineage.len().saturating_sub(LINEAGE_KEPT);
        self.state.lineage.drain(..surplus);
        self.state.outbox.push(event.clone());
        Ok(event)
    }

    fn step(
        &mut self,
        version: &ModelVersion,
        kind: Option<ModelEventKind>,
        state: ModelState,
        reason: &str,
        at_ms: i64,
    ) {
        if let Some(entry) = self.state.find_mut(version) {
            entry.state = state;
            entry.steps.push(Step {
                kind,
                state,
                at_ms,
                reason: reason.to_owned(),
            });
        }
    }

    /// An event about a stored version. Its id counts how often this step was taken before.
    fn event(
        &self,
        version: &ModelVersion,
        kind: ModelEventKind,
        reason: &str,
        at_ms: i64,
    ) -> Result<ModelEvent, RegistryError> {
        let entry = self.state.find(&version.0)?;
        let before = entry.steps.iter().filter(|step| step.kind == Some(kind)).count();
        let name = serde_json::to_value(kind)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default();
        let event_id = if before == 0 {
            format!("{version}/{name}")
        } else {
            format!("{version}/{name}/{}", before + 1)
        };
        Ok(ModelEvent {
            schema_version: SchemaVersion,
            event_id,
            version: version.clone(),
            kind,
            reason: reason.to_owned(),
            bundle_uri: Some(models_dir(&self.dir).join(&version.0).display().to_string()),
            bundle_sha256: Some(entry.bundle_sha256.clone()),
            offsets: entry.offsets.clone(),
            numbers: BTreeMap::new(),
            retrain_event_id: None,
            previous: self.state.champion().cloned(),
            at_ms,
        })
    }

    /// Applies a change and makes it durable; if either fails, nothing has changed.
    fn change<T>(
        &mut self,
        apply: impl FnOnce(&mut Self) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let before = self.state.clone();
        let outcome = apply(self).and_then(|value| self.save().map(|()| value));
        if outcome.is_err() {
            self.state = before;
        }
        outcome
    }

    fn save(&self) -> Result<(), RegistryError> {
        let path = self.dir.join(STATE);
        let bytes = self.state.to_bytes().map_err(|error| RegistryError::Damaged {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        durable::replace(&path, &bytes).map_err(|source| RegistryError::Io { path, source })
    }
}
