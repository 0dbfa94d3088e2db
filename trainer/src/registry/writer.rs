//! The single writer.

mod life;
mod runs;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_schemas::{ModelEvent, ModelVersion, Movie};

use super::state::{self, Snapshot};
use super::{LOCK, RegistryError, STATE, folder_of, load, orphans, store_at};
use crate::bundle::{self, Bundle, Manifest};
use crate::store::{Store, SwapError, Tag, is_remote};

pub(crate) use runs::{Finished, Intake};

/// The registry, held for writing until it is dropped.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    state: Snapshot,
    /// The version of the stored state that `state` follows.
    tag: Option<Tag>,
    /// Of a local registry, held for as long as this lives.
    lock: Option<File>,
}

impl Registry {
    /// Opens or creates the registry for writing, and removes what interrupted runs left behind.
    ///
    /// # Errors
    /// [`RegistryError::Locked`] while another process has it; otherwise as reading does.
    pub fn open(dir: &Path) -> Result<Self, RegistryError> {
        if is_remote(dir) {
            return Self::over(store_at(dir)?, None);
        }
        let (dir, lock) = lock(dir)?;
        Self::over(store_at(&dir)?, Some(lock))
    }

    /// A registry over these objects, for whose only writer this one is taken.
    pub(super) fn over(store: Store, lock: Option<File>) -> Result<Self, RegistryError> {
        let mut registry = Self::read(store, lock)?;
        registry.take_over()?;
        Ok(registry)
    }

    /// As [`Self::over`], without having changed anything.
    pub(super) fn read(store: Store, lock: Option<File>) -> Result<Self, RegistryError> {
        let (state, tag) = match state::read(&store)? {
            Some((state, tag)) => (state, Some(tag)),
            None => {
                let empty = Snapshot::default();
                // A run is recorded before its bundle is written, so bundles without a registry mean that the
                // registry was lost, not that a run was interrupted.
                if let Some(lost) = orphans(&store, &empty)?.first() {
                    return Err(RegistryError::Damaged {
                        path: store.describe(STATE),
                        detail: format!("it is missing, but {} exists", store.describe(lost).display()),
                    });
                }
                (empty, None)
            }
        };
        Ok(Self {
            store,
            state,
            tag,
            lock,
        })
    }

    /// Takes the registry over, and removes what interrupted runs left behind.
    pub(super) fn take_over(&mut self) -> Result<(), RegistryError> {
        if self.lock.is_none() {
            // Replaces the stored state by itself. From here on the writes of whoever had it before are refused; if that
            // one has named a version meanwhile, this one is refused, and has removed nothing.
            self.save()?;
        }
        for orphan in orphans(&self.store, &self.state)? {
            let path = self.store.describe(&orphan);
            tracing::info!(path = %path.display(), "removing what an interrupted run left behind");
            self.store
                .remove_folder(&orphan)
                .map_err(|source| RegistryError::Io { path, source })?;
        }
        Ok(())
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
            Some(version) => load(&self.store, self.state.find(&version.0)?).map(Some),
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
        bundle::publish(&self.store, manifest, model, movies)
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
            if let Err(error) = self.store.remove_folder(&folder_of(&version)) {
                tracing::warn!(%error, %version, "removing an old bundle");
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

    fn save(&mut self) -> Result<(), RegistryError> {
        let path = self.store.describe(STATE);
        let bytes = self.state.to_bytes().map_err(|error| RegistryError::Damaged {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        match self.store.swap(STATE, &bytes, self.tag.as_ref()) {
            Ok(tag) => {
                self.tag = Some(tag);
                Ok(())
            }
            Err(SwapError::Lost) => Err(RegistryError::Taken { path }),
            Err(SwapError::Io(source)) => Err(RegistryError::Io { path, source }),
        }
    }
}

/// Takes the lock of a local registry, which is made if it is not there; gives its full path too.
fn lock(dir: &Path) -> Result<(PathBuf, File), RegistryError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| RegistryError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    let dir = fs::canonicalize(dir).map_err(io(dir))?;
    let path = dir.join(LOCK);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok((dir, lock)),
        Err(TryLockError::WouldBlock) => Err(RegistryError::Locked { path: dir }),
        Err(TryLockError::Error(source)) => Err(RegistryError::Io { path, source }),
    }
}
