//! Which event ids were applied: the last N of them, exactly.
//!
//! An id is kept as the first 128 bits of its SHA-256, so that neither its length nor a malicious producer matters.
//! In memory a hash map finds it; on disk ids lie in the order they were applied, in segments of [`SEGMENT`], so that
//! a batch appends a few rows instead of touching thousands of scattered pages. The bound is exact and counts applied
//! events, not batches: whether an id is a repetition does not depend on how the log was cut into batches.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use redb::{ReadableTable, Table};
use sha2::{Digest, Sha256};

use crate::wire::corrupt;

const VERSION: u8 = 1;

/// Ids per row.
pub(super) const SEGMENT: u64 = 128;

/// Bytes of a stored id.
const ID_BYTES: usize = 16;

/// A hashed event id.
pub(super) fn hashed(event_id: &str) -> u128 {
    let digest = Sha256::digest(event_id.as_bytes());
    let mut id = [0; ID_BYTES];
    id.copy_from_slice(&digest[..ID_BYTES]);
    u128::from_le_bytes(id)
}

/// Ids are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 << 8) | u64::from(byte);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = (id >> 64) as u64;
    }
}

type Ordinals = HashMap<u128, u64, BuildHasherDefault<Identity>>;

/// The ids that the next batch is compared with.
#[derive(Debug)]
pub(super) struct Window {
    /// Id → which applied event it was, from 0. May hold ids that have left the window but not yet their segment.
    known: Ordinals,
    /// Ids of the segment that is not yet full.
    tail: Vec<u128>,
    /// The oldest segment on disk.
    oldest: u64,
    size: u64,
}

/// The ids of one batch.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    ordinals: Ordinals,
    ids: Vec<u128>,
}

/// What a committed batch changes in the window.
#[derive(Debug)]
pub(super) struct Written {
    fresh: Fresh,
    tail: Vec<u128>,
    oldest: u64,
    evicted: Vec<(u128, u64)>,
}

impl Window {
    /// Reads the window of a file; `size` is the number of ids to remember.
    pub(super) fn load(
        table: &impl ReadableTable<u64, &'static [u8]>,
        size: u64,
    ) -> Result<Self, redb::Error> {
        let mut window = Self {
            known: Ordinals::default(),
            tail: Vec::new(),
            oldest: 0,
            size,
        };
        let mut first = None;
        for row in table.iter()? {
            let (segment, bytes) = row?;
            let segment = segment.value();
            first.get_or_insert(segment);
            window.tail = parse(bytes.value())?;
            for (ordinal, &id) in (segment * SEGMENT..).zip(&window.tail) {
                window.known.insert(id, ordinal);
            }
        }
        window.oldest = first.unwrap_or(0);
        if window.tail.len() as u64 == SEGMENT {
            window.tail.clear();
        }
        Ok(window)
    }

    /// Whether `id` is among the last ids applied; `applied` is the number of events applied so far, those of the
    /// batch in hand included.
    pub(super) fn is_repeat(&self, fresh: &Fresh, id: u128, applied: u64) -> bool {
        fresh
            .ordinals
            .get(&id)
            .or_else(|| self.known.get(&id))
            .is_some_and(|&ordinal| applied - ordinal <= self.size)
    }

    /// Writes a batch's ids; `applied` is the number of events applied before it. The window itself changes only when
    /// the transaction has been committed: [`Window::accept`].
    pub(super) fn write(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        fresh: Fresh,
        applied: u64,
    ) -> Result<Written, redb::Error> {
        let mut segment = applied / SEGMENT;
        let mut tail = self.tail.clone();
        for &id in &fresh.ids {
            tail.push(id);
            if tail.len() as u64 == SEGMENT {
                table.insert(segment, format(&tail).as_slice())?;
                segment += 1;
                tail.clear();
            }
        }
        if !tail.is_empty() {
            table.insert(segment, format(&tail).as_slice())?;
        }
        let applied = applied + fresh.ids.len() as u64;
        let mut oldest = self.oldest;
        let mut evicted = Vec::new();
        while (oldest + 1) * SEGMENT + self.size <= applied {
            if let Some(row) = table.remove(oldest)? {
                evicted.extend(parse(row.value())?.into_iter().zip(oldest * SEGMENT..));
            }
            oldest += 1;
        }
        Ok(Written {
            fresh,
            tail,
            oldest,
            evicted,
        })
    }

    /// Takes over what is now committed.
    pub(super) fn accept(&mut self, written: Written) {
        self.known.extend(written.fresh.ordinals);
        for (id, ordinal) in written.evicted {
            // An id that was applied again after it had left the window stays.
            if self.known.get(&id) == Some(&ordinal) {
                self.known.remove(&id);
            }
        }
        self.tail = written.tail;
        self.oldest = written.oldest;
    }
}

impl Fresh {
    /// Notes that `id` is applied as event number `ordinal`.
    pub(super) fn insert(&mut self, id: u128, ordinal: u64) {
        self.ordinals.insert(id, ordinal);
        self.ids.push(id);
    }
}

/// The ids of the window, oldest first: what [`super::Snapshot::state_hash`] covers.
pub(super) fn stored_ids(
    table: &impl ReadableTable<u64, &'static [u8]>,
    applied: u64,
    size: u64,
) -> Result<Vec<u128>, redb::Error> {
    let mut ids = Vec::new();
    for row in table.iter()? {
        let (segment, bytes) = row?;
        for (ordinal, id) in (segment.value() * SEGMENT..).zip(parse(bytes.value())?) {
            if applied - ordinal <= size {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

/// Number of ids in a stored segment, if it is one.
pub(super) fn segment_len(bytes: &[u8]) -> Option<u64> {
    parse(bytes).ok().map(|ids| ids.len() as u64)
}

fn format(ids: &[u128]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + ids.len() * ID_BYTES);
    bytes.push(VERSION);
    for id in ids {
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn parse(bytes: &[u8]) -> Result<Vec<u128>, redb::Error> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let (ids, left) = rest.as_chunks::<ID_BYTES>();
            if left.is_empty() && ids.len() as u64 <= SEGMENT {
                return Ok(ids.iter().map(|&id| u128::from_le_bytes(id)).collect());
            }
            Err(corrupt("event ids"))
        }
        _ => Err(corrupt("event ids")),
    }
}
