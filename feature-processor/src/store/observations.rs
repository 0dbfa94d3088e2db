//! The newest observations of a partition, in the order of its log.
//!
//! They lie in segments of [`SEGMENT`], like event ids: a batch appends to the last one and may begin further ones. A
//! segment is a version byte, the offset of its first record, and its observations at fixed width. Each record of the
//! log leaves exactly one, so the table is a fold over offsets like everything else; how many are kept is counted in
//! observations, not in batches.

use std::ops::Range;

use redb::{ReadableTable, Table};

use crate::drift::{OBSERVATION_BYTES, Observation};
use crate::wire::{Reader, Writer, corrupt};

const VERSION: u8 = 1;

/// Observations per row.
pub(crate) const SEGMENT: u64 = 128;

const HEADER: usize = 1 + 8;

/// Where the next observation goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// Observations ever made.
    pub(super) observed: u64,
    /// The oldest segment kept.
    pub(super) oldest: u64,
    /// The segment that is not yet full.
    open: Vec<u8>,
}

/// A segment as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number; the first one ever is 0.
    pub number: u64,
    /// The offset of its first record.
    pub first_offset: i64,
    /// Up to 128 observations.
    pub observations: Vec<Observation>,
}

impl Tail {
    pub(super) fn load(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Self, redb::Error> {
        let oldest = table.first()?.map_or(0, |(segment, _)| segment.value());
        let Some((segment, bytes)) = table.last()? else {
            return Ok(Self::default());
        };
        let read = decode(segment.value(), bytes.value())?;
        let len = read.observations.len() as u64;
        Ok(Self {
            observed: segment.value() * SEGMENT + len,
            oldest,
            open: if len < SEGMENT {
                bytes.value().to_vec()
            } else {
                Vec::new()
            },
        })
    }

    /// Appends observations with the offsets of their records and drops segments that are no longer among the newest
    /// `keep` observations. The new tail counts once the transaction is committed.
    pub(super) fn write(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        fresh: &[(i64, Observation)],
        keep: u64,
    ) -> Result<Self, redb::Error> {
        let mut tail = self.clone();
        let mut open = Writer(std::mem::take(&mut tail.open));
        for (offset, observation) in fresh {
            if open.0.is_empty() {
                open = Writer::new(VERSION);
                open.i64(*offset);
            }
            observation.encode(&mut open);
            tail.observed += 1;
            if tail.observed.is_multiple_of(SEGMENT) {
                table.insert(tail.observed / SEGMENT - 1, open.0.as_slice())?;
                open.0.clear();
            }
        }
        if !open.0.is_empty() && !fresh.is_empty() {
            table.insert(tail.observed / SEGMENT, open.0.as_slice())?;
        }
        tail.open = open.0;
        while (tail.oldest + 1) * SEGMENT + keep <= tail.observed {
            table.remove(tail.oldest)?;
            tail.oldest += 1;
        }
        Ok(tail)
    }
}

impl Tail {
    /// Replaces a user's id by one that names nobody, in everything that is kept.
    pub(super) fn forget(
        &mut self,
        table: &mut Table<'_, u64, &'static [u8]>,
        user: u64,
    ) -> Result<(), redb::Error> {
        let mut changed = Vec::new();
        for row in table.iter()? {
            let (segment, bytes) = row?;
            if let Some(bytes) = without(bytes.value(), user) {
                changed.push((segment.value(), bytes));
            }
        }
        for (segment, bytes) in changed {
            table.insert(segment, bytes.as_slice())?;
        }
        if let Some(open) = without(&self.open, user) {
            self.open = open;
        }
        Ok(())
    }
}

/// A user that nobody is: above every id that is accepted.
pub(crate) const FORGOTTEN: u64 = u64::MAX;

/// The segment with this user's id replaced, if it is in there.
fn without(segment: &[u8], user: u64) -> Option<Vec<u8>> {
    let id = user.to_le_bytes();
    let starts = (HEADER..segment.len()).step_by(OBSERVATION_BYTES);
    let hits: Vec<usize> = starts.filter(|&at| segment[at..].starts_with(&id)).collect();
    if hits.is_empty() {
        return None;
    }
    let mut bytes = segment.to_vec();
    for at in hits {
        bytes[at..at + id.len()].copy_from_slice(&FORGOTTEN.to_le_bytes());
    }
    Some(bytes)
}

/// Reads the segments in a range that the table still holds.
pub(super) fn read(
    table: &impl ReadableTable<u64, &'static [u8]>,
    range: Range<u64>,
) -> Result<Vec<Segment>, redb::Error> {
    table
        .range(range)?
        .map(|row| {
            let (number, bytes) = row?;
            decode(number.value(), bytes.value())
        })
        .collect()
}

/// Number of observations in a stored segment, if it is one.
pub(super) fn segment_len(bytes: &[u8]) -> Option<u64> {
    decode(0, bytes)
        .ok()
        .map(|segment| segment.observations.len() as u64)
}

/// Observations ever made, as the segments tell.
pub(super) fn observed(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, redb::Error> {
    Tail::load(table).map(|tail| tail.observed)
}

fn decode(number: u64, bytes: &[u8]) -> Result<Segment, redb::Error> {
    let parse = || {
        let (version, mut reader) = Reader::new(bytes)?;
        let observations = bytes.len().checked_sub(HEADER)? / OBSERVATION_BYTES;
        if version != VERSION || observations as u64 > SEGMENT {
            return None;
        }
        let first_offset = reader.i64()?;
        let observations = (0..observations)
            .map(|_| Observation::decode(&mut reader))
            .collect::<Option<_>>()?;
        reader.end()?;
        Some(Segment {
            number,
            first_offset,
            observations,
        })
    };
    parse().ok_or_else(|| corrupt("observations"))
}
