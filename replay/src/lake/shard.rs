//! One partition's part of a table, and how its state changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileEntry, Gap, Manifest, TEMPORARY, manifest_path};
use crate::disk::Disk;
use crate::error::Error;
use crate::table::Table;

/// A file that is about to be committed.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) entry: FileEntry,
    pub(crate) bytes: Vec<u8>,
}

/// One partition's part of a table, owned for writing.
#[derive(Debug)]
pub(crate) struct Shard {
    dir: PathBuf,
    table: Table,
    partition: i32,
    manifest: Manifest,
    /// Whether a manifest has ever been committed.
    exists: bool,
    /// Files that commits took out of the shard and nobody has removed yet.
    replaced: Vec<PathBuf>,
    disk: Arc<dyn Disk>,
}

impl Shard {
    pub(super) fn new(
        dir: PathBuf,
        table: Table,
        partition: i32,
        manifest: Option<Manifest>,
        disk: Arc<dyn Disk>,
    ) -> Self {
        let exists = manifest.is_some();
        Self {
            dir,
            table,
            partition,
            manifest: manifest.unwrap_or_else(|| Manifest::empty(table, partition)),
            exists,
            replaced: Vec::new(),
            disk,
        }
    }

    pub(crate) fn table(&self) -> Table {
        self.table
    }

    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// For notes that the next commit makes durable.
    pub(super) fn manifest_mut(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// The folder of the lake.
    pub(super) fn lake_dir(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// Where reading resumes; `None` before the first commit.
    pub(crate) fn next_offset(&self) -> Option<i64> {
        self.exists.then_some(self.manifest.next_offset)
    }

    pub(crate) fn path_of(&self, entry: &FileEntry) -> PathBuf {
        self.dir.join(&entry.path)
    }

    /// `<folder>/<partition>-<first>-<next>.parquet`. Within a folder the ranges of a shard's files never overlap,
    /// so no two committed files share a name.
    pub(crate) fn file_path(&self, folder: &str, first_offset: i64, next_offset: i64) -> String {
        let name = format!("{}-{first_offset}-{next_offset}{}", self.partition, super::SUFFIX);
        if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        }
    }

    /// The name of a file that replaces `entry` without what erasures concern: another one, for files are never
    /// replaced in place.
    pub(super) fn purged_path(&self, entry: &FileEntry, purged_to: i64) -> String {
        let path = self.file_path(entry.folder(), entry.first_offset, entry.next_offset);
        let stem = path.strip_suffix(super::SUFFIX).unwrap_or(&path);
        format!("{stem}-{purged_to}{}", super::SUFFIX)
    }

    /// Makes `new` part of the shard, takes `obsolete` out of it, and moves the resume position, all at once. The
    /// obsolete files stay on disk, for queries that began before may still be reading them; [`Shard::take_replaced`]
    /// hands them to whoever removes them.
    ///
    /// # Errors
    /// The shard on disk is in its old or its new state, and this object no longer knows in which: it must be
    /// opened again.
    pub(crate) fn commit(
        &mut self,
        new: Vec<NewFile>,
        obsolete: &BTreeSet<String>,
        next_offset: i64,
        poison: u64,
    ) -> Result<(), Error> {
        let mut manifest = self.manifest.clone();
        manifest.next_offset = next_offset;
        manifest.poison += poison;
        manifest.files.retain(|file| !obsolete.contains(&file.path));
        let mut folders = BTreeSet::new();
        for file in new {
            if manifest.files.iter().any(|old| old.path == file.entry.path)
                || obsolete.contains(&file.entry.path)
            {
                // Replacing a committed file in place would break the protocol.
                return Err(Error::damaged(
                    &self.path_of(&file.entry),
                    "a committed file already has this name",
                ));
            }
            let path = self.path_of(&file.entry);
            let folder = path.parent().unwrap_or(&self.dir).to_owned();
            if folders.insert(folder.clone()) && folder != self.dir {
                self.disk
                    .create_dir(&folder)
                    .map_err(|e| Error::io("creating", &folder, e))?;
            }
            self.place(&path, &file.bytes)?;
            manifest.files.push(file.entry);
        }
        for folder in &folders {
            self.disk
                .sync_dir(folder)
                .map_err(|e| Error::io("syncing", folder, e))?;
        }
        self.publish(manifest)?;
        self.replaced
            .extend(obsolete.iter().map(|path| self.dir.join(path)));
        Ok(())
    }

    /// The files that commits have taken out of the shard since the last call. No later commit gives one of these names
    /// again: a merged file's range holds theirs, and what was let go is not read again.
    pub(crate) fn take_replaced(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.replaced)
    }

    /// Records that the broker deleted `gap` before it was read, and resumes after it.
    pub(crate) fn skip(&mut self, gap: Gap) -> Result<(), Error> {
        let mut manifest = self.manifest.clone();
        manifest.next_offset = gap.to;
        manifest.gaps.push(gap);
        self.publish(manifest)
    }

    fn publish(&mut self, mut manifest: Manifest) -> Result<(), Error> {
        manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
        let path = manifest_path(&self.dir, self.partition);
        self.place(&path, &manifest.to_bytes())?;
        let folder = path.parent().unwrap_or(&self.dir);
        self.disk
            .sync_dir(folder)
            .map_err(|e| Error::io("syncing", folder, e))?;
        self.manifest = manifest;
        self.exists = true;
        Ok(())
    }

    fn place(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(TEMPORARY);
        let temporary = PathBuf::from(temporary);
        self.disk
            .write(&temporary, bytes)
            .map_err(|e| Error::io("writing", &temporary, e))?;
        self.disk
            .rename(&temporary, path)
            .map_err(|e| Error::io("renaming", &temporary, e))
    }
}
