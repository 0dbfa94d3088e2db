//! Limits of a query.

use serde::{Deserialize, Serialize};

/// Limits of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqlOptions {
    /// Memory for sorting, grouping and joining, over all queries of one engine; nothing spills to disk.
    pub memory_limit_bytes: usize,
    /// A query that takes longer is stopped.
    pub timeout_ms: u64,
    /// A result of more rows is refused.
    pub max_result_rows: usize,
    /// A result whose columns take more memory is refused, and so is a call of `repeat`, `lpad` or `rpad` that would make
    /// more at once. As JSON a result takes several times this.
    pub max_result_bytes: usize,
    /// Threads' worth of work a query is split into; 0 takes one per core.
    pub parallelism: usize,
    /// How long after a list an interaction may answer it in the table `attributions`, ms of event time.
    pub attribution_window_ms: i64,
    /// The hot tail.
    pub hot: HotOptions,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            memory_limit_bytes: 1024 * 1024 * 1024,
            timeout_ms: 30_000,
            max_result_rows: 1_000_000,
            max_result_bytes: 512 * 1024 * 1024,
            parallelism: 0,
            attribution_window_ms: 30 * 60 * 1000,
            hot: HotOptions::default(),
        }
    }
}

/// Limits of reading what the lake does not have yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HotOptions {
    /// The most records read from one table's topic; those after them stay invisible, and a notice says so.
    pub max_records: usize,
    /// The longest wait for the broker; after it the query runs on the lake alone, and a notice says so.
    pub timeout_ms: u64,
}

impl Default for HotOptions {
    fn default() -> Self {
        Self {
            max_records: 200_000,
            timeout_ms: 5_000,
        }
    }
}
