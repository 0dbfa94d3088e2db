//! Who came to an item.

use serde::{Deserialize, Serialize};

use super::time_log::Timed;

/// One user's act on an item, as the item remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// Dense user index.
    pub user: u32,
    /// Whether it was a like.
    pub like: bool,
    /// Event time, milliseconds.
    pub time_ms: i64,
}

impl Timed for Visit {
    fn time_ms(&self) -> i64 {
        self.time_ms
    }
}
