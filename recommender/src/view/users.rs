//! Histories as the feature store publishes them, by (user, partition).
//!
//! They are kept beside the live state because it holds only what scoring needs: a fold with other settings, and the
//! erasure of one partition's share, start from here.

use std::collections::HashMap;

use marquee_models::live::Interaction;
use marquee_schemas::{HISTORY_CHUNK_LEN, HistoryChunk, HistoryEntry, Kind, MovieId, UserFeatures, UserId};
use marquee_trainer::signal;
use serde::{Deserialize, Serialize};

use super::ahead::{Ahead, MAX_AHEAD};

/// One act in a history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Dense movie index.
    pub item: u32,
    /// What was done.
    pub kind: Kind,
    /// Stars, for ratings.
    pub rating: Option<f32>,
    /// Event time, ms.
    pub time_ms: i64,
}

impl Entry {
    pub(super) fn of(entry: &HistoryEntry, item: u32) -> Self {
        Self {
            item,
            kind: entry.kind,
            rating: entry.rating,
            time_ms: entry.timestamp,
        }
    }

    /// The entry as the live state takes it; the weight is the kind's, [`signal::weight`], as in training.
    #[must_use]
    pub fn interaction(&self, user: u32) -> Interaction {
        Interaction {
            user,
            item: self.item,
            rating: self.rating,
            // Kinds without a weight are no history and do not come here.
            weight: signal::weight(self.kind).unwrap_or(0.0),
            time_ms: self.time_ms,
        }
    }
}

/// What one partition of the changelog knows of a user. More than one partition knows a user only when producers
/// disagree on the partitioner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The partition.
    pub partition: i32,
    /// Interactions applied: the partition's share of the feature version.
    pub seq: u64,
    /// Genres chosen while signing up.
    pub preferred: Vec<String>,
    /// Movies on the watchlist.
    pub watchlist: Vec<MovieId>,
    /// History entries in the order they were applied.
    pub entries: Vec<Entry>,
    /// Events that the feature store has not published yet, by offset.
    pub ahead: Vec<Ahead>,
    /// Offset of the newest event that the feature store has applied.
    source_offset: i64,
    /// Length of the history as of `source_offset`.
    described_len: u64,
    /// Position in the history after the newest entry; larger than the number of entries where some are missing.
    next: u64,
    /// Offset of the erasure after which this part began.
    epoch: Option<i64>,
}

/// One user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRow {
    /// The public id.
    pub id: UserId,
    /// By partition, ascending.
    pub parts: Vec<Part>,
}

impl Part {
    fn new(partition: i32) -> Self {
        Self {
            partition,
            seq: 0,
            preferred: Vec::new(),
            watchlist: Vec::new(),
            entries: Vec::new(),
            ahead: Vec::new(),
            source_offset: -1,
            described_len: 0,
            next: 0,
            epoch: None,
        }
    }

    /// Takes the first event ahead that adds `entry`; whether there was one.
    fn confirm(&mut self, entry: &Entry) -> bool {
        let place = self
            .ahead
            .iter()
            .position(|ahead| ahead.entry.as_ref() == Some(entry));
        if let Some(place) = place {
            self.ahead.remove(place);
        }
        place.is_some()
    }

    /// Whether the feature store has said anything of this part.
    fn is_published(&self) -> bool {
        self.source_offset >= 0 || self.next > 0
    }

    /// Drops events ahead that the feature store has passed. Those of the history wait for its chunks, which follow
    /// the description that names the offset.
    fn drop_passed(&mut self) -> usize {
        let complete = self.next >= self.described_len;
        let source_offset = self.source_offset;
        let mut refused = 0;
        self.ahead.retain(|ahead| {
            let passed = ahead.offset <= source_offset && (complete || ahead.entry.is_none());
            refused += usize::from(passed && ahead.entry.is_some());
            !passed
        });
        refused
    }

    /// What is in the history, those ahead last.
    pub fn acts(&self) -> impl Iterator<Item = &Entry> {
        let ahead = self.ahead.iter().filter_map(|ahead| ahead.entry.as_ref());
        self.entries.iter().chain(ahead)
    }

    /// Interactions of this partition that lists rest on. Of those that the feature store has not published yet, the ones
    /// up to the last that is in the history: what comes after it shows with its publication only. What comes before it
    /// counts, because a version names a place in the order of the user's events.
    fn version(&self) -> u64 {
        let published = self
            .ahead
            .partition_point(|ahead| ahead.offset <= self.source_offset);
        let shown = self.ahead[published..]
            .iter()
            .rposition(|ahead| ahead.entry.is_some());
        self.seq + shown.map_or(0, |place| place as u64 + 1)
    }
}

