//! The lake on disk, and its one commit protocol.
//!
//! ```text
//! <lake_dir>/<table>/date=2024-05-01/<partition>-<first_offset>-<next_offset>.parquet
//! <lake_dir>/<table>/_manifest/<partition>.json
//! ```
//!
//! A topic's partition is a *shard* of its table, and each shard has one manifest: the next offset to read, and the
//! files whose rows make up everything before it. A flush may span several dates and so several files; all of them
//! are written, synced and renamed into place first, and one atomic rename of the manifest makes them and the new
//! resume position true together. Killed before that rename, the shard resumes where it was and the files that no
//! manifest names are swept away at the next start; killed after it, everything is there. Compaction is the same
//! commit with other files and the same position; so are [letting go](retention) of old rows and [removing](erasures)
//! what is left of users who were erased. Files that a commit replaced stay for a while after it, for queries that began
//! before ([`replaced`]).
//!
//! **When a table's columns change.** Columns are only ever added, as optional ones: a file written before the change is
//! read with nulls in them, and compaction rewrites it in the new form. A file with a required column missing or of
//! another type is damaged, and named.
//!
//! Rows are found under the date of their event time. A flush that spans more than `flush.max_dates` dates writes
//! one file under `date=__HIVE_DEFAULT_PARTITION__`, which every engine that knows Hive's layout reads as a date of
//! null; marquee's own SQL derives the date from the event time and so shows it always.

mod compaction;
mod erasures;
mod manifest;
mod parquet;
mod replaced;
mod retention;
mod shard;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use erasures::{Erasure, Erasures};
pub(crate) use manifest::{FileEntry, Gap, Manifest};
pub(crate) use parquet::{read_file, write_file};
pub(crate) use replaced::Replaced;
pub(crate) use shard::{NewFile, Shard};

use crate::disk::Disk;
use crate::error::Error;
use crate::table::Table;

const MANIFESTS: &str = "_manifest";
const SUFFIX: &str = ".parquet";
const TEMPORARY: &str = ".tmp";

/// The folder of rows whose flush spanned too many dates.
pub(crate) const UNDATED: &str = "date=__HIVE_DEFAULT_PARTITION__";

/// The right to write to a lake; there is one at a time.
#[derive(Debug)]
pub(crate) struct Lake {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// Held for as long as the lake is open; the system releases it when the process ends, however it ends.
    _lock: File,
}

impl Lake {
    /// Takes the lake for writing and removes what unfinished commits left behind.
    pub(crate) fn open(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|e| Error::io("creating", dir, e))?;
        let path = dir.join(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("opening", &path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(dir.to_owned())),
            Err(TryLockError::Error(e)) => return Err(Error::io("locking", &path, e)),
        }
        let lake = Self {
            dir: dir.to_owned(),
            disk,
            _lock: lock,
        };
        for table in Table::ALL {
            lake.sweep(table)?;
        }
        Ok(lake)
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    fn table_dir(&self, table: Table) -> PathBuf {
        self.dir.join(table.name())
    }

    /// The shard of one partition, as its manifest describes it, or an empty one.
    pub(crate) fn shard(&self, table: Table, partition: i32) -> Result<Shard, Error> {
        let dir = self.table_dir(table);
        for dir in [&dir, &dir.join(MANIFESTS)] {
            self.disk
                .create_dir(dir)
                .map_err(|e| Error::io("creating", dir, e))?;
        }
        let manifest = Manifest::load(&manifest_path(&dir, partition), table, partition)?;
        Ok(Shard::new(
            dir,
            table,
            partition,
            manifest,
            Arc::clone(&self.disk),
        ))
    }

    /// Removes every file of the table that no manifest names.
    fn sweep(&self, table: Table) -> Result<(), Error> {
        let dir = self.table_dir(table);
        if !dir.is_dir() {
            return Ok(());
        }
        let committed: BTreeSet<PathBuf> = manifests(&self.dir, table)?
            .iter()
            .flat_map(|manifest| manifest.files.iter().map(|file| dir.join(&file.path)))
            .collect();
        for path in files_below(&dir)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let is_data = name.is_some_and(|name| name.ends_with(SUFFIX) || name.ends_with(TEMPORARY));
            if is_data && !committed.contains(&path) {
                tracing::info!(path = %path.display(), "removing a file of an unfinished commit");
                self.disk
                    .remove(&path)
                    .map_err(|e| Error::io("removing", &path, e))?;
            }
        }
        Ok(())
    }
}

fn manifest_path(table_dir: &Path, partition: i32) -> PathBuf {
    table_dir.join(MANIFESTS).join(format!("{partition}.json"))
}

/// The manifests of all shards of a table, by partition. Needs no lock: a manifest is replaced atomically.
pub(crate) fn manifests(lake_dir: &Path, table: Table) -> Result<Vec<Manifest>, Error> {
    let dir = lake_dir.join(table.name()).join(MANIFESTS);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("listing", &dir, error)),
    };
    let mut partitions = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("listing", &dir, e))?;
        let name = entry.file_name();
        if let Some(partition) = name
            .to_str()
            .and_then(|name| name.strip_suffix(".json"))
            .and_then(|n| n.parse::<i32>().ok())
        {
            partitions.push(partition);
        }
    }
    partitions.sort_unstable();
    let mut found = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let path = dir.join(format!("{partition}.json"));
        found.extend(Manifest::load(&path, table, partition)?);
    }
    Ok(found)
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).map_err(|e| Error::io("listing", &dir, e))? {
            let path = entry.map_err(|e| Error::io("listing", &dir, e))?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn a_lake_has_one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lake::open(dir.path(), OsDisk::shared()).unwrap();
        assert!(matches!(
            Lake::open(dir.path(), OsDisk::shared()),
            Err(Error::Locked(_))
        ));
        drop(first);
        Lake::open(dir.path(), OsDisk::shared()).unwrap();
    }

    #[test]
    fn a_damaged_manifest_is_named_and_nothing_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = dir.path().join("interactions").join(MANIFESTS);
        let day = dir.path().join("interactions/date=2024-01-01");
        fs::create_dir_all(&manifests).unwrap();
        fs::create_dir_all(&day).unwrap();
        fs::write(day.join("0-0-1.parquet"), b"rows").unwrap();
        fs::write(manifests.join("0.json"), b"{\"ver").unwrap();
        let error = Lake::open(dir.path(), OsDisk::shared()).unwrap_err();
        assert!(
            matches!(&error, Error::Damaged { path, .. } if path.ends_with("0.json")),
            "{error}"
        );
        assert!(day.join("0-0-1.parquet").is_file());
    }
}
