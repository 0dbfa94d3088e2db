//! One partition's records on disk, as Kafka keeps them: batches exactly as producers sent them, one after the other in
//! *segments* named by the offset they begin with.
//!
//! Only the last segment is written. A killed process leaves at most a torn batch at its end, which opening cuts off;
//! earlier segments were synced before the next one began. [`PartitionLog::sync`] bounds what a power cut may cost.
//!
//! Segments of a compacted topic are rewritten without the records that newer ones of their key replace
//! ([`compaction`]).

mod compaction;
mod producers;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tansu_sans_io::ErrorCode;
use tansu_sans_io::record::deflated::Batch;

use self::producers::{Order, Producers};
pub(super) use self::segment::batch_bytes;
use self::segment::{Header, MAGIC, Name, Segment};

/// Where a segment ends and the next begins.
pub(super) const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// The producer's fault, in the protocol's words.
    #[error("{0:?}")]
    Refused(ErrorCode),
    /// The disk's; the log is as it was.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// A partition. Not synchronised: its owner sees to it that one caller changes it at a time.
#[derive(Debug)]
pub(super) struct PartitionLog {
    folder: PathBuf,
    /// Oldest first, never empty.
    segments: Vec<Segment>,
    /// Where a segment ends.
    segment_bytes: u64,
    producers: Producers,
    /// One past the newest record.
    end: i64,
    synced: bool,
    /// Whether its topic was deleted.
    is_gone: bool,
}

/// Records to read without holding on to the log.
#[derive(Debug)]
pub(super) struct Span {
    file: Arc<File>,
    from: u64,
    to: u64,
    offset: i64,
}

