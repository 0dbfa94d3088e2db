//! A model on disk: one directory per version, every byte under a digest.
//!
//! ```text
//! models/v000001/
//!   manifest.json      what it was made from, its quality, and the SHA-256 of the other files
//!   model.safetensors  the served model
//!   catalogue.jsonl    the catalogue it was fitted with, one movie per line
//! ```
//!
//! The bundle's own digest is that of `manifest.json`, which covers the rest and is written last: a version is complete
//! or absent. The registry names a version only after that. A bundle may lie in a folder or in a bucket.

mod files;
mod manifest;

use std::path::{Path, PathBuf};

use marquee_models::served::ServedModel;
use marquee_schemas::{ModelEvent, Movie};

use crate::store::Store;

pub(crate) use files::publish;
pub use manifest::{Counts, FileDigest, Manifest, Split};

/// Newest bundle format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const MODEL: &str = "model.safetensors";
pub(crate) const CATALOGUE: &str = "catalogue.jsonl";

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// There is nothing at this place.
    #[error("no bundle at {}", path.display())]
    Missing {
        /// The place.
        path: PathBuf,
    },
    /// The disk failed; trying again may help.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is not what the digest says: truncated, changed, or of another bundle.
    #[error("bundle {} is damaged: {detail}", path.display())]
    Damaged {
        /// The bundle.
        path: PathBuf,
        /// What does not match.
        detail: String,
    },
    /// Written by a newer version of this software.
    #[error("bundle {} has format version {found}, this build reads up to {FORMAT_VERSION}", path.display())]
    NewerFormat {
        /// The bundle.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// A verified bundle in memory.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What it was made from and how good it is.
    pub manifest: Manifest,
    /// The model.
    pub model: ServedModel,
    /// The catalogue it was fitted with, by ascending movie id: position i is the model's dense index i. The genre
    /// masks of the model's catalogue follow [`Manifest::genres`].
    pub movies: Vec<Movie>,
    /// SHA-256 of the bundle, lower-case hex.
    pub sha256: String,
}

impl Bundle {
    /// Loads and verifies the bundle at `path`, a folder or an `s3://` location. Blocks.
    ///
    /// # Errors
    /// [`BundleError`] by what is wrong with it; nothing of a bundle that fails is returned.
    pub fn load(path: &Path) -> Result<Self, BundleError> {
        files::load_at(path, None)
    }

    /// As [`Bundle::load`], for a bundle whose digest is known, from a model event for example.
    ///
    /// # Errors
    /// As [`Bundle::load`]; [`BundleError::Damaged`] also for a sound bundle with another digest.
    pub fn load_expecting(path: &Path, sha256: &str) -> Result<Self, BundleError> {
        files::load_at(path, Some(sha256))
    }

    /// Loads the bundle of a `promoted` or `rolled_back` event, verified against the event's digest. `None` for an
    /// event that names no bundle.
    ///
    /// # Errors
    /// As [`Bundle::load_expecting`].
    pub fn of_event(event: &ModelEvent, registry_dir: &Path) -> Result<Option<Self>, BundleError> {
        let Some(uri) = &event.bundle_uri else {
            return Ok(None);
        };
        let path = resolve(uri, registry_dir);
        files::load_at(&path, event.bundle_sha256.as_deref()).map(Some)
    }

    /// As [`Bundle::load_expecting`], from a folder of a store.
    pub(crate) fn load_from(store: &Store, folder: &str, sha256: &str) -> Result<Self, BundleError> {
        files::load(store, folder, Some(sha256))
    }
}

impl Bundle {
    /// Whether these are the bytes of its model.
    #[must_use]
    pub fn is_model(&self, bytes: &[u8]) -> bool {
        let digest = self.manifest.files.get(MODEL);
        digest.is_some_and(|digest| digest.sha256 == crate::durable::sha256_hex(bytes))
    }
}

/// Where the bundle of an event lies for this process: the event's own path if it is there, otherwise the directory of
/// the same name in this registry (the state was moved, or is mounted elsewhere).
#[must_use]
pub fn resolve(uri: &str, registry_dir: &Path) -> PathBuf {
    let named = Path::new(uri.strip_prefix("file://").unwrap_or(uri));
    if named.is_dir() || (crate::store::is_remote(named) && !registry_dir.is_dir()) {
        return named.to_path_buf();
    }
    match named.file_name() {
        Some(version) => crate::registry::models_dir(registry_dir).join(version),
        None => named.to_path_buf(),
    }
}

#[cfg(test)]
mod tests;
