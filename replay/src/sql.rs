//! SQL over the lake, read-only.
//!
//! Each query sees one snapshot: the files that the manifests name when it begins and, where a bus is given, the
//! records after them that the sink has not written yet (the *hot tail*), each row exactly once.

mod attributions;
mod documentation;
mod engine;
mod error;
mod format;
mod functions;
mod hot;
mod options;
mod provider;
mod session;
mod views;

#[cfg(test)]
mod slt;
#[cfg(test)]
mod tests;

pub use documentation::{ColumnDoc, TableDoc, documentation};
pub(crate) use engine::{ATTEMPTS, is_vanished_file};
pub use engine::{QueryResult, SqlEngine};
pub use error::SqlError;
pub use format::Format;
pub use functions::{FUNCTIONS, FunctionDoc};
pub use options::{HotOptions, SqlOptions};
pub use session::session;
