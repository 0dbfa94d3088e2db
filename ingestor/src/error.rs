//! What can go wrong on the way in.

use std::path::PathBuf;

use marquee_runtime::BusError;

/// An error of the ingestor. The message alone tells a person what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A damaged row of a data set.
    #[error("{}:{line}: {detail}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// A directory that holds no data set, or an incomplete one.
    #[error("{}: {detail}", dir.display())]
    Layout {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// No directory of that name where data sets are looked for.
    #[error(
        "no data set {name} in {}: give its directory with --data-dir or MARQUEE_DATA_DIR, or let it be downloaded",
        list(tried)
    )]
    NotFound {
        /// The data set.
        name: String,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// A name that cannot be a data set's.
    #[error("{0:?} is no data set name: letters, digits, '-', '_' and '.' are allowed")]
    InvalidName(String),
    /// A text that is no [`crate::Speed`].
    #[error(
        "{text:?} is no replay speed: {detail}; examples are max, 1000x (times real time), 500/s (events per second) \
         and 200@5s (bursts of 200 events every 5 s)"
    )]
    InvalidSpeed {
        /// The text.
        text: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The server with the archives cannot be reached at all.
    #[error(
        "cannot reach {url}: {cause}. Without a network, fetch that file on another machine, unpack it and give the \
         directory with --data-dir or MARQUEE_DATA_DIR; or use the built-in data set 'synthetic'"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why it failed.
        cause: String,
    },
    /// The server answers, but not with the file.
    #[error("{url}: the server answers {status}{}", if *status == 404 { " (is the data set's name right?)" } else { "" })]
    HttpStatus {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The transfer kept breaking off. What arrived is kept, and the next call goes on from there.
    #[error(
        "{url}: broke off after {received} bytes, {attempts} attempts made: {cause}; run it again to resume"
    )]
    Interrupted {
        /// What was asked for.
        url: String,
        /// Bytes that are already here.
        received: u64,
        /// Attempts made.
        attempts: u32,
        /// The last failure.
        cause: String,
    },
    /// An archive whose digest is not the published one; it has been deleted.
    #[error("{url}: MD5 is {found}, published is {expected}; the archive was deleted")]
    Digest {
        /// What was asked for.
        url: String,
        /// The published digest, hexadecimal.
        expected: String,
        /// The archive's digest, hexadecimal.
        found: String,
    },
    /// A digest file that holds no digest.
    #[error("{url}: no MD5 digest in it: {text:?}")]
    DigestFile {
        /// What was asked for.
        url: String,
        /// The start of what it holds.
        text: String,
    },
    /// An archive that is damaged, unsafe to unpack, or larger than allowed.
    #[error("{}: {detail}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A configuration that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The bus refused a record.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A part of this process ended before it answered.
    #[error("{0}")]
    Internal(String),
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no directory (none was given)".into();
    }
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

impl Error {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Bus(error) => error.is_transient(),
            Self::Unreachable { .. } | Self::Interrupted { .. } => true,
            Self::HttpStatus { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
