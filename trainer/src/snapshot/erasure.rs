//! Records that ask to forget a user.

use std::collections::HashMap;

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{Interaction, UserId};

use super::row::take;

/// Bytes of an encoded erasure.
pub(super) const ERASURE_BYTES: usize = 8 + 8;

/// Everything of a user at smaller offsets of the partition is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Who.
    pub user: UserId,
}

impl Erasure {
    /// What the record asks for, if it asks for an erasure.
    #[must_use]
    pub fn of(record: &RawRecord) -> Option<Self> {
        let user = Interaction::erased(record.key.as_deref(), record.value.as_deref())?;
        Some(Self {
            partition: record.partition,
            offset: record.offset,
            user,
        })
    }

    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.user.0.to_le_bytes());
    }

    pub(super) fn read_from(partition: i32, rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            partition,
            offset: i64::from_le_bytes(take(rest)?),
            user: UserId(u64::from_le_bytes(take(rest)?)),
        })
    }
}

/// The newest erasure of each user by partition.
pub(super) fn last_of_each(erasures: &[Erasure]) -> HashMap<(i32, UserId), i64> {
    let mut last = HashMap::new();
    for erasure in erasures {
        let at = last
            .entry((erasure.partition, erasure.user))
            .or_insert(erasure.offset);
        *at = erasure.offset.max(*at);
    }
    last
}