impl UserRow {
    /// The user's feature version: interactions that lists rest on, over all partitions. An event that has yet to be
    /// published and adds nothing to the history, a preference for example, does not raise it before.
    #[must_use]
    pub fn feature_version(&self) -> u64 {
        self.parts.iter().map(Part::version).sum()
    }

    /// Movies on the watchlist, by partition.
    pub fn watchlist(&self) -> impl Iterator<Item = MovieId> {
        self.parts.iter().flat_map(|part| part.watchlist.iter().copied())
    }

    /// Genres chosen while signing up.
    pub fn preferred(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().flat_map(|part| &part.preferred)
    }
}

/// What a removal left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    /// Dense index the user has or had.
    pub(super) index: u32,
    /// Whether other partitions still know the user.
    pub(super) others_remain: bool,
}

/// What a record finds of a user.
#[derive(Debug, Default)]
pub(super) struct Entered {
    /// What an erasure left, where the record is the first that tells of it.
    pub(super) gone: Option<Gone>,
    /// Events after that erasure, which stood ahead and still do.
    pub(super) ahead: Vec<Entry>,
}

/// All users. Indices are dense, append-only, and those of the live state; a user who returns after an erasure gets
/// a new one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Users {
    /// Follows from the rows; see [`Users::index`].
    #[serde(skip)]
    index: HashMap<UserId, u32>,
    rows: Vec<UserRow>,
    #[serde(skip)]
    missing_entries: u64,
    #[serde(skip)]
    taken_back: u64,
}

impl Users {
    /// A user by public id, with the dense index.
    #[must_use]
    pub fn find(&self, id: UserId) -> Option<(u32, &UserRow)> {
        let index = *self.index.get(&id)?;
        Some((index, self.rows.get(index as usize)?))
    }

