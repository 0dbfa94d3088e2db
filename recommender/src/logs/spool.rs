//! A bounded first-in-first-out queue on disk, for request logs while the broker is away.
//!
//! A folder of numbered segments (`000000000001.jsonl`), one record per line, exactly the bytes that will be sent. A
//! segment is deleted once all of it has been delivered, so after a kill at most one segment is delivered a second
//! time; a clean shutdown leaves none. Writes reach the operating system before the call returns, and so survive the
//! process, not a power loss. A torn last line is cut off when the spool is opened, and counted.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bounds of a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The most bytes on disk.
    pub max_bytes: u64,
    /// Bytes after which a new segment is begun.
    pub segment_bytes: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    records: u64,
}

/// A record does not fit any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spool is full")]
pub struct Full;

/// The spool. One owner at a time; all calls block on the disk.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    config: SpoolConfig,
    segments: VecDeque<Segment>,
    /// Bytes and records of the first segment that have been delivered.
    head_bytes: u64,
    head_records: u64,
    tail: Option<File>,
    torn: u64,
}

impl Spool {
    /// Opens the spool in `dir`, created when absent, with what an earlier process left.
    ///
    /// # Errors
    /// The folder cannot be created, read, or mended.
    pub fn open(dir: &Path, config: SpoolConfig) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl")
                && let Some(number) = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .and_then(|s| s.parse().ok())
            {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        let mut spool = Self {
            dir: dir.to_path_buf(),
            config,
            segments: VecDeque::new(),
            head_bytes: 0,
            head_records: 0,
            tail: None,
            torn: 0,
        };
        for number in numbers {
            let path = spool.path(number);
            let (bytes, records, whole) = measure(&path)?;
            if whole > bytes {
                spool.torn += 1;
                OpenOptions::new().write(true).open(&path)?.set_len(bytes)?;
            }
            if records == 0 {
                fs::remove_file(&path)?;
            } else {
                spool.segments.push_back(Segment {
                    number,
                    bytes,
                    records,
                });
            }
        }
        Ok(spool)
    }

    /// Records not delivered yet.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum::<u64>() - self.head_records
    }

    /// Whether everything has been delivered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Torn lines found when it was opened.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Appends records; returns how many fitted, in order. A record must not contain a line feed, which compact JSON
    /// never does.
    ///
    /// # Errors
    /// The disk failed: nothing of this call is in the spool.
    pub fn append<'r>(
        &mut self,
        records: impl IntoIterator<Item = &'r [u8]>,
    ) -> io::Result<(usize, Result<(), Full>)> {
        let mut appended = 0;
        let mut outcome = Ok(());
        let mut buffer = Vec::new();
        let mut in_buffer = 0;
        for record in records {
            let size = record.len() as u64 + 1;
            if self.bytes() + buffer.len() as u64 + size > self.config.max_bytes {
                outcome = Err(Full);
                break;
            }
            let open = self.segments.back().map_or(0, |segment| segment.bytes);
            if open + buffer.len() as u64 + size > self.config.segment_bytes && open + buffer.len() as u64 > 0
            {
                self.write(&buffer, in_buffer)?;
                buffer.clear();
                in_buffer = 0;
                self.begin_segment()?;
            }
            buffer.extend_from_slice(record);
            buffer.push(b'\n');
            in_buffer += 1;
            appended += 1;
        }
        self.write(&buffer, in_buffer)?;
        Ok((appended, outcome))
    }

    fn write(&mut self, buffer: &[u8], records: u64) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        if self.segments.is_empty() {
            self.begin_segment()?;
        }
        let Some(segment) = self.segments.back_mut() else {
            return Err(io::Error::other("no segment"));
        };
        let path = self.dir.join(file_name(segment.number));
        let file = match &mut self.tail {
            Some(file) => file,
            None => self
                .tail
                .insert(OpenOptions::new().append(true).create(true).open(&path)?),
        };
        if let Err(error) = file.write_all(buffer) {
            // Half a record must not be read as one later.
            drop(file.set_len(segment.bytes));
            return Err(error);
        }
        segment.bytes += buffer.len() as u64;
        segment.records += records;
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.segments.back().map_or(1, |segment| segment.number + 1);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(self.path(number))?;
        self.tail = Some(file);
        self.segments.push_back(Segment {
            number,
            bytes: 0,
            records: 0,
        });
        Ok(())
    }

    /// The oldest records not delivered, at most `max`, all from one segment; they stay until [`Spool::advance`].
    ///
    /// # Errors
    /// The disk failed.
    pub fn peek(&self, max: usize) -> io::Result<Vec<Vec<u8>>> {
        let Some(segment) = self.segments.front() else {
            return Ok(Vec::new());
        };
        let mut file = File::open(self.path(segment.number))?;
        file.seek(SeekFrom::Start(self.head_bytes))?;
        let left = usize::try_from(segment.records - self.head_records).unwrap_or(usize::MAX);
        let mut reader = BufReader::new(file.take(segment.bytes - self.head_bytes));
        let mut records = Vec::new();
        while records.len() < max.min(left) {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            line.pop();
            records.push(line);
        }
        Ok(records)
    }

    /// Removes the oldest records, which [`Spool::peek`] gave, from the queue.
    ///
    /// # Errors
    /// A finished segment cannot be deleted; it counts as removed all the same.
    pub fn advance(&mut self, delivered: &[Vec<u8>]) -> io::Result<()> {
        self.head_records += delivered.len() as u64;
        self.head_bytes += delivered
            .iter()
            .map(|record| record.len() as u64 + 1)
            .sum::<u64>();
        let Some(segment) = self.segments.front() else {
            return Ok(());
        };
        if self.head_records < segment.records {
            return Ok(());
        }
        let path = self.path(segment.number);
        self.segments.pop_front();
        self.head_records = 0;
        self.head_bytes = 0;
        if self.segments.is_empty() {
            self.tail = None;
        }
        fs::remove_file(path)
    }

    /// Cuts what was delivered off the first segment, so that the next process does not deliver it again.
    ///
    /// # Errors
    /// The disk failed; the spool then still holds everything.
    pub fn close(mut self) -> io::Result<()> {
        self.tail = None;
        let Some(segment) = self.segments.front() else {
            return Ok(());
        };
        if self.head_bytes == 0 {
            return Ok(());
        }
        let path = self.path(segment.number);
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(self.head_bytes))?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, rest)?;
        fs::rename(temporary, path)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(file_name(number))
    }
}

