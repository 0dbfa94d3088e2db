//! Preparation and the global time split.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::live::Interaction;
use crate::served::{Catalogue, CatalogueItem};

/// Users with fewer ratings are dropped first.
const MIN_USER_RATINGS: usize = 5;
/// Then movies with fewer ratings (counted before any dropping).
const MIN_ITEM_RATINGS: usize = 10;

/// One rating as a data set gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawRating {
    /// Public user id.
    pub user: u32,
    /// Public movie id.
    pub item: u32,
    /// Stars, 0.5 to 5.
    pub rating: f32,
    /// Event time, milliseconds.
    pub time_ms: i64,
}

/// A part of the global time split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Segment {
    /// First 70% of the positives.
    Train,
    /// Next 15%: for tuning.
    Validation,
    /// Last 15%: for the final figures alone.
    Test,
}

impl Segment {
    /// As written in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// A prepared data set: dense indices, time order, catalogue, split.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    interactions: Vec<Interaction>,
    catalogue: Catalogue,
    user_ids: Vec<u32>,
    /// Index into `interactions` of the first positive of validation and of test.
    validation_start: usize,
    test_start: usize,
}

impl Dataset {
    /// Filters, orders by time (stable: input order breaks ties) and splits `ratings`. `describe` tells year and
    /// genres by public movie id; a movie it does not list has neither.
    ///
    /// The filter counts on *all* ratings, each count made once: users with fewer than 5 ratings go, then movies
    /// with fewer than 10.
    ///
    /// # Errors
    /// [`Error::Data`] if a rating is not finite or if fewer than three positives remain.
    pub fn prepare(ratings: &[RawRating], describe: &[CatalogueItem]) -> Result<Self, Error> {
        if let Some(bad) = ratings.iter().find(|rating| !rating.rating.is_finite()) {
            return Err(Error::Data(format!(
                "user {} rated movie {} with a number that is not finite",
                bad.user, bad.item
            )));
        }
        let kept_users = at_least(ratings.iter().map(|rating| rating.user), MIN_USER_RATINGS);
        let kept_items = at_least(ratings.iter().map(|rating| rating.item), MIN_ITEM_RATINGS);
        let mut kept: Vec<RawRating> = ratings
            .iter()
            .filter(|rating| kept_users.contains(&rating.user) && kept_items.contains(&rating.item))
            .copied()
            .collect();
        kept.sort_by_key(|rating| rating.time_ms);

        let mut item_ids: Vec<u32> = kept_items.into_iter().collect();
        item_ids.sort_unstable();
        let described: HashMap<u32, CatalogueItem> =
            describe.iter().map(|item| (item.external_id, *item)).collect();
        let catalogue = Catalogue::new(
            item_ids
                .iter()
                .map(|id| {
                    described.get(id).copied().unwrap_or(CatalogueItem {
                        external_id: *id,
                        year: None,
                        genres: 0,
                    })
                })
                .collect(),
        );
        let item_index: HashMap<u32, u32> = item_ids
            .iter()
            .enumerate()
            .map(|(index, id)| (*id, index as u32))
            .collect();
        let mut user_index: HashMap<u32, u32> = HashMap::new();
        let mut user_ids = Vec::new();
        let interactions: Vec<Interaction> = kept
            .iter()
            .map(|rating| Interaction {
                user: *user_index.entry(rating.user).or_insert_with(|| {
                    user_ids.push(rating.user);
                    (user_ids.len() - 1) as u32
                }),
                item: item_index[&rating.item],
                rating: Some(rating.rating),
                weight: 1.0,
                time_ms: rating.time_ms,
            })
            .collect();

        let positives: Vec<usize> = (0..interactions.len())
            .filter(|&at| interactions[at].is_like())
            .collect();
        let (first, second) = (positives.len() * 70 / 100, positives.len() * 85 / 100);
        if first == 0 || first == second || second == positives.len() {
            return Err(Error::Data(format!(
                "{} positives are too few to split",
                positives.len()
            )));
        }
        Ok(Self {
            interactions,
            catalogue,
            user_ids,
            validation_start: positives[first],
            test_start: positives[second],
        })
    }

    /// The same without the test segment's interactions; its range is empty then.
    #[must_use]
    pub fn without_test(mut self) -> Self {
        self.interactions.truncate(self.test_start);
        self
    }

    /// Every interaction, positive or not, in time order.
    #[must_use]
    pub fn interactions(&self) -> &[Interaction] {
        &self.interactions
    }

    /// The movies that passed the filter, ascending by public id.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Public user ids by dense index, in order of first appearance.
    #[must_use]
    pub fn user_ids(&self) -> &[u32] {
        &self.user_ids
    }

    /// Where a segment lies in [`Self::interactions`]. It begins with its first positive.
    #[must_use]
    pub fn range(&self, segment: Segment) -> Range<usize> {
        match segment {
            Segment::Train => 0..self.validation_start,
            Segment::Validation => self.validation_start..self.test_start,
            Segment::Test => self.test_start..self.interactions.len(),
        }
    }
}

fn at_least(ids: impl Iterator<Item = u32>, minimum: usize) -> HashSet<u32> {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts
        .into_iter()
        .filter(|&(_, count)| count >= minimum)
        .map(|(id, _)| id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratings() -> Vec<RawRating> {
        let mut ratings = Vec::new();
        for user in 0..12_u32 {
            for item in 0..6_u32 {
                ratings.push(RawRating {
                    user: user + 1,
                    item: item + 10,
                    rating: if item % 2 == 0 { 5.0 } else { 2.0 },
                    time_ms: i64::from(user * 10 + item),
                });
            }
        }
        // A user below five ratings; with it item 99 has ten ratings, so the item stays.
        ratings.push(RawRating {
            user: 77,
            item: 99,
            rating: 5.0,
            time_ms: 0,
        });
        for user in 0..9_u32 {
            ratings.push(RawRating {
                user: user + 1,
                item: 99,
                rating: 3.0,
                time_ms: 500,
            });
        }
        // An item below ten.
        ratings.push(RawRating {
            user: 1,
            item: 55,
            rating: 5.0,
            time_ms: 501,
        });
        ratings
    }

    #[test]
    fn counts_are_taken_on_all_ratings_and_the_split_is_by_positives() {
        let data = Dataset::prepare(&ratings(), &[]).unwrap();
        assert_eq!(data.catalogue().external_ids(), [10, 11, 12, 13, 14, 15, 99]);
        assert_eq!(data.user_ids().len(), 12);
        let positives = |segment| {
            data.interactions()[data.range(segment)]
                .iter()
                .filter(|event| event.is_like())
                .count()
        };
        // 36 positives: 25 / 5 / 6.
        assert_eq!(
            (
                positives(Segment::Train),
                positives(Segment::Validation),
                positives(Segment::Test)
            ),
            (25, 5, 6)
        );
        assert!(data.interactions()[data.range(Segment::Test).start].is_like());
        assert!(data.interactions().is_sorted_by_key(|event| event.time_ms));
    }

    #[test]
    fn too_little_and_impossible_data_are_refused() {
        assert!(Dataset::prepare(&[], &[]).is_err());
        let mut wild = ratings();
        wild[3].rating = f32::NAN;
        assert!(
            Dataset::prepare(&wild, &[])
                .unwrap_err()
                .to_string()
                .contains("not finite")
        );
    }
}
