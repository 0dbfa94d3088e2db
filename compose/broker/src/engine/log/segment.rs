//! A file of batches with a sparse index in memory.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tansu_sans_io::record::Record;
use tansu_sans_io::record::deflated::Batch;

/// At least this many bytes lie between two marks of the index: what a read begins too early by, plus one batch.
pub(super) const MARK_BYTES: usize = 4 * 1024;
/// A batch's first offset and length, which its length does not count.
const PREFIX: usize = 12;
/// All fields before the records (Kafka protocol guide, "Record Batch").
const HEADER: usize = 61;
/// The record format of Kafka 0.11 and later, the only one there is today.
pub(super) const MAGIC: i8 = 2;
const MAGIC_AT: usize = 16;
/// The checksum and what it covers.
const CRC: std::ops::Range<usize> = 17..21;
const COVERED: usize = 21;
const SUFFIX: &str = ".log";
/// Nothing on earth sends a larger batch; a length beyond it is noise.
const LARGEST: usize = 1 << 30;

/// The fields of a batch that the log looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) base_offset: i64,
    pub(super) last_offset_delta: i32,
    pub(super) max_timestamp: i64,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) base_sequence: i32,
}

impl Header {
    pub(super) fn of(batch: &Batch) -> Self {
        Self {
            base_offset: batch.base_offset,
            last_offset_delta: batch.last_offset_delta,
            max_timestamp: batch.max_timestamp,
            producer_id: batch.producer_id,
            producer_epoch: batch.producer_epoch,
            base_sequence: batch.base_sequence,
        }
    }

    /// With the bytes of the whole batch.
    fn parse(bytes: &[u8; HEADER]) -> (Self, usize) {
        let mut bytes = &bytes[..];
        let base_offset = bytes.get_i64();
        let length =
            usize::try_from(bytes.get_i32()).map_or(usize::MAX, |length| length.saturating_add(PREFIX));
        // Leader epoch, magic, checksum, attributes.
        bytes.advance(4 + 1 + 4 + 2);
        let last_offset_delta = bytes.get_i32();
        bytes.advance(8);
        let header = Self {
            base_offset,
            last_offset_delta,
            max_timestamp: bytes.get_i64(),
            producer_id: bytes.get_i64(),
            producer_epoch: bytes.get_i16(),
            base_sequence: bytes.get_i32(),
        };
        (header, length)
    }

    pub(super) fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta) + 1
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.producer_id != -1 && self.base_sequence != -1
    }
}

/// What a segment's file is called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// The offset it begins with.
    pub(super) base: i64,
    /// Of a compacted segment: the offset the next one begins with. Any offset before it may be missing.
    pub(super) until: Option<i64>,
}

impl Name {
    /// Of a segment that is written, whose offsets are all there.
    pub(super) fn written(base: i64) -> Self {
        Self { base, until: None }
    }

    pub(super) fn of_file(name: &str) -> Option<Self> {
        let name = name.strip_suffix(SUFFIX)?;
        let (base, until) = match name.split_once('-') {
            Some((base, until)) => (base, Some(until.parse().ok()?)),
            None => (name, None),
        };
        let base = base.parse().ok().filter(|base| *base >= 0)?;
        (until.is_none_or(|until| until > base)).then_some(Self { base, until })
    }

    pub(super) fn path(self, folder: &Path) -> PathBuf {
        let base = self.base;
        folder.join(match self.until {
            Some(until) => format!("{base:020}-{until:020}{SUFFIX}"),
            None => format!("{base:020}{SUFFIX}"),
        })
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    name: Name,
    file: Arc<File>,
    bytes: u64,
    /// One past the last offset that is there.
    tail: i64,
    /// Newest time of all its records, ms.
    max_timestamp: i64,
    marks: Vec<Mark>,
}

/// A batch's place.
#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: i64,
    position: u64,
    /// Newest time of all records before it, ms.
    max_timestamp: i64,
}

pub(super) fn damaged(folder: &Path, name: Name, what: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {what}", name.path(folder).display()),
    )
}

