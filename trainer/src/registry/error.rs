//! Why the registry cannot be used.

use std::path::PathBuf;

use crate::bundle::BundleError;

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Another process writes.
    #[error(
        "the registry {} is in use by a running trainer: stop it first, or ask it by a retrain event",
        path.display()
    )]
    Locked {
        /// The registry.
        path: PathBuf,
    },
    /// Another writer has replaced the state since this one read it.
    #[error("the registry {} was taken over by another writer", path.display())]
    Taken {
        /// The registry's state.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The state is not what was written.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Written by a newer version of this software.
    #[error("{} has format version {found}, this build reads up to {supported}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Newest version read here.
        supported: u32,
    },
    /// No such version or alias.
    #[error("no model {0} in the registry")]
    UnknownVersion(String),
    /// The change makes no sense in the present state.
    #[error("{0}")]
    Refused(String),
    /// A version's bundle is missing or damaged.
    #[error(transparent)]
    Bundle(BundleError),
}
