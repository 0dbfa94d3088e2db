//! Files that a commit replaced, until nobody can be reading them any more.
//!
//! A query reads the files that the manifests named when it began. Were they removed by the commit that replaces them, a
//! query that outlasts a merge would have to begin anew, and one that outlasts several would never end. They go once the
//! longest query that may have begun before is over. The list is not kept: what a killed process left is removed by the
//! sweep at the next start.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::disk::Disk;

/// Replaced files in the order in which they go.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    /// When each may go, ms, and its path.
    files: VecDeque<(i64, PathBuf)>,
}

impl Replaced {
    /// Takes up `files`, which may go at `due_ms`; that never lies before what was taken up earlier.
    pub(crate) fn add(&mut self, files: Vec<PathBuf>, due_ms: i64) {
        self.files.extend(files.into_iter().map(|path| (due_ms, path)));
    }

    /// Removes what may go at `now_ms`.
    pub(crate) fn remove_due(&mut self, disk: &dyn Disk, now_ms: i64) {
        while let Some((_, path)) = self.files.pop_front_if(|(due_ms, _)| *due_ms <= now_ms) {
            // It is no longer part of the table; what cannot be removed now is swept away at the next start.
            if let Err(error) = disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "removing a replaced file");
            }
        }
    }
}
