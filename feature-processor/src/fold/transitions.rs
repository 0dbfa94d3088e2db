//! What users turn to after a movie, learned event by event.
//!
//! An event of a user's history counts as a transition from the event of the history before it, if it is about another
//! movie and comes within the same session ([`super::SESSION_GAP_MS`]); a late event is the end of no transition and
//! the beginning of none. Counts halve every 30 days of event time.
//!
//! Each movie keeps its [`TRANSITIONS_KEPT`] heaviest followers by the Space-Saving rule (Metwally, Agrawal and El
//! Abbadi 2005): a newcomer to a full row takes the place of the lightest follower and inherits its weight, which is
//! then the most by which the newcomer's weight is too large. A follower with more than the row's total weight divided
//! by its length is therefore never missed.

use std::collections::BTreeMap;

use marquee_schemas::MovieId;
use serde::Serialize;

use super::decay;
use crate::wire::{Reader, Writer, corrupt};

/// Followers kept per movie.
pub const TRANSITIONS_KEPT: usize = 32;

const HALF_LIFE_DAYS: f64 = 30.0;

const VERSION: u8 = 1;

/// One follower.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Transition {
    /// The movie that came next.
    pub movie_id: MovieId,
    /// How often, decayed.
    pub weight: f64,
    /// By how much that may be too large.
    pub error: f64,
}

/// What came after one movie, in one partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TransitionRow {
    /// What the weights are as of, ms.
    as_of_ms: i64,
    /// At most [`TRANSITIONS_KEPT`], in order of arrival.
    followers: Vec<Transition>,
}

impl TransitionRow {
    /// Counts a transition to `next`.
    pub fn add(&mut self, next: MovieId, at_ms: i64) {
        let gap_ms = at_ms - self.as_of_ms;
        if self.followers.is_empty() || gap_ms > 0 {
            let left = decay(gap_ms.max(0), HALF_LIFE_DAYS);
            for follower in &mut self.followers {
                follower.weight *= left;
                follower.error *= left;
            }
            self.as_of_ms = at_ms;
        }
        // Another user's older transition counts as if it had come in time.
        let weight = decay((self.as_of_ms - at_ms).max(0), HALF_LIFE_DAYS);
        if let Some(known) = self.followers.iter_mut().find(|known| known.movie_id == next) {
            known.weight += weight;
            return;
        }
        if self.followers.len() < TRANSITIONS_KEPT {
            self.followers.push(Transition {
                movie_id: next,
                weight,
                error: 0.0,
            });
            return;
        }
        // The first of the lightest, so that the outcome follows from the log.
        if let Some(lightest) = self
            .followers
            .iter_mut()
            .min_by(|a, b| a.weight.total_cmp(&b.weight))
        {
            *lightest = Transition {
                movie_id: next,
                weight: lightest.weight + weight,
                error: lightest.weight,
            };
        }
    }

    /// The followers as of a moment of event time.
    pub fn followers(&self, as_of_ms: i64) -> impl Iterator<Item = Transition> {
        let left = decay((as_of_ms - self.as_of_ms).max(0), HALF_LIFE_DAYS);
        self.followers.iter().map(move |follower| Transition {
            weight: follower.weight * left,
            error: follower.error * left,
            ..*follower
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.i64(self.as_of_ms);
        writer.len(self.followers.len());
        for follower in &self.followers {
            writer.count(u64::from(follower.movie_id.0));
            writer.f64(follower.weight);
            writer.f64(follower.error);
        }
        writer.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            Some((VERSION, mut reader)) => Self::read(&mut reader),
            _ => None,
        }
        .ok_or_else(|| corrupt("transitions"))
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let as_of_ms = reader.i64()?;
        let len = reader.len(17)?;
        if len > TRANSITIONS_KEPT {
            return None;
        }
        let followers = (0..len)
            .map(|_| {
                Some(Transition {
                    movie_id: MovieId(u32::try_from(reader.count()?).ok()?),
                    weight: reader.f64()?,
                    error: reader.f64()?,
                })
            })
            .collect::<Option<_>>()?;
        reader.end()?;
        Some(Self { as_of_ms, followers })
    }
}

/// The followers over all partitions, heaviest first.
pub fn follow<'a>(rows: impl Iterator<Item = &'a TransitionRow>, as_of_ms: i64) -> Vec<Transition> {
    let mut sums: BTreeMap<MovieId, (f64, f64)> = BTreeMap::new();
    for follower in rows.flat_map(|row| row.followers(as_of_ms)) {
        let sum = sums.entry(follower.movie_id).or_default();
        sum.0 += follower.weight;
        sum.1 += follower.error;
    }
    let mut all: Vec<Transition> = sums
        .into_iter()
        .map(|(movie_id, (weight, error))| Transition {
            movie_id,
            weight,
            error,
        })
        .collect();
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn weights(row: &TransitionRow, as_of_ms: i64) -> BTreeMap<u32, f64> {
        row.followers(as_of_ms)
            .map(|follower| (follower.movie_id.0, follower.weight))
            .collect()
    }

    #[test]
    fn counts_halve_in_thirty_days_in_whatever_order_users_come() {
        let (mut row, mut swapped) = (TransitionRow::default(), TransitionRow::default());
        row.add(MovieId(1), DAY_MS);
        row.add(MovieId(2), 31 * DAY_MS);
        swapped.add(MovieId(2), 31 * DAY_MS);
        swapped.add(MovieId(1), DAY_MS);
        assert_eq!(weights(&row, 31 * DAY_MS), [(1, 0.5), (2, 1.0)].into());
        assert_eq!(weights(&swapped, 31 * DAY_MS), weights(&row, 31 * DAY_MS));
        assert_eq!(weights(&row, 61 * DAY_MS), [(1, 0.25), (2, 0.5)].into());
        let bytes = row.encode();
        assert_eq!(TransitionRow::decode(&bytes).unwrap(), row);
        for end in 0..bytes.len() {
            assert!(TransitionRow::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn a_full_row_keeps_whoever_is_frequent_and_says_how_far_it_may_be_wrong() {
        let mut row = TransitionRow::default();
        // Movie 7 takes every fifth transition, the others one each.
        for n in 0..1_000_u32 {
            let next = if n.is_multiple_of(5) { 7 } else { 1_000 + n };
            row.add(MovieId(next), DAY_MS);
        }
        assert_eq!(row.followers.len(), TRANSITIONS_KEPT);
        let best = follow([&row].into_iter(), DAY_MS)[0];
        assert_eq!(best.movie_id, MovieId(7));
        assert!(
            best.weight - best.error <= 200.0 && 200.0 <= best.weight,
            "{best:?}"
        );
        // The rule's bound: an error is at most the total weight divided by the row's length.
        let bound = 1_000.0 / TRANSITIONS_KEPT as f64;
        assert!(row.followers(DAY_MS).all(|follower| follower.error <= bound));
        let total: f64 = row.followers(DAY_MS).map(|follower| follower.weight).sum();
        assert_eq!(total, 1_000.0, "weights are handed on, not lost");
    }
}
