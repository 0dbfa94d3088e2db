//! What can go wrong, by what the caller must do about it.
//!
//! Bad input is not among it: a poisonous record becomes a dead letter and the fold goes on. Transient errors of the
//! bus are retried inside. What is left ends the service.

use std::path::PathBuf;

use marquee_runtime::BusError;

use crate::CrashPoint;

/// An error that ends the feature processor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("feature processor: {0}")]
    Config(String),
    /// A state file cannot be opened, read or written. Nothing of the batch in hand was made durable, or its commit
    /// is in doubt: a restart continues from what the file holds.
    #[error("{path}: {source}")]
    Store {
        /// The file.
        path: PathBuf,
        /// redb's error.
        source: Box<redb::Error>,
    },
    /// The state folder cannot be used.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A state file of a format that this build does not read, or of another partition.
    #[error("{path}: {detail}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The address to serve features on cannot be used.
    #[error("serving features on {listen}: {source}")]
    Listen {
        /// The address.
        listen: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The threads that commit cannot be started.
    #[error("starting the feature processor's threads: {0}")]
    Workers(rayon::ThreadPoolBuildError),
    /// The bus failed in a way that no retry mends.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A fault that a test injected.
    #[error("injected crash {0:?}")]
    Injected(CrashPoint),
}

impl Error {
    pub(crate) fn store(path: &std::path::Path) -> impl FnOnce(redb::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Store {
            path,
            source: Box::new(source),
        }
    }
}
