//! What a partition's interactions say about a movie.

use std::collections::BTreeMap;

use marquee_schemas::{Interaction, MovieFeatures, MovieId, SchemaVersion};
use serde::Serialize;

use super::{Rolling, decay};
use crate::wire::{Reader, Writer, corrupt};

/// Half-lives of the decayed popularity, days of event time.
pub const POPULARITY_HALF_LIVES_DAYS: [u16; 3] = [1, 7, 30];

/// Version of the stored bytes. A new layout gets a new number and [`MovieState::decode`] an arm that reads the old.
const VERSION: u8 = 2;

/// Aggregates of a movie over one partition, in event time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MovieState {
    count: u64,
    rating_sum: f64,
    rating_count: u64,
    /// As of `last_seen_ms`, one per half-life.
    popularity: [f64; 3],
    first_seen_ms: i64,
    last_seen_ms: i64,
    rolling: Rolling,
}

impl MovieState {
    /// Folds one event that is history ([`marquee_schemas::Kind::is_history`]) into the state: each adds 1 to the
    /// popularity, whatever it says.
    pub fn apply(&mut self, event: &Interaction) {
        if self.count == 0 {
            self.first_seen_ms = event.timestamp;
            self.last_seen_ms = event.timestamp;
        }
        let gap_ms = event.timestamp - self.last_seen_ms;
        for (sum, half_life) in self.popularity.iter_mut().zip(POPULARITY_HALF_LIVES_DAYS) {
            let left = decay(gap_ms.abs(), f64::from(half_life));
            *sum = if gap_ms >= 0 {
                *sum * left + 1.0
            } else {
                *sum + left
            };
        }
        self.rolling.add(event.timestamp);
        self.count += 1;
        if let Some(stars) = event.rating {
            self.rating_sum += f64::from(stars);
            self.rating_count += 1;
        }
        self.first_seen_ms = self.first_seen_ms.min(event.timestamp);
        self.last_seen_ms = self.last_seen_ms.max(event.timestamp);
    }

    /// The record of the changelog.
    #[must_use]
    pub fn features(&self, movie_id: MovieId) -> MovieFeatures {
        let popularity: BTreeMap<String, f64> = POPULARITY_HALF_LIVES_DAYS
            .iter()
            .zip(self.popularity)
            .map(|(half_life, sum)| (half_life.to_string(), sum))
            .collect();
        MovieFeatures {
            schema_version: SchemaVersion,
            movie_id,
            count: self.count,
            rating_sum: self.rating_sum,
            rating_count: self.rating_count,
            popularity,
            first_seen_ms: self.first_seen_ms,
            last_seen_ms: self.last_seen_ms,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.count(self.count);
        writer.f64(self.rating_sum);
        writer.count(self.rating_count);
        for sum in self.popularity {
            writer.f64(sum);
        }
        writer.i64(self.first_seen_ms);
        writer.i64(self.last_seen_ms);
        self.rolling.encode(&mut writer);
        writer.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            // Version 1 had no rolling windows.
            Some((version @ 1..=VERSION, mut reader)) => Self::read(&mut reader, version > 1),
            _ => None,
        }
        .ok_or_else(|| corrupt("movie"))
    }

    fn read(reader: &mut Reader<'_>, rolling: bool) -> Option<Self> {
        let state = Self {
            count: reader.count()?,
            rating_sum: reader.f64()?,
            rating_count: reader.count()?,
            popularity: [reader.f64()?, reader.f64()?, reader.f64()?],
            first_seen_ms: reader.i64()?,
            last_seen_ms: reader.i64()?,
            rolling: if rolling {
                Rolling::decode(reader)?
            } else {
                Rolling::default()
            },
        };
        reader.end()?;
        Some(state)
    }
}

/// A movie over all partitions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MovieSummary {
    /// Interactions that are history.
    pub count: u64,
    /// Number of ratings.
    pub rating_count: u64,
    /// Mean stars; null without a rating.
    pub mean_rating: Option<f64>,
    /// Decayed popularity by half-life in days.
    pub popularity: BTreeMap<u16, f64>,
    /// Interactions in the last hour, day, 7 and 30 days.
    pub windows: BTreeMap<&'static str, u64>,
    /// First event time, ms.
    pub first_seen_ms: i64,
    /// Newest event time, ms.
    pub last_seen_ms: i64,
}