fn file_name(number: u64) -> String {
    format!("{number:012}.jsonl")
}

/// Bytes and number of whole lines, and the file's length.
fn measure(path: &Path) -> io::Result<(u64, u64, u64)> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut bytes, mut records, mut whole) = (0, 0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            return Ok((bytes, records, whole));
        }
        whole += read;
        if line.last() == Some(&b'\n') {
            bytes += read;
            records += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_bytes: u64, segment_bytes: u64) -> SpoolConfig {
        SpoolConfig {
            max_bytes,
            segment_bytes,
        }
    }

    fn lines(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        range.map(|n| format!("{{\"n\":{n}}}").into_bytes()).collect()
    }

    fn append(spool: &mut Spool, records: &[Vec<u8>]) -> (usize, Result<(), Full>) {
        spool.append(records.iter().map(Vec::as_slice)).unwrap()
    }

    fn fill(spool: &mut Spool, records: &[Vec<u8>]) {
        assert_eq!(append(spool, records), (records.len(), Ok(())));
    }

    fn drain(spool: &mut Spool, max: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let batch = spool.peek(max).unwrap();
            if batch.is_empty() {
                return all;
            }
            spool.advance(&batch).unwrap();
            all.extend(batch);
        }
    }

    #[test]
    fn records_come_out_in_the_order_they_went_in_across_segments_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), config(1 << 20, 64)).unwrap();
        fill(&mut spool, &lines(0..20));
        let first = spool.peek(3).unwrap();
        spool.advance(&first).unwrap();
        assert_eq!(first, lines(0..3));
        spool.close().unwrap();

        let mut spool = Spool::open(dir.path(), config(1 << 20, 64)).unwrap();
        assert_eq!(spool.len(), 17);
        fill(&mut spool, &lines(20..40));
        assert_eq!(drain(&mut spool, 4), lines(3..40));
        assert!(spool.is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fill(&mut spool, &lines(40..41));
        assert_eq!(drain(&mut spool, 4), lines(40..41));
    }

    #[test]
    fn a_killed_process_leaves_at_most_one_segment_to_deliver_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), config(1 << 20, 64)).unwrap();
        fill(&mut spool, &lines(0..20));
        for _ in 0..5 {
            let batch = spool.peek(3).unwrap();
            spool.advance(&batch).unwrap();
        }
        let left = spool.len();
        drop(spool);
        let mut spool = Spool::open(dir.path(), config(1 << 20, 64)).unwrap();
        assert!(spool.len() >= left && spool.len() - left <= 64 / 8);
        let all = drain(&mut spool, 100);
        assert!(lines(0..20).ends_with(&all));
    }

    #[test]
    fn a_full_spool_keeps_what_it_has_and_says_what_did_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), config(50, 20)).unwrap();
        let (appended, outcome) = append(&mut spool, &lines(0..10));
        assert_eq!((appended, outcome), (6, Err(Full)));
        assert!(spool.bytes() <= 50);
        assert_eq!(drain(&mut spool, 10), lines(0..6));
        assert_eq!(append(&mut spool, &lines(0..2)), (2, Ok(())));
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), config(1 << 20, 1 << 10)).unwrap();
        fill(&mut spool, &lines(0..3));
        drop(spool);
        let path = dir.path().join(file_name(1));
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"n\":").unwrap();
        drop(file);
        let mut spool = Spool::open(dir.path(), config(1 << 20, 1 << 10)).unwrap();
        assert_eq!((spool.torn(), spool.len()), (1, 3));
        fill(&mut spool, &lines(3..4));
        assert_eq!(drain(&mut spool, 10), lines(0..4));
    }
}
