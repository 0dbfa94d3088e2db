//! Records read before, kept on disk so that only the new tail is read from the broker.
//!
//! One append-only file per partition, a sequence of blocks: magic, length, SHA-256, then the range of offsets it
//! covers, the records that could not be decoded, the erasures, and the rows. A torn or damaged block ends the file: it
//! is cut off there and read again from the broker. The cache is never the truth; deleting it costs time only.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::erasure::{ERASURE_BYTES, Erasure};
use super::row::{ROW_BYTES, Row, take};

/// Changes whenever the meaning of a stored row does, so that older caches are dropped.
const MAGIC: [u8; 8] = *b"mqrows02";
const HEADER_BYTES: usize = 8 + 8 + 32;

/// What is cached of one partition: everything from `from` to `next`.
#[derive(Debug, Default)]
pub(super) struct Cached {
    pub(super) rows: Vec<Row>,
    /// Offsets that could not be decoded.
    pub(super) invalid: Vec<i64>,
    pub(super) erasures: Vec<Erasure>,
    /// First offset covered.
    pub(super) from: i64,
    /// First offset not covered.
    pub(super) next: i64,
}

impl Cached {
    /// The newest row below which everything is covered, to hold against the log.
    pub(super) fn last(&self) -> Option<&Row> {
        self.rows.last()
    }
}

