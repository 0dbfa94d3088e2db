//! What all users of a partition together do.

use std::collections::BTreeMap;

use marquee_schemas::{Interaction, Kind};
use serde::Serialize;

use super::Rolling;
use crate::drift::half_stars;
use crate::wire::{Reader, Writer, corrupt, kind_code};

/// Bins of ratings: half a star each, up to five stars.
const RATING_BINS: usize = 10;
const HOURS: usize = 24;
const HOUR_MS: i64 = 3_600_000;

const VERSION: u8 = 1;

/// Histograms over everything applied in one partition, in event time. Sums alone, so the order of events does not
/// matter; who did something is not in it, so that erasing a user leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GlobalState {
    /// By [`kind_code`].
    kinds: [u64; Kind::ALL.len()],
    ratings: [u64; RATING_BINS],
    /// By hour of the day, UTC.
    hours: [u64; HOURS],
    rolling: Rolling,
}

impl GlobalState {
    /// Counts an event.
    pub fn apply(&mut self, event: &Interaction) {
        self.kinds[usize::from(kind_code(event.kind))] += 1;
        let bin = usize::from(half_stars(event.rating));
        if let Some(count) = bin.checked_sub(1).and_then(|bin| self.ratings.get_mut(bin)) {
            *count += 1;
        }
        let hour = event.timestamp.div_euclid(HOUR_MS).rem_euclid(HOURS as i64);
        self.hours[usize::try_from(hour).unwrap_or(0)] += 1;
        self.rolling.add(event.timestamp);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        for counts in [&self.kinds[..], &self.ratings, &self.hours] {
            writer.len(counts.len());
            for &count in counts {
                writer.count(count);
            }
        }
        self.rolling.encode(&mut writer);
        writer.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            Some((VERSION, mut reader)) => Self::read(&mut reader),
            _ => None,
        }
        .ok_or_else(|| corrupt("global"))
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut state = Self::default();
        for counts in [&mut state.kinds[..], &mut state.ratings, &mut state.hours] {
            // A file written before a kind was added has fewer of them.
            let stored = reader.len(1)?;
            for count in counts.get_mut(..stored)? {
                *count = reader.count()?;
            }
        }
        state.rolling = Rolling::decode(reader)?;
        reader.end()?;
        Some(state)
    }
}

/// The histograms over all partitions.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct GlobalSummary {
    /// Events applied, by kind.
    pub events_by_kind: BTreeMap<Kind, u64>,
    /// Ratings by stars.
    pub ratings_by_stars: BTreeMap<String, u64>,
    /// Events by hour of the day, UTC.
    pub events_by_hour: Vec<u64>,
    /// Events in the last hour, day, 7 and 30 days.
    pub windows: BTreeMap<&'static str, u64>,
}

impl GlobalSummary {
    /// Adds partitions up, as of a moment of event time.
    #[must_use]
    pub fn of(parts: &[GlobalState], as_of_ms: i64) -> Self {
        let mut summary = Self {
            events_by_hour: vec![0; HOURS],
            ..Self::default()
        };
        for part in parts {
            for kind in Kind::ALL {
                let count = part.kinds[usize::from(kind_code(kind))];
                if count > 0 {
                    *summary.events_by_kind.entry(kind).or_default() += count;
                }
            }
            for (bin, &count) in part.ratings.iter().enumerate() {
                let stars = format!("{:.1}", (bin + 1) as f64 / 2.0);
                *summary.ratings_by_stars.entry(stars).or_default() += count;
            }
            for (sum, count) in summary.events_by_hour.iter_mut().zip(part.hours) {
                *sum += count;
            }
            for (name, count) in part.rolling.counts(as_of_ms) {
                *summary.windows.entry(name).or_default() += count;
            }
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use marquee_schemas::{MovieId, SchemaVersion, UserId};

    use super::*;

    fn event(kind: Kind, rating: Option<f32>, timestamp: i64) -> Interaction {
        Interaction {
            schema_version: SchemaVersion,
            event_id: "e".into(),
            user_id: UserId(1),
            movie_id: Some(MovieId(1)),
            kind,
            rating,
            genres: vec![],
            timestamp,
            session_id: None,
            request_id: None,
            source: None,
        }
    }

    #[test]
    fn histograms_count_kinds_stars_and_hours_and_add_up_over_partitions() {
        let (mut one, mut other) = (GlobalState::default(), GlobalState::default());
        one.apply(&event(Kind::Rating, Some(3.5), 5 * HOUR_MS));
        one.apply(&event(Kind::Rating, Some(5.0), 29 * HOUR_MS));
        other.apply(&event(Kind::View, None, 28 * HOUR_MS));
        for state in [&one, &other] {
            let bytes = state.encode();
            assert_eq!(GlobalState::decode(&bytes).unwrap(), *state);
            assert!(GlobalState::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        let summary = GlobalSummary::of(&[one, other], 29 * HOUR_MS);
        assert_eq!(
            summary.events_by_kind,
            [(Kind::View, 1), (Kind::Rating, 2)].into()
        );
        assert_eq!(
            (
                summary.ratings_by_stars["3.5"],
                summary.ratings_by_stars["5.0"],
                summary.ratings_by_stars["1.0"]
            ),
            (1, 1, 0)
        );
        assert_eq!((summary.events_by_hour[5], summary.events_by_hour[4]), (2, 1));
        assert_eq!(
            summary.windows,
            [("1h", 1), ("1d", 2), ("7d", 3), ("30d", 3)].into()
        );
    }
}