    /// Number of users known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Dense indices of users known now, in no order.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        self.index.values().copied()
    }

    /// History entries that the changelog should hold and does not; not zero only after a loss upstream.
    #[must_use]
    pub fn missing_entries(&self) -> u64 {
        self.missing_entries
    }

    /// Events that stood ahead and that the feature store then did not apply.
    #[must_use]
    pub fn taken_back(&self) -> u64 {
        self.taken_back
    }

    /// Makes the way from public ids to rows anew: a row without parts is one whose user is gone.
    pub(super) fn index(&mut self) {
        let known = (0_u32..).zip(&self.rows).filter(|(_, row)| !row.parts.is_empty());
        self.index = known.map(|(index, row)| (row.id, index)).collect();
    }

    fn part(&self, id: UserId, partition: i32) -> Option<&Part> {
        let (_, row) = self.find(id)?;
        row.parts.iter().find(|part| part.partition == partition)
    }

    fn part_mut(&mut self, id: UserId, partition: i32) -> (u32, &mut Part) {
        let next = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let index = *self.index.entry(id).or_insert(next);
        if index == next {
            self.rows.push(UserRow {
                id,
                parts: Vec::with_capacity(1),
            });
        }
        let parts = &mut self.rows[index as usize].parts;
        let place = match parts.binary_search_by_key(&partition, |part| part.partition) {
            Ok(place) => place,
            Err(place) => {
                parts.insert(place, Part::new(partition));
                place
            }
        };
        (index, &mut parts[place])
    }

    /// Puts an event ahead of the user's history; returns the user's index, and `None` if the feature store has
    /// already passed it or too many stand ahead.
    pub(super) fn anticipate(
        &mut self,
        partition: i32,
        user: UserId,
        offset: i64,
        entry: Option<Entry>,
    ) -> Option<u32> {
        let (index, part) = self.part_mut(user, partition);
        let passed = part.source_offset.max(part.epoch.unwrap_or(-1));
        let newest = part.ahead.last().map_or(passed, |ahead| ahead.offset);
        if offset <= newest.max(passed) || part.ahead.len() >= MAX_AHEAD {
            return None;
        }
        part.ahead.push(Ahead { offset, entry });
        Some(index)
    }

    /// Makes way for a record of this epoch: a larger one than is known removes what was erased in between, as a
    /// tombstone does, since none may have been published. `None` for a record that was itself erased since.
    pub(super) fn enter(&mut self, partition: i32, id: UserId, epoch: Option<i64>) -> Option<Entered> {
        let (_, part) = self.part_mut(id, partition);
        if part.epoch >= epoch {
            return (part.epoch == epoch).then(Entered::default);
        }
        let all = part.ahead.len();
        let mut ahead = std::mem::take(&mut part.ahead);
        ahead.retain(|ahead| Some(ahead.offset) > epoch);
        let holds_older = part.is_published() || ahead.len() < all;
        let mut entered = Entered::default();
        if holds_older {
            entered.gone = self.remove(partition, id);
            entered.ahead = ahead.iter().filter_map(|ahead| ahead.entry).collect();
        }
        let (_, part) = self.part_mut(id, partition);
        part.epoch = epoch;
        part.ahead = ahead;
        Some(entered)
    }

    /// Takes an erasure that the feature store has not followed yet; `None` where it says nothing new.
    pub(super) fn erase(&mut self, partition: i32, id: UserId, offset: i64) -> Option<Entered> {
        let was_published = self.part(id, partition)?.is_published();
        let entered = self.enter(partition, id, Some(offset))?;
        // Otherwise the epoch is kept for what the changelog still says, until its tombstone.
        if !was_published && self.part(id, partition)?.ahead.is_empty() {
            self.remove(partition, id);
        }
        Some(entered)
    }

    /// Appends what is new in a chunk; returns the user's index and the new entries, without those that stood ahead.
    /// A chunk that is older than what is known brings nothing.
    pub(super) fn append(
        &mut self,
        partition: i32,
        chunk: &HistoryChunk,
        mut item_of: impl FnMut(MovieId) -> u32,
    ) -> (u32, Vec<Entry>) {
        let (index, part) = self.part_mut(chunk.user_id, partition);
        let start = u64::from(chunk.chunk) * HISTORY_CHUNK_LEN;
        let missing = start.saturating_sub(part.next);
        let known = usize::try_from(part.next.saturating_sub(start)).unwrap_or(usize::MAX);
        let fresh: Vec<Entry> = chunk
            .entries
            .iter()
            .skip(known)
            .map(|entry| Entry::of(entry, item_of(entry.movie_id)))
            .collect();
        part.entries.extend_from_slice(&fresh);
        let fresh: Vec<Entry> = fresh.into_iter().filter(|entry| !part.confirm(entry)).collect();
        part.next = part.next.max(start + chunk.entries.len() as u64);
        part.seq = part.seq.max(chunk.seq);
        let refused = part.drop_passed();
        self.taken_back += refused as u64;
        if missing > 0 {
            self.missing_entries += missing;
            tracing::warn!(
                kafka.partition = partition,
                missing,
                "a history has a gap in the changelog"
            );
        }
        (index, fresh)
    }

    /// Takes over a user's aggregates; returns the user's index.
    pub(super) fn describe(&mut self, partition: i32, features: &UserFeatures) -> u32 {
        let (index, part) = self.part_mut(features.user_id, partition);
        // A process that was given up for lost may publish once more, behind its successor.
        if features.source_offset < part.source_offset {
            return index;
        }
        part.seq = part.seq.max(features.seq);
        part.preferred.clone_from(&features.preferred_genres);
        part.watchlist.clone_from(&features.watchlist);
        part.source_offset = part.source_offset.max(features.source_offset);
        part.described_len = part.described_len.max(features.history_len);
        let refused = part.drop_passed();
        self.taken_back += refused as u64;
        index
    }

    /// Removes the partition's share if the chunk is of it. A history that never came to the chunk began after the
    /// erasure that the chunk's tombstone is about.
    pub(super) fn remove_chunk(&mut self, partition: i32, id: UserId, chunk: u32) -> Option<Gone> {
        if self.part(id, partition)?.next > u64::from(chunk) * HISTORY_CHUNK_LEN {
            self.remove(partition, id)
        } else {
            None
        }
    }

    /// Removes the partition's share, except for events that stand ahead since an erasure was read: the tombstone is
    /// that erasure's, and what is published next comes after it.
    pub(super) fn remove_published(&mut self, partition: i32, id: UserId) -> Option<Gone> {
        let part = self.part(id, partition)?;
        if part.is_published() || part.epoch.is_none() || part.ahead.is_empty() {
            return self.remove(partition, id);
        }
        self.part_mut(id, partition).1.epoch = None;
        None
    }

    pub(super) fn remove(&mut self, partition: i32, id: UserId) -> Option<Gone> {
        let index = *self.index.get(&id)?;
        let row = self.rows.get_mut(index as usize)?;
        let before = row.parts.len();
        row.parts.retain(|part| part.partition != partition);
        if row.parts.len() == before {
            return None;
        }
        let others_remain = !row.parts.is_empty();
        if !others_remain {
            self.index.remove(&id);
        }
        Some(Gone { index, others_remain })
    }

    /// Every kept entry with its user's index, by (event time, partition, user, position); those ahead come after the
    /// others.
    pub(super) fn in_time_order(&self) -> Vec<(u32, Entry)> {
        let mut all = Vec::new();
        for (user, row) in self.rows.iter().enumerate() {
            for part in &row.parts {
                for (position, entry) in part.acts().enumerate() {
                    all.push((
                        (entry.time_ms, part.partition, row.id, position),
                        user as u32,
                        *entry,
                    ));
                }
            }
        }
        all.sort_unstable_by_key(|(order, ..)| *order);
        all.into_iter().map(|(_, user, entry)| (user, entry)).collect()
    }
}
