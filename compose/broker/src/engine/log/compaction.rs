//! Compaction: the log of a compacted topic keeps of each key what is newest.
//!
//! As in Kafka (its documentation, "Log Compaction"): records keep their offsets, the segment being written is left alone,
//! and a record that removes its key stays for a day, so that who reads slowly still meets it. Two passes over the closed
//! segments: one notes the newest offset of each key in those not compacted before, the other rewrites all, several
//! small ones into one.
//!
//! A rewritten segment is named by all the offsets it stands for ([`Name::until`]). It is written aside, synced, and
//! renamed into place; then the segments it replaces are removed. A process that dies in between leaves some of those
//! behind, which [`tidy`] knows by their offsets. Segments are replaced oldest first, so that at no time an older record
//! of a key is there without the newer one that replaces or removes it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tansu_sans_io::record::deflated::Batch;
use tansu_sans_io::record::{Record, inflated};

use super::PartitionLog;
use super::segment::{Batches, Header, Name, Segment};

/// Keys noted in one pass, some fifty bytes each; what is left is for the next one.
const MOST_KEYS: usize = 4_000_000;
/// What is written aside; nothing else ends so.
const ASIDE: &str = "aside";

/// Keys by their MD5, as Kafka's own cleaner has it: a key may be long.
type Key = [u8; 16];

fn key_of(key: &[u8]) -> Key {
    Md5::digest(key).into()
}

/// Removes what a compaction that did not end has left behind, and puts the names of the others into order.
pub(super) fn tidy(folder: &Path, names: &mut Vec<Name>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == ASIDE) {
            std::fs::remove_file(path)?;
        }
    }
    // Of those that begin together, the one that stands for most is the newest.
    names.sort_unstable_by_key(|name| (name.base, std::cmp::Reverse(name.until)));
    let mut replaced_until = i64::MIN;
    let mut kept = Vec::with_capacity(names.len());
    for name in names.drain(..) {
        if name.base < replaced_until {
            tracing::info!(path = %name.path(folder).display(), "removing a segment that was compacted");
            std::fs::remove_file(name.path(folder))?;
        } else {
            replaced_until = name.until.unwrap_or(i64::MIN);
            kept.push(name);
        }
    }
    *names = kept;
    Ok(())
}

/// Closed segments to be rewritten, without holding on to the log.
#[derive(Debug)]
pub(in super::super) struct Compaction {
    folder: PathBuf,
    sources: Vec<Source>,
    segment_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    name: Name,
    bytes: u64,
    next: i64,
}

/// A segment written aside, and what it is to replace.
#[derive(Debug)]
pub(in super::super) struct Rewritten {
    segment: Segment,
    aside: PathBuf,
    replaces: Vec<Name>,
}

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Compacted {
    pub(in super::super) bytes_before: u64,
    pub(in super::super) bytes_after: u64,
}

impl PartitionLog {
    /// What is to be compacted; `None` while it is not worth it: the segments that were never compacted must fill one, and
    /// outweigh the others, so that each byte is rewritten about twice.
    pub(in super::super) fn compaction(&self) -> Option<Compaction> {
        let (_, closed) = self.segments.split_last()?;
        let bytes = |compacted: bool| -> u64 {
            closed
                .iter()
                .filter(|segment| segment.name().until.is_some() == compacted)
                .map(Segment::bytes)
                .sum()
        };
        let fresh = bytes(false);
        (fresh >= self.segment_bytes && fresh >= bytes(true)).then(|| Compaction {
            folder: self.folder.clone(),
            sources: closed
                .iter()
                .map(|segment| Source {
                    name: segment.name(),
                    bytes: segment.bytes(),
                    next: segment.next(),
                })
                .collect(),
            segment_bytes: self.segment_bytes,
        })
    }

    /// Puts a rewritten segment into the place of those it was made from.
    ///
    /// # Errors
    /// The disk's; or that the log has changed meanwhile. The log is as it was, or as it should be.
    pub(in super::super) fn replace(&mut self, rewritten: Rewritten) -> io::Result<()> {
        let Rewritten {
            segment,
            aside,
            replaces,
        } = rewritten;
        let names: Vec<Name> = self.segments.iter().map(Segment::name).collect();
        let at = names
            .windows(replaces.len())
            .position(|window| window == replaces)
            .filter(|at| !self.is_gone && at + replaces.len() < names.len())
            .ok_or_else(|| io::Error::other("the log has changed"))?;
        std::fs::rename(&aside, segment.name().path(&self.folder))?;
        File::open(&self.folder)?.sync_all()?;
        let new = segment.name();
        self.segments.splice(at..at + replaces.len(), [segment]);
        for name in replaces.into_iter().filter(|name| *name != new) {
            // Who reads it still holds it open; what stays is removed at the next start.
            if let Err(error) = std::fs::remove_file(name.path(&self.folder)) {
                tracing::warn!(%error, path = %name.path(&self.folder).display(), "removing a compacted segment");
            }
        }
        Ok(())
    }
}

