//! Unpacks an archive that somebody else made.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use crate::Error;
use crate::dataset::holds_dataset;

const MAX_ENTRIES: usize = 1_000;

/// Unpacks `archive` so that `home` becomes the data-set directory in it, whatever that is called inside.
///
/// Refused: names that lead outside, links, too many files, more bytes than `max_bytes` (counted while unpacking: the
/// sizes an archive states are claims), archives without a data set.
pub(super) fn unpack(archive: &Path, home: &Path, max_bytes: u64) -> Result<(), Error> {
    let work = beside(home, "unpacking");
    if work.exists() {
        // Left behind by a process that was killed.
        fs::remove_dir_all(&work).map_err(Error::io(&work))?;
    }
    fs::create_dir_all(&work).map_err(Error::io(&work))?;
    let outcome = unpack_into(archive, &work, max_bytes).and_then(|()| {
        let root = dataset_root(&work)?.ok_or_else(|| wrong(archive, "no MovieLens data set in it"))?;
        fs::rename(&root, home).map_err(Error::io(home))
    });
    if work.exists() {
        fs::remove_dir_all(&work).map_err(Error::io(&work))?;
    }
    if matches!(outcome, Err(Error::Archive { .. })) {
        // It will not become better; the next call fetches it anew.
        fs::remove_file(archive).map_err(Error::io(archive))?;
    }
    outcome
}

fn beside(home: &Path, suffix: &str) -> PathBuf {
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    home.with_file_name(format!(".{name}.{suffix}"))
}

fn wrong(archive: &Path, detail: impl Into<String>) -> Error {
    Error::Archive {
        path: archive.to_path_buf(),
        detail: detail.into(),
    }
}

fn unpack_into(archive: &Path, work: &Path, max_bytes: u64) -> Result<(), Error> {
    let file = File::open(archive).map_err(Error::io(archive))?;
    let mut zip = ZipArchive::new(file).map_err(|error| wrong(archive, error.to_string()))?;
    if zip.len() > MAX_ENTRIES {
        let detail = format!("{} entries, allowed are {MAX_ENTRIES}", zip.len());
        return Err(wrong(archive, detail));
    }
    let mut left = max_bytes;
    for index in 0..zip.len() {
        let entry = zip
            .by_index(index)
            .map_err(|error| wrong(archive, error.to_string()))?;
        let name = entry
            .name()
            .map_err(|error| wrong(archive, error.to_string()))?
            .into_owned();
        let inside = entry
            .enclosed_name()
            .filter(|_| !entry.is_symlink())
            .ok_or_else(|| wrong(archive, format!("entry {name:?} leads outside or is a link")))?;
        let target = work.join(inside);
        if entry.is_dir() {
            fs::create_dir_all(&target).map_err(Error::io(&target))?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        let mut output = File::create(&target).map_err(Error::io(&target))?;
        let written = std::io::copy(&mut entry.take(left.saturating_add(1)), &mut output)
            .map_err(|error| wrong(archive, format!("entry {name:?}: {error}")))?;
        if written > left {
            return Err(wrong(archive, format!("unpacks to more than {max_bytes} bytes")));
        }
        left -= written;
        output.sync_all().map_err(Error::io(&target))?;
    }
    Ok(())
}

/// The directory itself or the one below it that holds a data set.
fn dataset_root(work: &Path) -> Result<Option<PathBuf>, Error> {
    if holds_dataset(work) {
        return Ok(Some(work.to_path_buf()));
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(work).map_err(Error::io(work))? {
        below.push(entry.map_err(Error::io(work))?.path());
    }
    below.sort();
    Ok(below.into_iter().find(|dir| holds_dataset(dir)))
}
