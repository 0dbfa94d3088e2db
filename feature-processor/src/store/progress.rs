//! How far the fold has come, and what became of every record.

use std::collections::BTreeMap;

use marquee_schemas::Reason;

use crate::wire::{Reader, Writer, corrupt};

const VERSION: u8 = 2;

/// Offsets and counts of one partition, durable with the state they describe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// First offset ever taken in and the next one to read; `None` before the first record.
    pub offsets: Option<(i64, i64)>,
    /// Records folded into the state.
    pub applied: u64,
    /// Records whose event id had been applied before.
    pub duplicate: u64,
    /// Records refused, by reason.
    pub dead_lettered: BTreeMap<Reason, u64>,
    /// Records that asked to forget a user.
    pub erasures: u64,
    /// Newest event time applied, ms; an event may lie ahead of the clock by as much as is allowed.
    pub newest_ms: i64,
    /// Offsets that hold no record (a transactional producer's markers, for example).
    pub absent: u64,
    /// Of those applied: older than the newest event their user had.
    pub late: u64,
    /// Of those applied: history.
    pub history: u64,
    /// Users with at least one history entry; those that were forgotten are not among them.
    pub history_users: u64,
}

impl Counters {
    /// Next offset to read, once there is a first.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.offsets.map(|(_, next)| next)
    }

    /// Records refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.dead_lettered.values().sum()
    }

    /// Records read: offsets passed, less those that hold none.
    #[must_use]
    pub fn records(&self) -> u64 {
        let (first, next) = self.offsets.unwrap_or((0, 0));
        u64::try_from(next - first)
            .unwrap_or(0)
            .saturating_sub(self.absent)
    }

    /// Whether every record read is accounted for: in = applied + duplicate + dead-lettered + erasures.
    #[must_use]
    pub fn reconcile(&self) -> bool {
        self.records() == self.applied + self.duplicate + self.refused() + self.erasures
    }

    /// Moves on to the record at `offset`.
    pub(super) fn advance(&mut self, offset: i64) {
        let (first, next) = self.offsets.unwrap_or((offset, offset));
        self.absent += u64::try_from(offset - next).unwrap_or(0);
        self.offsets = Some((first, offset + 1));
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        let (first, next) = self.offsets.unwrap_or((-1, -1));
        writer.i64(first);
        writer.i64(next);
        for count in [
            self.applied,
            self.duplicate,
            self.absent,
            self.late,
            self.history,
            self.history_users,
            self.erasures,
        ] {
            writer.count(count);
        }
        writer.i64(self.newest_ms);
        writer.len(self.dead_lettered.len());
        for (&reason, &count) in &self.dead_lettered {
            writer.u8(reason_code(reason));
            writer.count(count);
        }
        writer.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            // Version 1 knew neither erasures nor the newest event time.
            Some((version @ 1..=VERSION, mut reader)) => Self::read(&mut reader, version > 1),
            _ => None,
        }
        .ok_or_else(|| corrupt("progress"))
    }

    fn read(reader: &mut Reader<'_>, since_v2: bool) -> Option<Self> {
        let (first, next) = (reader.i64()?, reader.i64()?);
        let mut counters = Self {
            offsets: (first >= 0).then_some((first, next)),
            applied: reader.count()?,
            duplicate: reader.count()?,
            absent: reader.count()?,
            late: reader.count()?,
            history: reader.count()?,
            history_users: reader.count()?,
            erasures: if since_v2 { reader.count()? } else { 0 },
            newest_ms: if since_v2 { reader.i64()? } else { 0 },
            dead_lettered: BTreeMap::new(),
        };
        for _ in 0..reader.len(2)? {
            counters
                .dead_lettered
                .insert(reason_of(reader.u8()?)?, reader.count()?);
        }
        reader.end()?;
        Some(counters)
    }
}

/// Every reason, by its stored number; never reused, never reordered.
const REASONS: [Reason; 11] = [
    Reason::MalformedJson,
    Reason::UnknownSchemaVersion,
    Reason::UnknownKind,
    Reason::MissingField,
    Reason::OutOfRange,
    Reason::WrongType,
    Reason::TimestampOutOfRange,
    Reason::TooLarge,
    Reason::Empty,
    Reason::UnknownMovie,
    Reason::TooLate,
];

pub(crate) fn reason_code(reason: Reason) -> u8 {
    match reason {
        Reason::MalformedJson => 0,
        Reason::UnknownSchemaVersion => 1,
        Reason::UnknownKind => 2,
        Reason::MissingField => 3,
        Reason::OutOfRange => 4,
        Reason::WrongType => 5,
        Reason::TimestampOutOfRange => 6,
        Reason::TooLarge => 7,
        Reason::Empty => 8,
        Reason::UnknownMovie => 9,
        Reason::TooLate => 10,
    }
}

pub(crate) fn reason_of(code: u8) -> Option<Reason> {
    REASONS.get(usize::from(code)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_keep_their_numbers() {
        for (code, reason) in (0..).zip(REASONS) {
            assert_eq!(reason_code(reason), code);
        }
    }

    #[test]
    fn counters_read_back_and_reconcile() {
        let mut counters = Counters {
            applied: 2,
            duplicate: 1,
            dead_lettered: [(Reason::Empty, 1), (Reason::TooLate, 1)].into(),
            late: 1,
            history: 2,
            history_users: 1,
            ..Counters::default()
        };
        for offset in [10, 11, 13, 14, 15] {
            counters.advance(offset);
        }
        assert_eq!(counters.offsets, Some((10, 16)));
        assert_eq!((counters.absent, counters.records()), (1, 5));
        assert!(counters.reconcile());
        assert_eq!(Counters::decode(&counters.encode()).unwrap(), counters);
        let fresh = Counters::default();
        assert!(fresh.reconcile());
        assert_eq!(Counters::decode(&fresh.encode()).unwrap(), fresh);
    }
}