/// Adds partitions up, as of a moment of event time.
pub fn summarise<'a>(parts: impl Iterator<Item = &'a MovieState> + Clone, as_of_ms: i64) -> MovieSummary {
    let rating_count = parts.clone().map(|part| part.rating_count).sum();
    let stars: f64 = parts.clone().map(|part| part.rating_sum).sum();
    let mut popularity = BTreeMap::new();
    let mut windows = BTreeMap::new();
    for part in parts.clone() {
        for (sum, half_life) in part.popularity.iter().zip(POPULARITY_HALF_LIVES_DAYS) {
            let gap_ms = (as_of_ms - part.last_seen_ms).max(0);
            *popularity.entry(half_life).or_default() += sum * decay(gap_ms, f64::from(half_life));
        }
        for (name, count) in part.rolling.counts(as_of_ms) {
            *windows.entry(name).or_default() += count;
        }
    }
    MovieSummary {
        count: parts.clone().map(|part| part.count).sum(),
        rating_count,
        mean_rating: (rating_count > 0).then(|| stars / rating_count as f64),
        popularity,
        windows,
        first_seen_ms: parts.clone().map(|part| part.first_seen_ms).min().unwrap_or(0),
        last_seen_ms: parts.map(|part| part.last_seen_ms).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use marquee_schemas::{Kind, UserId};

    use super::*;

    const DAY: i64 = 86_400_000;

    fn rating(stars: f32, timestamp: i64) -> Interaction {
        Interaction {
            schema_version: SchemaVersion,
            event_id: "e".into(),
            user_id: UserId(1),
            movie_id: Some(MovieId(1)),
            kind: Kind::Rating,
            rating: Some(stars),
            genres: vec![],
            timestamp,
            session_id: None,
            request_id: None,
            source: None,
        }
    }

    #[test]
    fn popularity_halves_every_half_life() {
        let mut movie = MovieState::default();
        movie.apply(&rating(4.0, DAY));
        movie.apply(&rating(2.0, 8 * DAY));
        let features = movie.features(MovieId(1));
        assert_eq!(features.popularity["7"], 1.5);
        assert_eq!(features.popularity["1"], 1.0 + 1.0 / 128.0);
        assert_eq!(
            (features.count, features.rating_count, features.rating_sum),
            (2, 2, 6.0)
        );
        assert_eq!((features.first_seen_ms, features.last_seen_ms), (DAY, 8 * DAY));
    }

    #[test]
    fn partitions_add_up_as_of_a_common_moment() {
        let (mut one, mut other) = (MovieState::default(), MovieState::default());
        one.apply(&rating(4.0, DAY));
        other.apply(&rating(1.0, 8 * DAY));
        let summary = summarise([&one, &other].into_iter(), 8 * DAY);
        assert_eq!((summary.count, summary.mean_rating), (2, Some(2.5)));
        assert_eq!(summary.popularity[&7], 1.5);
        assert_eq!((summary.windows["7d"], summary.windows["30d"]), (1, 2));
        assert_eq!((summary.first_seen_ms, summary.last_seen_ms), (DAY, 8 * DAY));
    }

    #[test]
    fn a_state_of_the_first_version_is_read() {
        let mut movie = MovieState::default();
        movie.apply(&rating(3.5, 77));
        let mut empty = Writer::default();
        Rolling::default().encode(&mut empty);
        movie.rolling = Rolling::default();
        let bytes = movie.encode();
        let old = [&[1], &bytes[1..bytes.len() - empty.0.len()]].concat();
        assert_eq!(MovieState::decode(&old).unwrap(), movie);
    }

    #[test]
    fn a_late_event_is_discounted_as_if_it_had_come_in_time() {
        let (mut in_order, mut late) = (MovieState::default(), MovieState::default());
        for event in [rating(4.0, DAY), rating(2.0, 8 * DAY)] {
            in_order.apply(&event);
        }
        for event in [rating(2.0, 8 * DAY), rating(4.0, DAY)] {
            late.apply(&event);
        }
        assert_eq!(in_order, late);
    }

    #[test]
    fn stored_bytes_read_back_and_anything_else_is_refused() {
        let mut movie = MovieState::default();
        movie.apply(&rating(3.5, 77));
        let bytes = movie.encode();
        assert_eq!(MovieState::decode(&bytes).unwrap(), movie);
        assert!(MovieState::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(MovieState::decode(&[&[3], &bytes[1..]].concat()).is_err());
        assert!(MovieState::decode(&[]).is_err());
    }
}