impl Compaction {
    /// Rewrites, and gives each segment to `replace`. Records that remove their key go once they are older than
    /// `before_ms`.
    ///
    /// # Errors
    /// The disk's, and those of `replace`.
    pub(in super::super) fn run(
        mut self,
        before_ms: i64,
        mut replace: impl FnMut(Rewritten) -> io::Result<()>,
    ) -> io::Result<Compacted> {
        let newest = self.newest()?;
        let mut compacted = Compacted::default();
        let mut group: Option<Writer> = None;
        for source in std::mem::take(&mut self.sources) {
            let writer = match &mut group {
                Some(writer) => writer,
                empty => empty.insert(Writer::begin(&self.folder, source.name.base)?),
            };
            writer.take(&self.folder, source, |key, offset, is_removal, time_ms| {
                let is_newest = newest.get(&key).is_none_or(|&newest| newest <= offset);
                is_newest && !(is_removal && time_ms < before_ms)
            })?;
            if writer.bytes >= self.segment_bytes / 2 {
                group = finish(group, &mut compacted, &mut replace)?;
            }
        }
        finish(group, &mut compacted, &mut replace)?;
        Ok(compacted)
    }

    /// The newest offset of each key in the segments that were not compacted before. Leaves out the last sources where
    /// there are too many keys.
    fn newest(&mut self) -> io::Result<HashMap<Key, i64>> {
        let mut newest = HashMap::new();
        for at in 0..self.sources.len() {
            let source = self.sources[at];
            if source.name.until.is_some() {
                continue;
            }
            let mut batches = Batches::of(&self.folder, source.name, source.bytes)?;
            while let Some((header, batch)) = batches.next()? {
                for record in records_of(batch).unwrap_or_default() {
                    if let Some(key) = &record.key {
                        let offset = header.base_offset + i64::from(record.offset_delta);
                        newest.insert(key_of(key), offset);
                    }
                }
            }
            if newest.len() >= MOST_KEYS {
                self.sources.truncate(at + 1);
                break;
            }
        }
        Ok(newest)
    }
}

/// Whose bytes cannot be understood is nobody's to judge: `None`.
fn records_of(batch: Bytes) -> Option<Vec<Record>> {
    Batch::try_from(batch).and_then(TryInto::try_into).ok()
}

fn finish(
    group: Option<Writer>,
    compacted: &mut Compacted,
    replace: &mut impl FnMut(Rewritten) -> io::Result<()>,
) -> io::Result<Option<Writer>> {
    if let Some(writer) = group {
        compacted.bytes_before += writer.bytes_before;
        compacted.bytes_after += writer.bytes;
        if writer.is_a_copy() {
            std::fs::remove_file(&writer.aside)?;
        } else {
            replace(writer.finish()?)?;
        }
    }
    Ok(None)
}

/// A segment that is being written aside.
struct Writer {
    aside: PathBuf,
    file: BufWriter<File>,
    batches: Vec<(Header, usize)>,
    replaces: Vec<Name>,
    base: i64,
    next: i64,
    bytes: u64,
    bytes_before: u64,
}

impl Writer {
    fn begin(folder: &Path, base: i64) -> io::Result<Self> {
        let aside = folder.join(format!("{base:020}.{ASIDE}"));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&aside)?;
        Ok(Self {
            aside,
            file: BufWriter::with_capacity(256 * 1024, file),
            batches: Vec::new(),
            replaces: Vec::new(),
            base,
            next: base,
            bytes: 0,
            bytes_before: 0,
        })
    }

    /// Copies what `stays`, asked with key, offset, whether it removes the key, and time.
    fn take(
        &mut self,
        folder: &Path,
        source: Source,
        stays: impl Fn(Key, i64, bool, i64) -> bool,
    ) -> io::Result<()> {
        let mut batches = Batches::of(folder, source.name, source.bytes)?;
        while let Some((header, bytes)) = batches.next()? {
            if let Some((header, bytes)) = thinned(header, bytes, &stays)? {
                self.file.write_all(&bytes)?;
                self.batches.push((header, bytes.len()));
                self.bytes += bytes.len() as u64;
            }
        }
        self.replaces.push(source.name);
        self.next = source.next;
        self.bytes_before += source.bytes;
        Ok(())
    }

    /// Whether it is a compacted segment once more.
    fn is_a_copy(&self) -> bool {
        matches!(self.replaces.as_slice(), [name] if name.until.is_some()) && self.bytes == self.bytes_before
    }

    fn finish(self) -> io::Result<Rewritten> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        let name = Name {
            base: self.base,
            until: Some(self.next),
        };
        let mut segment = Segment::empty(name, file);
        for (header, length) in &self.batches {
            segment.count(header, *length);
        }
        Ok(Rewritten {
            segment,
            aside: self.aside,
            replaces: self.replaces,
        })
    }
}

/// The batch without the records that do not stay; `None` without any. It keeps its offsets, and its place in what its
/// producer has sent.
fn thinned(
    header: Header,
    bytes: Bytes,
    stays: impl Fn(Key, i64, bool, i64) -> bool,
) -> io::Result<Option<(Header, Bytes)>> {
    let Ok(mut batch) = Batch::try_from(bytes.clone()).and_then(inflated::Batch::try_from) else {
        return Ok(Some((header, bytes)));
    };
    let before = batch.records.len();
    let (base_offset, base_timestamp) = (batch.base_offset, batch.base_timestamp);
    batch.records.retain(|record| {
        record.key.as_deref().is_none_or(|key| {
            let offset = base_offset + i64::from(record.offset_delta);
            let time = base_timestamp + record.timestamp_delta;
            stays(key_of(key), offset, record.value.is_none(), time)
        })
    });
    if batch.records.len() == before {
        return Ok(Some((header, bytes)));
    }
    let Some(newest) = batch.records.iter().map(|record| record.timestamp_delta).max() else {
        return Ok(None);
    };
    batch.max_timestamp = base_timestamp + newest;
    let batch = Batch::try_from(batch).map_err(io::Error::other)?;
    Ok(Some((Header::of(&batch), Bytes::from(batch))))
}
