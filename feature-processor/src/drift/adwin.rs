//! Concept drift: whether a mean has changed at a moment nobody named.
//!
//! ADWIN2 of Bifet and Gavaldà ("Learning from time-changing data with adaptive windowing", SDM 2007): a window that
//! grows while nothing changes and drops its older part once the two parts' means differ by more than chance allows.
//! Values come in groups (a metric over so many observations), so that a bucket begins with a group's weight instead of 1.

use crate::wire::{Reader, Writer};

/// Buckets of one level; one more merges the two oldest.
const PER_LEVEL: usize = 5;

/// The chance of a false cut.
const DELTA: f64 = 0.002;

/// Levels beyond which buckets are merged no further and the oldest go.
const MAX_LEVEL: u8 = 40;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    level: u8,
    weight: f64,
    mean: f64,
    /// Sum of squared deviations from the mean.
    spread: f64,
}

impl Bucket {
    /// Both together (Chan, Golub and LeVeque, 1979).
    fn with(self, other: Self) -> Self {
        let weight = self.weight + other.weight;
        let gap = other.mean - self.mean;
        Self {
            level: self.level,
            weight,
            mean: self.mean + gap * other.weight / weight,
            spread: self.spread + other.spread + gap * gap * self.weight * other.weight / weight,
        }
    }
}

/// A mean that has moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Before the cut.
    pub before: f64,
    /// After it.
    pub after: f64,
    /// Observations before and after.
    pub weights: (f64, f64),
    /// The difference that chance alone would not have made.
    pub bound: f64,
}

/// An adaptive window over values between 0 and 1. Holds O(log n) buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adwin {
    /// Oldest first; levels never rise.
    buckets: Vec<Bucket>,
}

impl Adwin {
    /// Adds a group of `weight` observations of mean `mean`. If the mean has moved, the older part is forgotten and
    /// the change returned. A group without weight or with a mean outside [0, 1] is passed over.
    pub fn add(&mut self, mean: f64, weight: f64) -> Option<Change> {
        if !(weight > 0.0 && weight.is_finite() && (0.0..=1.0).contains(&mean)) {
            return None;
        }
        self.buckets.push(Bucket {
            level: 0,
            weight,
            mean,
            spread: weight * mean * (1.0 - mean),
        });
        self.compress();
        let mut first = None;
        while let Some((at, change)) = self.cut() {
            self.buckets.drain(..at);
            first.get_or_insert(change);
        }
        first
    }

    fn compress(&mut self) {
        for level in 0..MAX_LEVEL {
            let mut of_level = self
                .buckets
                .iter()
                .enumerate()
                .filter(|(_, bucket)| bucket.level == level)
                .map(|(at, _)| at);
            let Some(oldest) = of_level.next() else { return };
            if of_level.count() < PER_LEVEL {
                return;
            }
            let second = self.buckets.remove(oldest + 1);
            let mut both = self.buckets[oldest].with(second);
            both.level = level + 1;
            self.buckets[oldest] = both;
        }
        if self
            .buckets
            .iter()
            .filter(|bucket| bucket.level == MAX_LEVEL)
            .count()
            > PER_LEVEL
        {
            self.buckets.remove(0);
        }
    }

    /// The earliest boundary at which the two sides differ.
    fn cut(&self) -> Option<(usize, Change)> {
        let all = self.buckets.iter().copied().reduce(Bucket::with)?;
        let variance = all.spread / all.weight;
        let confidence = (2.0 * all.weight.ln().max(1.0) / DELTA).ln();
        let mut before = *self.buckets.first()?;
        for at in 1..self.buckets.len() {
            let after = self.buckets[at..].iter().copied().reduce(Bucket::with)?;
            let harmonic = 1.0 / (1.0 / before.weight + 1.0 / after.weight);
            let bound = (2.0 / harmonic * variance * confidence).sqrt() + 2.0 / (3.0 * harmonic) * confidence;
            if (before.mean - after.mean).abs() > bound {
                let change = Change {
                    before: before.mean,
                    after: after.mean,
                    weights: (before.weight, after.weight),
                    bound,
                };
                return Some((at, change));
            }
            before = before.with(self.buckets[at]);
        }
        None
    }

    /// The mean of what the window holds.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        Some(self.buckets.iter().copied().reduce(Bucket::with)?.mean)
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.len(self.buckets.len());
        for bucket in &self.buckets {
            writer.u8(bucket.level);
            for value in [bucket.weight, bucket.mean, bucket.spread] {
                writer.f64(value);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let buckets = (0..reader.len(25)?)
            .map(|_| {
                Some(Bucket {
                    level: reader.u8()?,
                    weight: reader.f64()?,
                    mean: reader.f64()?,
                    spread: reader.f64()?,
                })
            })
            .collect::<Option<_>>()?;
        Some(Self { buckets })
    }
}

/// How many independent yes-or-no observations an interval of 95% stands for: fewer than were made where they come in
/// clusters, as those of one user do.
#[must_use]
pub fn effective_observations(value: f64, interval: Option<(f64, f64)>, observations: u64) -> f64 {
    let stated = observations as f64;
    let Some((lo, hi)) = interval else {
        return stated;
    };
    let error = (hi - lo) / (2.0 * 1.96);
    let variance = value * (1.0 - value);
    if error > 0.0 && variance > 0.0 {
        (variance / (error * error)).min(stated)
    } else {
        stated
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn group(rng: &mut ChaCha8Rng, rate: f64, size: u32) -> f64 {
        let hits = (0..size)
            .filter(|_| ((rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64) < rate)
            .count();
        hits as f64 / f64::from(size)
    }

    #[test]
    fn a_steady_rate_is_left_alone_and_a_fall_is_found_with_its_sides() {
        let (mut false_cuts, mut found) = (0, 0);
        for seed in 0..50 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut adwin = Adwin::default();
            for _ in 0..100 {
                false_cuts += u32::from(adwin.add(group(&mut rng, 0.2, 200), 200.0).is_some());
            }
            assert!(adwin.buckets.len() < 40, "{}", adwin.buckets.len());
            let changes: Vec<Change> = (0..40)
                .filter_map(|_| adwin.add(group(&mut rng, 0.12, 200), 200.0))
                .collect();
            found += u32::from(!changes.is_empty());
            assert!(
                changes.iter().all(|change| change.after < change.before),
                "{changes:?}"
            );
            assert!(adwin.mean().is_some_and(|mean| mean < 0.14), "{:?}", adwin.mean());
        }
        assert_eq!((false_cuts, found), (0, 50));
    }

    #[test]
    fn nonsense_is_passed_over_and_bytes_read_back() {
        let mut adwin = Adwin::default();
        for (mean, weight) in [(f64::NAN, 5.0), (2.0, 5.0), (0.5, 0.0), (0.5, f64::INFINITY)] {
            assert_eq!(adwin.add(mean, weight), None);
        }
        assert_eq!(adwin.mean(), None);
        for n in 0..30 {
            adwin.add(f64::from(n % 4) / 10.0, 3.0);
        }
        let mut writer = Writer::default();
        adwin.encode(&mut writer);
        assert_eq!(Adwin::decode(&mut Reader::bare(&writer.0)), Some(adwin));
    }

    #[test]
    fn a_wide_interval_stands_for_fewer_observations() {
        assert_eq!(effective_observations(0.5, None, 100), 100.0);
        let clustered = effective_observations(0.5, Some((0.3, 0.7)), 100);
        assert!((clustered - 24.01).abs() < 0.01, "{clustered}");
    }
}