impl PartitionLog {
    /// Opens or creates the partition kept in `folder`, whose segments end at `segment_bytes`.
    ///
    /// # Errors
    /// The disk's; or a segment before the last that is not whole.
    pub(super) fn open(folder: &Path, segment_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(Name::of_file));
        }
        compaction::tidy(folder, &mut names)?;
        let mut producers = Producers::default();
        let mut segments: Vec<Segment> = Vec::with_capacity(names.len().max(1));
        let mut end = names.first().map_or(0, |name| name.base);
        let newest = names.last().copied();
        for name in names {
            if name.base != end {
                return Err(segment::damaged(
                    folder,
                    name,
                    format!("offsets {end} to {} are missing", name.base),
                ));
            }
            let is_written = newest == Some(name) && name.until.is_none();
            let segment = Segment::open(folder, name, is_written, |header| producers.remember(header))?;
            end = segment.next();
            segments.push(segment);
        }
        if newest.is_none_or(|name| name.until.is_some()) {
            segments.push(Segment::create(folder, end)?);
        }
        Ok(Self {
            folder: folder.to_owned(),
            segments,
            segment_bytes,
            producers,
            end,
            synced: true,
            is_gone: false,
        })
    }

    /// Offset of the oldest record kept.
    pub(super) fn start(&self) -> i64 {
        self.segments.first().map_or(self.end, Segment::base)
    }

    /// One past the newest record.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Appends a batch and returns the offset of its first record. A batch that an idempotent producer sent before is
    /// not appended again.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then.
    pub(super) fn append(&mut self, mut batch: Batch) -> Result<i64, AppendError> {
        if batch.magic != MAGIC {
            return Err(AppendError::Refused(ErrorCode::UnsupportedForMessageFormat));
        }
        // Control batches end transactions, which there are none of.
        if batch.is_control() || batch.is_transactional() {
            return Err(AppendError::Refused(ErrorCode::InvalidTxnState));
        }
        if batch.record_count == 0 || i64::from(batch.record_count) != i64::from(batch.last_offset_delta) + 1
        {
            return Err(AppendError::Refused(ErrorCode::CorruptMessage));
        }
        batch.base_offset = self.end;
        batch.partition_leader_epoch = 0;
        let header = Header::of(&batch);
        match self.producers.order(&header) {
            Ok(Order::Next) => {}
            Ok(Order::Repeat { offset }) => return Ok(offset),
            Err(code) => return Err(AppendError::Refused(code)),
        }
        let bytes = Bytes::from(batch);
        if !segment::is_whole(&bytes) {
            return Err(AppendError::Refused(ErrorCode::CorruptMessage));
        }
        if self
            .newest()
            .is_some_and(|segment| segment.bytes() >= self.segment_bytes)
        {
            self.sync()?;
            self.segments.push(Segment::create(&self.folder, self.end)?);
        }
        let Some(segment) = self.segments.last_mut() else {
            return Err(io::Error::other("a log without a segment").into());
        };
        segment.append(&header, &bytes)?;
        self.synced = false;
        self.producers.remember(&header);
        self.end = header.next_offset();
        Ok(header.base_offset)
    }

    fn newest(&self) -> Option<&Segment> {
        self.segments.last()
    }

    /// Where the records from `offset` on are; `None` if there are none, or none any more.
    pub(super) fn locate(&self, offset: i64) -> Option<Span> {
        if offset < self.start() || offset >= self.end {
            return None;
        }
        let after = self.segments.partition_point(|segment| segment.base() <= offset);
        // The last records of a compacted segment may be missing: what comes next lies in a later one.
        let segment = self
            .segments
            .get(after.checked_sub(1)?..)?
            .iter()
            .find(|segment| segment.tail() > offset)?;
        Some(Span {
            file: segment.file(),
            from: segment.position_before(offset),
            to: segment.bytes(),
            offset,
        })
    }

    /// Offset and time of the first record whose time is `timestamp_ms` or later, as `ListOffsets` asks for it: the
    /// first batch that reaches the time, and in it the record.
    ///
    /// # Errors
    /// The disk's, or a batch that cannot be decoded.
    pub(super) fn first_at(&self, timestamp_ms: i64) -> io::Result<Option<(i64, i64)>> {
        let reached = |segment: &&Segment| segment.max_timestamp() >= timestamp_ms;
        self.segments
            .iter()
            .find(reached)
            .map_or(Ok(None), |segment| segment.first_at(timestamp_ms))
    }

    /// Removes the segments whose newest record is older than `before_ms`, never the one being written.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn expire(&mut self, before_ms: i64) -> io::Result<()> {
        while let [oldest, _, ..] = self.segments.as_slice() {
            if oldest.max_timestamp() >= before_ms {
                break;
            }
            std::fs::remove_file(oldest.name().path(&self.folder))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Says that the topic was deleted, and its folder is another's.
    pub(super) fn forsake(&mut self) {
        self.is_gone = true;
    }

    /// What is to be synced, for doing so without holding on to the log; [`Self::sync_failed`] where it cannot be.
    pub(super) fn unsynced(&mut self) -> Option<Arc<File>> {
        if std::mem::replace(&mut self.synced, true) {
            return None;
        }
        self.newest().map(Segment::file)
    }

    /// Says that what [`Self::unsynced`] gave could not be synced.
    pub(super) fn sync_failed(&mut self) {
        self.synced = false;
    }

    /// Returns when everything appended so far would survive a power cut.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        // Also where somebody else is at it, who may yet fail.
        if let Some(newest) = self.newest() {
            newest.file().sync_data()?;
        }
        self.synced = true;
        Ok(())
    }
}

impl Span {
    /// Its bytes, with up to [`segment::MARK_BYTES`] and a batch before the wanted record.
    pub(super) fn bytes(&self) -> u64 {
        self.to - self.from
    }

    /// Batches from the one with the wanted offset on, up to about `max_bytes`, at least one.
    ///
    /// # Errors
    /// The disk's, or bytes that are no batch.
    pub(super) fn read(&self, max_bytes: usize) -> io::Result<Vec<Batch>> {
        let left = usize::try_from(self.to - self.from).unwrap_or(usize::MAX);
        // What lies before the wanted batch is read as well.
        let mut window = max_bytes.saturating_add(segment::MARK_BYTES).min(left);
        loop {
            let mut bytes = vec![0; window];
            self.file.read_exact_at(&mut bytes, self.from)?;
            let (batches, needs) = segment::batches(Bytes::from(bytes), self.offset, max_bytes)?;
            match needs {
                // A batch larger than all that was asked for.
                Some(needs) if batches.is_empty() && needs > window && needs <= left => window = needs,
                _ => return Ok(batches),
            }
        }
    }
}
