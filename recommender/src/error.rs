//! What ends the recommender. Errors of single requests are [`crate::http::Problem`]s.

use marquee_runtime::BusError;

/// Why the recommender cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work: correct it.
    #[error("configuration: {0}")]
    Config(String),
    /// The HTTP address cannot be bound: taken, or not this machine's.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The HTTP server failed.
    #[error("serving HTTP: {0}")]
    Serve(#[source] std::io::Error),
    /// The request-log spool cannot be opened.
    #[error("request-log spool in {path}: {source}")]
    Spool {
        /// Its folder.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The bus failed in a way that does not pass by itself.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The settings of the live state are out of their domain.
    #[error("live state: {0}")]
    Live(#[from] marquee_models::Error),
    /// A thread could not be started or vanished.
    #[error("thread {name}: {detail}")]
    Thread {
        /// Its name.
        name: String,
        /// What happened.
        detail: String,
    },
}
