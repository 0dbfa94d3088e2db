//! The single writer.

mod life;
mod runs;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_schemas::{ModelEvent, ModelVersion, Movie};

use super::state::{self, Snapshot};
use super::{LOCK, RegistryError, STATE, load, models_dir, orphans};
use crate::bundle::{self, Bundle, Manifest};
use crate::durable;

pub(crate) use runs::{Finished, Intake};

/// The registry, locked for writing until it is dropped.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    state: Snapshot,
    /// Holds the lock.
    _lock: File,
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
        self.change(|registry| registry.crown_by_hand(name, reason, now_ms))
    }

    /// Ends the rollout under way, or, without one, lets the previous champion serve again.
    ///
    /// # Errors
    /// As [`super::rollback`].
    pub fn rollback(&mut self, reason: &str, now_ms: i64) -> Result<ModelEvent, RegistryError> {
        self.change(|registry| registry.return_to_previous(reason, now_ms))
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

    /// Writes the bundle; nobody knows of it until [`Registry::finish`].
    pub(crate) fn store(
        &self,
        manifest: &mut Manifest,
        model: &[u8],
        movies: &[Movie],
    ) -> Result<String, bundle::BundleError> {
        bundle::publish(&models_dir(&self.dir), manifest, model, movies)
    }

    /// Removes the files of all but the `keep` newest versions; champion, previous and whatever is being rolled out
    /// excepted. Entries stay.
    pub(crate) fn prune(&mut self, keep: usize) -> Result<(), RegistryError> {
        let spared = [
            self.state.champion().cloned(),
            self.state.previous().cloned(),
            self.state.challenger().cloned(),
        ];
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
