//! Reading and verifying bundles.

use std::fmt;
use std::path::PathBuf;

use marquee_models::served::ServedModel;
use marquee_schemas::ModelEvent;
use marquee_trainer::{Bundle, BundleError, GenreVocabulary};

/// A verified model.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The model.
    pub model: ServedModel,
    /// Which genre is which bit for it.
    pub genres: GenreVocabulary,
    /// SHA-256 of its bundle, lower-case hex.
    pub sha256: String,
}

/// Why a bundle cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The event does not say which bytes were promoted.
    #[error("the event {event_id} names no {what}")]
    Unnamed {
        /// The event.
        event_id: String,
        /// What is absent: bundle or checksum.
        what: &'static str,
    },
    /// The bundle is absent, damaged, of a newer format, or cannot be read at the moment.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl LoadError {
    /// Whether trying again later may help: the files may not have arrived yet, or the disk failed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Bundle(BundleError::Missing { .. } | BundleError::Io { .. })
        )
    }
}

/// Where models come from.
pub trait BundleLoader: Send + Sync + fmt::Debug + 'static {
    /// Loads the bundle that an event names and verifies it against the event's checksum. Blocks.
    ///
    /// # Errors
    /// [`LoadError`]; nothing is served from such a bundle.
    fn load(&self, event: &ModelEvent) -> Result<Loaded, LoadError>;
}

/// Bundles in the trainer's registry, or wherever the event says.
#[derive(Debug, Clone)]
pub struct RegistryBundles {
    /// Folder of the registry, for events whose own path is not reachable from here.
    pub registry_dir: PathBuf,
}

impl BundleLoader for RegistryBundles {
    fn load(&self, event: &ModelEvent) -> Result<Loaded, LoadError> {
        let unnamed = |what| LoadError::Unnamed {
            event_id: event.event_id.clone(),
            what,
        };
        // A bundle is intact by its own digests even where the event has none, but then it need not be the promoted one.
        if event.bundle_sha256.is_none() {
            return Err(unnamed("checksum"));
        }
        let bundle = Bundle::of_event(event, &self.registry_dir)?.ok_or_else(|| unnamed("bundle"))?;
        Ok(Loaded {
            model: bundle.model,
            genres: bundle.manifest.genres,
            sha256: bundle.sha256,
        })
    }
}
