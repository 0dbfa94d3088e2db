//! How much happened in the last hour, day, week and month of event time.
//!
//! A window is a ring of buckets, so that it forgets without keeping events: the count over a span is that of the
//! buckets that begin within it, exact to one bucket's width. Buckets are aligned to the epoch; an event falls into the
//! bucket of its own time, in whatever order events come, so that the same events make the same counts. One that is
//! older than the whole ring is no longer counted.

use crate::wire::{Reader, Writer};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Name and length of each window.
pub const ROLLING_SPANS_MS: [(&str, i64); 4] = [
    ("1h", HOUR_MS),
    ("1d", DAY_MS),
    ("7d", 7 * DAY_MS),
    ("30d", 30 * DAY_MS),
];

/// Name, bucket width and number of buckets of each window.
const ROLLING_WINDOWS: [(&str, i64, usize); 4] = [
    ("1h", 5 * MINUTE_MS, 12),
    ("1d", HOUR_MS, 24),
    ("7d", 6 * HOUR_MS, 28),
    ("30d", DAY_MS, 30),
];

/// Counts per bucket, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ring {
    /// Number of the newest bucket since the epoch.
    newest: i64,
    /// Never longer than the ring; trailing zeros are left out.
    counts: Vec<u64>,
}

/// Event counts over the rolling windows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rolling {
    rings: [Ring; ROLLING_WINDOWS.len()],
}

impl Rolling {
    /// Counts an event.
    pub fn add(&mut self, timestamp_ms: i64) {
        for (ring, (_, width_ms, slots)) in self.rings.iter_mut().zip(ROLLING_WINDOWS) {
            ring.add(timestamp_ms.div_euclid(width_ms), slots);
        }
    }

    /// Events by window, as of a moment of event time; what lies after it is not counted.
    pub fn counts(&self, as_of_ms: i64) -> impl Iterator<Item = (&'static str, u64)> {
        self.rings
            .iter()
            .zip(ROLLING_WINDOWS)
            .map(move |(ring, (name, width_ms, slots))| {
                (name, ring.count(as_of_ms.div_euclid(width_ms), slots))
            })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        for ring in &self.rings {
            writer.i64(ring.newest);
            writer.len(ring.counts.len());
            for &count in &ring.counts {
                writer.count(count);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let mut rolling = Self::default();
        for (ring, (_, _, slots)) in rolling.rings.iter_mut().zip(ROLLING_WINDOWS) {
            ring.newest = reader.i64()?;
            let len = reader.len(1)?;
            if len > slots {
                return None;
            }
            ring.counts = (0..len).map(|_| reader.count()).collect::<Option<_>>()?;
        }
        Some(rolling)
    }
}

impl Ring {
    fn add(&mut self, bucket: i64, slots: usize) {
        if self.counts.is_empty() {
            self.newest = bucket;
        }
        let ahead = usize::try_from(bucket.saturating_sub(self.newest)).unwrap_or(0);
        if ahead > 0 {
            self.newest = bucket;
            self.counts.truncate(slots.saturating_sub(ahead));
            let len = self.counts.len();
            self.counts.resize((len + ahead).min(slots), 0);
            let shift = ahead.min(self.counts.len());
            self.counts.rotate_right(shift);
            // Everything was forgotten: zeros are not kept at the end.
            if len == 0 {
                self.counts.clear();
            }
        }
        let Ok(back) = usize::try_from(self.newest - bucket) else {
            return;
        };
        if back >= slots {
            return;
        }
        if self.counts.len() <= back {
            self.counts.resize(back + 1, 0);
        }
        self.counts[back] += 1;
    }

    fn count(&self, bucket: i64, slots: usize) -> u64 {
        (0_i64..)
            .zip(&self.counts)
            .filter(|&(back, _)| {
                let age = bucket - (self.newest - back);
                (0..i64::try_from(slots).unwrap_or(i64::MAX)).contains(&age)
            })
            .map(|(_, count)| count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rolling: &Rolling, as_of_ms: i64) -> Vec<u64> {
        rolling.counts(as_of_ms).map(|(_, count)| count).collect()
    }

    #[test]
    fn each_window_forgets_in_its_own_time() {
        let mut rolling = Rolling::default();
        let begin = 1_000 * DAY_MS;
        for at in [0, 30 * MINUTE_MS, 59 * MINUTE_MS] {
            rolling.add(begin + at);
        }
        assert_eq!(counts(&rolling, begin + 59 * MINUTE_MS), [3, 3, 3, 3]);
        assert_eq!(counts(&rolling, begin + 80 * MINUTE_MS), [2, 3, 3, 3]);
        assert_eq!(counts(&rolling, begin + 2 * HOUR_MS), [0, 3, 3, 3]);
        assert_eq!(counts(&rolling, begin + 2 * DAY_MS), [0, 0, 3, 3]);
        assert_eq!(counts(&rolling, begin + 20 * DAY_MS), [0, 0, 0, 3]);
        assert_eq!(counts(&rolling, begin + 40 * DAY_MS), [0, 0, 0, 0]);
        assert_eq!(
            counts(&rolling, begin - DAY_MS),
            [0, 0, 0, 0],
            "it has not happened yet"
        );
    }

    proptest::proptest! {
        #[test]
        fn counts_are_those_of_a_plain_list_in_any_order(
            mut times in proptest::collection::vec(1_i64..60 * DAY_MS, 0..60),
            as_of in 1_i64..90 * DAY_MS,
        ) {
            let newest = times.iter().copied().max().unwrap_or(1);
            let mut forward = Rolling::default();
            times.iter().for_each(|&at| forward.add(at));
            let as_of = as_of.max(newest);
            for ((name, width, slots), (_, found)) in ROLLING_WINDOWS.into_iter().zip(forward.counts(as_of)) {
                let first = as_of.div_euclid(width) - slots as i64;
                let plain = times.iter().filter(|&&at| at.div_euclid(width) > first).count() as u64;
                proptest::prop_assert_eq!(found, plain, "{}", name);
            }
            times.reverse();
            let mut backward = Rolling::default();
            times.iter().for_each(|&at| backward.add(at));
            proptest::prop_assert_eq!(counts(&backward, as_of), counts(&forward, as_of));

            let mut writer = Writer::default();
            forward.encode(&mut writer);
            proptest::prop_assert_eq!(Rolling::decode(&mut Reader::bare(&writer.0)), Some(forward));
        }
    }
}
