//! What can go wrong in the replay service, by what the caller must do about it.

use std::path::{Path, PathBuf};

use datafusion::arrow::error::ArrowError;
use datafusion::parquet::errors::ParquetError;
use marquee_runtime::BusError;

/// An error of the replay service. All of them end it: a restart derives its position from what is durable, so
/// nothing is lost or doubled by ending. Poison records are not errors but dead letters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{0}")]
    Config(String),
    /// A file of the lake cannot be read or written (disk full, permissions): mend the disk and restart.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The address for SQL cannot be listened on: choose another.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another process writes to this lake.
    #[error("another process is writing to the lake {0}")]
    Locked(PathBuf),
    /// A manifest or a committed file is missing or not what it should be: restore it, or rebuild the lake from the
    /// topics by removing it.
    #[error("the lake is damaged: {path}: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Rows could not be brought into Arrow's form.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// Rows could not be brought into Parquet's form.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A bundle cannot be had from the registry.
    #[error(transparent)]
    Registry(#[from] marquee_trainer::RegistryError),
    /// A model refuses what it is given.
    #[error(transparent)]
    Model(#[from] marquee_models::Error),
    /// A query of the evaluation failed.
    #[error(transparent)]
    Sql(#[from] crate::sql::SqlError),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            detail: detail.into(),
        }
    }
}