/// How long the batch is in a log.
pub(in crate::engine) fn batch_bytes(batch: &Batch) -> usize {
    HEADER + batch.record_data.len()
}

/// Whether the bytes of a batch are what its checksum was made of.
pub(super) fn is_whole(batch: &[u8]) -> bool {
    let (Some(stored), Some(covered)) = (batch.get(CRC), batch.get(COVERED..)) else {
        return false;
    };
    let computed = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, covered);
    u64::from(u32::from_be_bytes([stored[0], stored[1], stored[2], stored[3]])) == computed
}

impl Segment {
    pub(super) fn create(folder: &Path, base: i64) -> io::Result<Self> {
        let name = Name::written(base);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(name.path(folder))?;
        // The name, too, must survive a power cut.
        File::open(folder)?.sync_all()?;
        Ok(Self::empty(name, file))
    }

    pub(super) fn empty(name: Name, file: File) -> Self {
        Self {
            name,
            file: Arc::new(file),
            bytes: 0,
            tail: name.base,
            max_timestamp: i64::MIN,
            marks: Vec::new(),
        }
    }

    /// Reads the segment through, telling each batch. The newest one may have a torn end, which is cut off; its checksums
    /// are looked at.
    pub(super) fn open(
        folder: &Path,
        name: Name,
        newest: bool,
        mut told: impl FnMut(&Header),
    ) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(name.path(folder))?;
        let size = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(256 * 1024, file.try_clone()?);
        let mut segment = Self::empty(name, file);
        let mut batch = Vec::new();
        while segment.bytes < size {
            let left = usize::try_from(size - segment.bytes).unwrap_or(usize::MAX);
            let mut fields = [0; HEADER];
            let sound = if left < HEADER {
                None
            } else {
                reader.read_exact(&mut fields)?;
                let (header, length) = Header::parse(&fields);
                let fits = (HEADER..=LARGEST.min(left)).contains(&length)
                    && fields[MAGIC_AT] == MAGIC as u8
                    && segment.may_go_on_with(&header);
                if !fits {
                    None
                } else if newest {
                    batch.clear();
                    batch.extend_from_slice(&fields);
                    batch.resize(length, 0);
                    reader.read_exact(&mut batch[HEADER..])?;
                    is_whole(&batch).then_some((header, length))
                } else {
                    reader.seek_relative(i64::try_from(length - HEADER).map_err(io::Error::other)?)?;
                    Some((header, length))
                }
            };
            let Some((header, length)) = sound else {
                if !newest {
                    return Err(damaged(
                        folder,
                        name,
                        format!("no batch at byte {}", segment.bytes),
                    ));
                }
                tracing::warn!(
                    path = %name.path(folder).display(), bytes = size - segment.bytes, kafka.offset = segment.tail,
                    "the torn end of the log is cut off"
                );
                segment.file.set_len(segment.bytes)?;
                break;
            };
            segment.count(&header, length);
            told(&header);
        }
        Ok(segment)
    }

    /// Whether a batch may lie behind all others.
    fn may_go_on_with(&self, header: &Header) -> bool {
        let follows = match self.name.until {
            Some(until) => header.base_offset >= self.tail && header.next_offset() <= until,
            None => header.base_offset == self.tail,
        };
        follows && header.last_offset_delta >= 0
    }

    /// Takes note of a batch that lies behind all others.
    pub(super) fn count(&mut self, header: &Header, length: usize) {
        let is_far = self
            .marks
            .last()
            .is_none_or(|mark| self.bytes - mark.position >= MARK_BYTES as u64);
        if is_far {
            self.marks.push(Mark {
                offset: header.base_offset,
                position: self.bytes,
                max_timestamp: self.max_timestamp,
            });
        }
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.bytes += length as u64;
        self.tail = header.next_offset();
    }

    pub(super) fn append(&mut self, header: &Header, batch: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(batch, self.bytes) {
            // Readers never look behind `bytes`; a restart would cut it off as well.
            drop(self.file.set_len(self.bytes));
            return Err(error);
        }
        self.count(header, batch.len());
        Ok(())
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    pub(super) fn base(&self) -> i64 {
        self.name.base
    }

    /// One past the last offset that is there.
    pub(super) fn tail(&self) -> i64 {
        self.tail
    }

    /// Where the next segment begins.
    pub(super) fn next(&self) -> i64 {
        self.name.until.unwrap_or(self.tail)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(super) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Where to begin reading for `offset`: at its batch or a little before.
    pub(super) fn position_before(&self, offset: i64) -> u64 {
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        after.checked_sub(1).map_or(0, |at| self.marks[at].position)
    }

    /// See [`super::PartitionLog::first_at`].
    pub(super) fn first_at(&self, timestamp_ms: i64) -> io::Result<Option<(i64, i64)>> {
        // The last mark before which no record reaches the time.
        let after = self
            .marks
            .partition_point(|mark| mark.max_timestamp < timestamp_ms);
        let mut position = after.checked_sub(1).map_or(0, |at| self.marks[at].position);
        while position < self.bytes {
            let mut fields = [0; HEADER];
            self.file.read_exact_at(&mut fields, position)?;
            let (header, length) = Header::parse(&fields);
            if header.max_timestamp >= timestamp_ms {
                let mut bytes = vec![0; length];
                self.file.read_exact_at(&mut bytes, position)?;
                let batch = Batch::try_from(Bytes::from(bytes)).map_err(io::Error::other)?;
                let base_timestamp = batch.base_timestamp;
                for record in Vec::<Record>::try_from(batch).map_err(io::Error::other)? {
                    let time = base_timestamp + record.timestamp_delta;
                    if time >= timestamp_ms {
                        return Ok(Some((header.base_offset + i64::from(record.offset_delta), time)));
                    }
                }
            }
            position += length as u64;
        }
        Ok(None)
    }
}

/// Reads a segment's batches one after the other, as the bytes they are.
pub(super) struct Batches {
    reader: BufReader<File>,
    left: u64,
}

impl Batches {
    /// Of the file called `name`, as far as its first `bytes` bytes.
    pub(super) fn of(folder: &Path, name: Name, bytes: u64) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::with_capacity(256 * 1024, File::open(name.path(folder))?),
            left: bytes,
        })
    }

    /// The next batch, whose checksum holds; `None` behind the last.
    pub(super) fn next(&mut self) -> io::Result<Option<(Header, Bytes)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut fields = [0; HEADER];
        self.reader.read_exact(&mut fields)?;
        let (header, length) = Header::parse(&fields);
        if !(HEADER..=LARGEST).contains(&length) || length as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no batch"));
        }
        let mut batch = fields.to_vec();
        batch.resize(length, 0);
        self.reader.read_exact(&mut batch[HEADER..])?;
        if !is_whole(&batch) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the batch of offset {} is damaged", header.base_offset),
            ));
        }
        self.left -= length as u64;
        Ok(Some((header, batch.into())))
    }
}

/// The whole batches among `bytes` that reach `offset`, up to `max_bytes` of them and at least one; with how many bytes
/// it would have taken to have the next one whole.
pub(super) fn batches(
    mut bytes: Bytes,
    offset: i64,
    max_bytes: usize,
) -> io::Result<(Vec<Batch>, Option<usize>)> {
    let mut found = Vec::new();
    let (mut taken, mut passed) = (0, 0);
    loop {
        let Some(fields) = bytes.first_chunk::<HEADER>() else {
            let needs = (!bytes.is_empty()).then_some(passed + HEADER);
            return Ok((found, needs));
        };
        let (header, length) = Header::parse(fields);
        if !(HEADER..=LARGEST).contains(&length) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no batch before offset {offset}"),
            ));
        }
        if header.next_offset() > offset {
            if !found.is_empty() && taken + length > max_bytes {
                return Ok((found, None));
            }
            if length > bytes.len() {
                return Ok((found, Some(passed + length)));
            }
            found.push(Batch::try_from(bytes.slice(..length)).map_err(io::Error::other)?);
            taken += length;
        } else if length > bytes.len() {
            return Ok((found, Some(passed + length)));
        }
        bytes.advance(length);
        passed += length;
    }
}
