//! The open state files, for readers beside the fold.
//!
//! A reader sees a partition as of its last commit and never waits for a writer. What it must not do is keep a file
//! open that another process is about to take over: reading holds the shelf, and a partition is taken off it before
//! its file is closed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use redb::Database;

use crate::{Error, Snapshot};

/// A file that can be read while its store writes it.
#[derive(Clone)]
pub(crate) struct Volume {
    pub(crate) db: Arc<Database>,
    pub(crate) path: PathBuf,
}

/// The files of all partitions that this process has now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Shelf(Arc<RwLock<BTreeMap<i32, Volume>>>);

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    pub(crate) fn put(&self, partition: i32, volume: Volume) {
        let mut volumes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        volumes.insert(partition, volume);
    }

    /// Waits for readers, and lets go of the file.
    pub(crate) fn remove(&self, partition: i32) {
        let mut volumes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        volumes.remove(&partition);
    }

    /// Reads every partition as of its last commit.
    ///
    /// # Errors
    /// A file cannot be read, or what `read` fails with.
    pub fn read<T>(
        &self,
        mut read: impl FnMut(i32, &Snapshot) -> Result<Option<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        let volumes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for (&partition, volume) in &*volumes {
            let snapshot = Snapshot::of(&*volume.db, &volume.path, partition)?;
            found.extend(read(partition, &snapshot)?);
        }
        Ok(found)
    }
}
