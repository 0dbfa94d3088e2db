//! The versions, which of them serves, and where the trainer stands: one small file with a single writer.
//!
//! `registry.json` is replaced by an atomic rename and holds everything that must change together: versions and
//! aliases, the position in `retrain-events`, the run in progress, and the *outbox* of model events that the broker
//! has not acknowledged yet. The order of a publication is: bundle durable, registry replaced (with its events in the
//! outbox), events sent, outbox emptied. A kill between any two steps leaves either a directory that no registry
//! names, which the next writer removes, or an event that is sent again under the same id.
//!
//! [`Registry::open`] takes the writer's lock, which the operating system frees with the process. [`open_read_only`]
//! needs none: it sees the last complete state.
//!
//! A registry may also lie in an S3-compatible bucket: its location is then `s3://bucket/prefix`. There is no lock there;
//! the state is replaced only if it is still the one that was read, and opening for writing replaces it once, so that
//! whoever wrote before is found out by its next write ([`RegistryError::Taken`]) and nothing is overwritten.

mod error;
mod state;
mod writer;

use std::path::{Path, PathBuf};

use marquee_schemas::{ModelEvent, ModelVersion};

use crate::bundle::{Bundle, BundleError};
use crate::store::Store;

pub use error::RegistryError;
pub use state::{Entry, ModelState, RunInProgress, Snapshot as RegistryState, Step};
pub use writer::Registry;
pub(crate) use writer::{Finished, Intake};

const STATE: &str = "registry.json";
const LOCK: &str = "registry.lock";
const MODELS: &str = "models";

/// The folder of the bundles inside a registry.
#[must_use]
pub fn models_dir(registry_dir: &Path) -> PathBuf {
    registry_dir.join(MODELS)
}

/// The folder of a version's bundle, by its name in the store.
pub(crate) fn folder_of(version: &ModelVersion) -> String {
    format!("{MODELS}/{version}")
}

/// A registry as it was at one moment.
#[derive(Debug, Clone)]
pub struct RegistryReader {
    store: Store,
    state: RegistryState,
}

/// Reads the registry without locking it, also while a trainer runs. A directory without one is an empty registry.
///
/// # Errors
/// [`RegistryError`] when the file cannot be read, is damaged, or is of a newer version.
pub fn open_read_only(registry_dir: &Path) -> Result<RegistryReader, RegistryError> {
    read_from(store_at(registry_dir)?)
}

pub(crate) fn read_from(store: Store) -> Result<RegistryReader, RegistryError> {
    let state = state::read(&store)?.map(|(state, _)| state).unwrap_or_default();
    Ok(RegistryReader { store, state })
}

pub(crate) fn store_at(location: &Path) -> Result<Store, RegistryError> {
    Store::at(location).map_err(|source| RegistryError::Io {
        path: location.to_path_buf(),
        source,
    })
}

impl RegistryReader {
    /// All versions, oldest first.
    #[must_use]
    pub fn list(&self) -> &[Entry] {
        &self.state.versions
    }

    /// One version. Also knows the aliases `champion`, `previous` and `challenger`.
    ///
    /// # Errors
    /// [`RegistryError::UnknownVersion`].
    pub fn show(&self, name: &str) -> Result<&Entry, RegistryError> {
        self.state.find(name)
    }

    /// The version that serves.
    #[must_use]
    pub fn champion(&self) -> Option<&ModelVersion> {
        self.state.champion()
    }

    /// The version that served before it, to which a rollback returns.
    #[must_use]
    pub fn previous(&self) -> Option<&ModelVersion> {
        self.state.previous()
    }

    /// The newest version that is staged and not decided yet.
    #[must_use]
    pub fn challenger(&self) -> Option<&ModelVersion> {
        self.state.challenger()
    }

    /// The alias under which a version is known, if any.
    #[must_use]
    pub fn alias_of(&self, version: &ModelVersion) -> Option<&'static str> {
        [
            ("champion", self.champion()),
            ("challenger", self.challenger()),
            ("previous", self.previous()),
        ]
        .into_iter()
        .find(|(_, named)| *named == Some(version))
        .map(|(alias, _)| alias)
    }

    /// Loads and verifies a version's bundle.
    ///
    /// # Errors
    /// [`RegistryError::UnknownVersion`], or [`RegistryError::Bundle`] by what is wrong with it.
    pub fn load(&self, name: &str) -> Result<Bundle, RegistryError> {
        load(&self.store, self.show(name)?)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Everything, for rendering.
    #[must_use]
    pub fn state(&self) -> &RegistryState {
        &self.state
    }
}

/// All versions of a registry, oldest first.
///
/// # Errors
/// As [`open_read_only`].
pub fn list(registry_dir: &Path) -> Result<Vec<Entry>, RegistryError> {
    Ok(open_read_only(registry_dir)?.state.versions)
}

/// One version by name or alias.
///
/// # Errors
/// As [`open_read_only`], and [`RegistryError::UnknownVersion`].
pub fn show(registry_dir: &Path, name: &str) -> Result<Entry, RegistryError> {
    open_read_only(registry_dir)?.show(name).cloned()
}

/// Makes a version the champion by hand. For use while no trainer runs; the event lies in the outbox and is sent by
/// the next start of the service or by [`Registry::flush_outbox`].
///
/// # Errors
/// [`RegistryError::Locked`] while a trainer runs, [`RegistryError::UnknownVersion`], [`RegistryError::Bundle`] when
/// the bundle is not sound, [`RegistryError::Refused`] if it is the champion already.
pub fn promote(
    registry_dir: &Path,
    name: &str,
    reason: &str,
    now_ms: i64,
) -> Result<ModelEvent, RegistryError> {
    Registry::open(registry_dir)?.promote(name, reason, now_ms)
}

/// Ends the rollout under way, or, without one, lets the previous champion serve again. Otherwise as [`promote`].
///
/// # Errors
/// As [`promote`]; [`RegistryError::Refused`] if there is no previous champion.
pub fn rollback(registry_dir: &Path, reason: &str, now_ms: i64) -> Result<ModelEvent, RegistryError> {
    Registry::open(registry_dir)?.rollback(reason, now_ms)
}

fn load(store: &Store, entry: &Entry) -> Result<Bundle, RegistryError> {
    let folder = folder_of(&entry.version);
    Ok(Bundle::load_from(store, &folder, &entry.bundle_sha256)?)
}

/// Folders of bundles that no version of `state` owns.
fn orphans(store: &Store, state: &RegistryState) -> Result<Vec<String>, RegistryError> {
    let folders = store.folders(MODELS).map_err(|source| RegistryError::Io {
        path: store.describe(MODELS),
        source,
    })?;
    Ok(folders
        .into_iter()
        .filter(|name| is_bundle_name(name) && !state.versions.iter().any(|known| *name == known.version.0))
        .map(|name| format!("{MODELS}/{name}"))
        .collect())
}

/// Only what this module names itself is ever removed.
fn is_bundle_name(name: &str) -> bool {
    let version = name
        .strip_prefix('.')
        .and_then(|rest| rest.strip_suffix(".tmp"))
        .unwrap_or(name);
    ModelVersion(version.to_owned()).ordinal().is_some()
}

impl From<BundleError> for RegistryError {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error)
    }
}

#[cfg(test)]
mod tests;
