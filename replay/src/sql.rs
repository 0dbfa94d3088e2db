//! SQL over the lake, read-only.
//!
//! Each query sees one snapshot: the files that the manifests name when it begins and, where a bus is given, the
//! records after them that the sink has not written yet (the *hot tail*), each row exactly once.
//!
//! **What is bounded** ([`SqlOptions`]): the time of a query; the memory of sorting, grouping and joining, over all
//! queries of an engine; rows and bytes of a result; the depth of a query, and what its WITH unfolds into, by its text; what
//! one call of a function that repeats or pads may make; and the rows of a batch, where a long text
//! in the query would go into each of them. **What is not**: what a chain of concatenations or replacements makes of one
//! batch, the form in which a result travels (JSON takes several times its bytes), and the optimiser's own work, which
//! does not heed the time limit.

mod attributions;
mod bounded;
mod documentation;
mod engine;
mod error;
mod format;
mod functions;
mod hot;
mod options;
mod provider;
mod session;
mod text;
mod views;

#[cfg(test)]
mod slt;
#[cfg(test)]
pub(crate) mod tests;

pub use documentation::{ColumnDoc, TableDoc, documentation};
pub(crate) use engine::{ATTEMPTS, is_vanished_file};
pub use engine::{QueryResult, SqlEngine};
pub use error::SqlError;
pub use format::Format;
pub use functions::{FUNCTIONS, FunctionDoc};
pub use options::{HotOptions, SqlOptions};
pub use session::session;