/// The cache of one topic, locked while in use.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens the cache; `None` while another reader has it: the caller then reads everything from the broker.
    pub(super) fn open(dir: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(dir)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("cache.lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self {
                dir: dir.to_path_buf(),
                _lock: lock,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn path(&self, partition: i32) -> PathBuf {
        self.dir.join(format!("interactions-{partition}.rows"))
    }

    /// Reads a partition's rows and cuts a damaged tail off.
    pub(super) fn read(&self, partition: i32) -> io::Result<Cached> {
        let path = self.path(partition);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cached::default()),
            Err(error) => return Err(error),
        };
        let mut cached = Cached::default();
        let mut rest = bytes.as_slice();
        let mut sound = 0;
        while !rest.is_empty() {
            if read_block(partition, &mut rest, &mut cached, sound == 0).is_none() {
                tracing::warn!(path = %path.display(), at = sound, "cutting off a damaged tail of the cache");
                File::options().write(true).open(&path)?.set_len(sound as u64)?;
                break;
            }
            sound = bytes.len() - rest.len();
        }
        Ok(cached)
    }

    /// Appends what was read of a partition.
    pub(super) fn append(&self, partition: i32, read: &Cached) -> io::Result<()> {
        let Cached {
            rows,
            invalid,
            erasures,
            from,
            next,
        } = read;
        let lists = invalid.len() * 8 + erasures.len() * ERASURE_BYTES + rows.len() * ROW_BYTES;
        let mut body = Vec::with_capacity(32 + lists);
        body.extend_from_slice(&from.to_le_bytes());
        body.extend_from_slice(&next.to_le_bytes());
        body.extend_from_slice(&(invalid.len() as u64).to_le_bytes());
        for offset in invalid {
            body.extend_from_slice(&offset.to_le_bytes());
        }
        body.extend_from_slice(&(erasures.len() as u64).to_le_bytes());
        for erasure in erasures {
            erasure.write_to(&mut body);
        }
        for row in rows {
            row.write_to(&mut body);
        }
        let mut block = Vec::with_capacity(HEADER_BYTES + body.len());
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&(body.len() as u64).to_le_bytes());
        block.extend_from_slice(&Sha256::digest(&body));
        block.extend_from_slice(&body);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.path(partition))?;
        file.write_all(&block)?;
        file.sync_data()
    }

    /// Forgets a partition: what is cached belongs to another log.
    pub(super) fn forget(&self, partition: i32) -> io::Result<()> {
        match fs::remove_file(self.path(partition)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn read_block(partition: i32, rest: &mut &[u8], cached: &mut Cached, first: bool) -> Option<()> {
    let mut cursor = *rest;
    if take::<8>(&mut cursor)? != MAGIC {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(take(&mut cursor)?)).ok()?;
    let digest = take::<32>(&mut cursor)?;
    let (mut body, tail) = cursor.split_at_checked(length)?;
    if Sha256::digest(body).as_slice() != digest {
        return None;
    }
    let from = i64::from_le_bytes(take(&mut body)?);
    let next = i64::from_le_bytes(take(&mut body)?);
    if !first && from != cached.next {
        return None;
    }
    let invalid = u64::from_le_bytes(take(&mut body)?);
    for _ in 0..invalid {
        cached.invalid.push(i64::from_le_bytes(take(&mut body)?));
    }
    let erasures = u64::from_le_bytes(take(&mut body)?);
    for _ in 0..erasures {
        cached.erasures.push(Erasure::read_from(partition, &mut body)?);
    }
    for row in body.chunks_exact(ROW_BYTES) {
        cached.rows.push(Row::read_from(partition, row)?);
    }
    if first {
        cached.from = from;
    }
    cached.next = next;
    *rest = tail;
    Some(())
}

#[cfg(test)]
mod tests {
    use marquee_schemas::UserId;

    use super::super::tests::row;
    use super::*;

    fn cache(dir: &Path) -> Cache {
        Cache::open(dir).unwrap().unwrap()
    }

    fn part(from: i64, next: i64, rows: &[Row], invalid: &[i64]) -> Cached {
        Cached {
            rows: rows.to_vec(),
            invalid: invalid.to_vec(),
            erasures: Vec::new(),
            from,
            next,
        }
    }

    #[test]
    fn what_was_read_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let rows = [row(2, 10, 1, 5), row(2, 12, 3, 6)];
        let erasures = [15, 17].map(|offset| Erasure {
            partition: 2,
            offset,
            user: UserId(3),
        });
        let mut first = part(10, 16, &rows[..1], &[11]);
        first.erasures.extend(&erasures[..1]);
        let mut second = part(16, 20, &rows[1..], &[]);
        second.erasures.extend(&erasures[1..]);
        cache.append(2, &first).unwrap();
        cache.append(2, &second).unwrap();
        let read = cache.read(2).unwrap();
        assert_eq!((read.from, read.next, read.invalid), (10, 20, vec![11]));
        assert_eq!(read.rows, rows);
        assert_eq!(read.erasures, erasures);
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_tore_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        cache.append(0, &part(0, 5, &[row(0, 1, 1, 5)], &[])).unwrap();
        let sound = fs::metadata(cache.path(0)).unwrap().len();
        cache.append(0, &part(5, 9, &[row(0, 7, 1, 5)], &[8])).unwrap();
        let whole = fs::read(cache.path(0)).unwrap();
        for length in (sound as usize + 1..whole.len()).step_by(5) {
            fs::write(cache.path(0), &whole[..length]).unwrap();
            let read = cache.read(0).unwrap();
            assert_eq!((read.next, read.rows.len()), (5, 1), "torn at {length}");
            assert_eq!(fs::metadata(cache.path(0)).unwrap().len(), sound);
        }
        cache.append(0, &part(5, 9, &[row(0, 7, 1, 5)], &[8])).unwrap();
        assert_eq!(fs::read(cache.path(0)).unwrap(), whole);
    }

    #[test]
    fn a_flipped_bit_ends_the_cache_before_its_block() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        cache.append(0, &part(0, 5, &[row(0, 1, 1, 5)], &[])).unwrap();
        let mut bytes = fs::read(cache.path(0)).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        fs::write(cache.path(0), bytes).unwrap();
        assert_eq!(cache.read(0).unwrap().next, 0);
    }

    #[test]
    fn a_second_reader_goes_without_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let _held = cache(dir.path());
        assert!(Cache::open(dir.path()).unwrap().is_none());
    }
}
