//! Looking into the state files while the service is not running.

use std::collections::BTreeMap;
use std::path::Path;

use marquee_schemas::{HistoryEntry, MovieFeatures, MovieId, TriggerDecision, UserFeatures, UserId};

use crate::store::{file_of, read_only};
use crate::triggers::file;
use crate::{Counters, Error, Snapshot};

/// The state of all partitions found in a folder.
#[derive(Debug)]
pub struct Inspector {
    partitions: BTreeMap<i32, Snapshot>,
}

/// Everything known of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct UserReport {
    /// The partition that holds the user.
    pub partition: i32,
    /// Aggregates.
    pub features: UserFeatures,
    /// The whole history, in the order it was applied.
    pub history: Vec<HistoryEntry>,
}

/// Opens every `features-<partition>.redb` in `state_dir` without changing its state; a file that a killed process left
/// behind is closed properly first.
///
/// # Errors
/// [`Error::Folder`] if the folder cannot be read, [`Error::Store`] if a file is in use by a running service or is
/// damaged.
pub fn open_read_only(state_dir: &Path) -> Result<Inspector, Error> {
    let unreadable = |source| Error::Folder {
        path: state_dir.to_owned(),
        source,
    };
    let mut partitions = BTreeMap::new();
    for entry in std::fs::read_dir(state_dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let partition = name.to_str().and_then(|name| {
            name.strip_prefix("features-")?
                .strip_suffix(".redb")?
                .parse()
                .ok()
        });
        if let Some(partition) = partition {
            partitions.insert(partition, read_only(&file_of(state_dir, partition), partition)?);
        }
    }
    Ok(Inspector { partitions })
}

/// The newest `limit` decisions about retraining, oldest first.
///
/// # Errors
/// [`Error::Store`] if the file is in use by a running service, was left behind by a killed one, or is damaged.
pub fn decisions(state_dir: &Path, limit: usize) -> Result<Vec<TriggerDecision>, Error> {
    let path = state_dir.join(file::NAME);
    file::decisions(&path, limit).map_err(Error::store(&path))
}

impl Inspector {
    /// Offsets and counts by partition.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<i32, Counters> {
        self.partitions
            .iter()
            .map(|(&partition, snapshot)| (partition, snapshot.counters().clone()))
            .collect()
    }

    /// The state of each partition.
    #[must_use]
    pub fn partitions(&self) -> &BTreeMap<i32, Snapshot> {
        &self.partitions
    }

    /// What is known of a user; `None` for a user that no partition has seen.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn user(&self, user: UserId) -> Result<Option<UserReport>, Error> {
        for (&partition, snapshot) in &self.partitions {
            if let Some(features) = snapshot.user(user)? {
                let history = snapshot.user_history(user)?;
                return Ok(Some(UserReport {
                    partition,
                    features,
                    history,
                }));
            }
        }
        Ok(None)
    }

    /// What each partition knows of a movie.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn movie(&self, movie: MovieId) -> Result<BTreeMap<i32, MovieFeatures>, Error> {
        let mut found = BTreeMap::new();
        for (&partition, snapshot) in &self.partitions {
            if let Some(features) = snapshot.movie(movie)? {
                found.insert(partition, features);
            }
        }
        Ok(found)
    }
}
