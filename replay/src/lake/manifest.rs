//! What is committed of one shard.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Erasure;
use crate::error::Error;
use crate::table::Table;

/// The committed state of one shard: every record of its partition below `next_offset` is in `files`, among the
/// `poison` that went to the dead letters, an erasure or among the rows that one removed, or in a named gap; no record is
/// in two of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of this layout.
    pub(crate) version: u32,
    /// The topic.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: i32,
    /// Where reading resumes.
    pub(crate) next_offset: i64,
    /// Records that were refused and published as dead letters.
    pub(crate) poison: u64,
    /// Stretches the broker deleted before they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gaps: Vec<Gap>,
    /// The last erasure of each user, by user (`interactions` only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) erasures: Vec<Erasure>,
    /// Rows that erasures have removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) erased: u64,
    /// The files, by path.
    pub(crate) files: Vec<FileEntry>,
}

/// Offsets that can no longer be read: `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// One committed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Relative to the table's folder, with `/`.
    pub(crate) path: String,
    /// Offset of its first row.
    pub(crate) first_offset: i64,
    /// One past the offset of its last row.
    pub(crate) next_offset: i64,
    /// Number of rows.
    pub(crate) rows: u64,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Earliest event time, ms; absent for the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min_ms: Option<i64>,
    /// Latest event time, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_ms: Option<i64>,
    /// Up to which erasures nothing that they concern is in it any more, see [`super::Erasures`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) purged_to: i64,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl FileEntry {
    /// Its folder, relative to the table's; empty for a file that lies in the table's own folder.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

impl Manifest {
    pub(super) const VERSION: u32 = 1;

    pub(super) fn empty(table: Table, partition: i32) -> Self {
        Self {
            version: Self::VERSION,
            topic: table.topic().name().to_owned(),
            partition,
            next_offset: 0,
            poison: 0,
            gaps: Vec::new(),
            erasures: Vec::new(),
            erased: 0,
            files: Vec::new(),
        }
    }

    /// The manifest at `path`; `None` if there is none yet.
    pub(super) fn load(path: &Path, table: Table, partition: i32) -> Result<Option<Self>, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("reading", path, error)),
        };
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|e| Error::damaged(path, e.to_string()))?;
        if manifest.version != Self::VERSION {
            return Err(Error::damaged(
                path,
                format!(
                    "its version is {}, this build reads {}",
                    manifest.version,
                    Self::VERSION
                ),
            ));
        }
        if manifest.topic != table.topic().name() || manifest.partition != partition {
            return Err(Error::damaged(
                path,
                format!("it describes {}/{}", manifest.topic, manifest.partition),
            ));
        }
        Ok(Some(manifest))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // A struct of numbers and texts always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
