//! One decayed number per item, and what is known of all of them together.

use serde::{Deserialize, Serialize};

use super::decay::EventWeight;

/// Largest numbers whose items are known without looking at every item.
const LEADERS: usize = 512;

/// Decayed sums by item, in forward-decayed units (see [`super::decay`]).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    values: Vec<f64>,
    total: f64,
    squares: f64,
    /// The items of the [`LEADERS`] largest sums, and up to as many others, in no order.
    leaders: Vec<u32>,
    /// The least of the leaders, sum and item, as of their last selection: whoever is not behind it is among them.
    /// `None` while every item with a sum is.
    bar: Option<(f64, u32)>,
}

impl Sums {
    pub(super) fn grow(&mut self, items: usize) {
        self.values.resize(items, 0.0);
    }

    /// The sums by item.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Over all items.
    pub(crate) fn total(&self) -> f64 {
        self.total
    }

    /// Items of which those of the [`LEADERS`] largest sums are some, in no order.
    pub(crate) fn leaders(&self) -> &[u32] {
        &self.leaders
    }

    /// Mean and variance of the sums times `factor` over `items` items.
    pub(crate) fn moments(&self, items: usize, factor: f64) -> (f32, f32) {
        let count = items.max(1) as f64;
        let mean = self.total * factor / count;
        let variance = self.squares * factor * factor / count - mean * mean;
        (mean as f32, variance.max(0.0) as f32)
    }

    /// Adds an event to the sum of an item, or nothing but its change of scale.
    pub(super) fn add(&mut self, item: u32, weight: EventWeight, counts: bool) {
        if let Some(scale) = weight.rescale {
            self.rescale(scale);
        }
        let Some(value) = self.values.get_mut(item as usize).filter(|_| counts) else {
            return;
        };
        let before = *value;
        *value += weight.weight;
        let after = *value;
        self.total += weight.weight;
        self.squares += weight.weight * (2.0 * before + weight.weight);
        if self.leads(after, item) && !self.leads(before, item) {
            self.leaders.push(item);
            if self.leaders.len() == 2 * LEADERS {
                self.select();
            }
        }
    }

    fn leads(&self, sum: f64, item: u32) -> bool {
        self.bar.map_or(sum > 0.0, |(least, last)| {
            sum > least || (sum == least && item <= last)
        })
    }

    /// Leaves the [`LEADERS`] items of the largest sums, of equals those of the smaller index.
    fn select(&mut self) {
        let values = &self.values;
        let sum = |item: u32| values[item as usize];
        self.leaders
            .select_nth_unstable_by(LEADERS - 1, |&a, &b| sum(b).total_cmp(&sum(a)).then(a.cmp(&b)));
        self.leaders.truncate(LEADERS);
        self.bar = self.leaders.last().map(|&item| (sum(item), item));
    }

    fn rescale(&mut self, scale: f64) {
        for value in &mut self.values {
            *value *= scale;
        }
        self.total *= scale;
        self.squares *= scale * scale;
        // Rounding may have made equals of two sums, one of a leader: all are asked anew.
        self.leaders.clear();
        self.bar = None;
        let with_a_sum = (0_u32..).zip(&self.values).filter(|&(_, &value)| value > 0.0);
        self.leaders.extend(with_a_sum.map(|(item, _)| item));
        if self.leaders.len() >= 2 * LEADERS {
            self.select();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::moments;

    fn weight(weight: f64) -> EventWeight {
        EventWeight {
            weight,
            rescale: None,
        }
    }

    proptest::proptest! {
        #[test]
        fn leaders_and_moments_are_those_of_looking_at_every_item(
            events in proptest::collection::vec((0_u32..3_000, 1_u32..50), 0..6_000), rescaled_at in 0_usize..6_000
        ) {
            let mut sums = Sums::default();
            sums.grow(3_000);
            for (place, (item, size)) in events.into_iter().enumerate() {
                let rescale = (place == rescaled_at).then_some(0.3);
                sums.add(item, EventWeight { rescale, ..weight(f64::from(size)) }, item % 7 != 0);
            }
            let mut order: Vec<u32> = (0..3_000).filter(|&item| sums.values()[item as usize] > 0.0).collect();
            order.sort_by(|&a, &b| sums.values()[b as usize].total_cmp(&sums.values()[a as usize]).then(a.cmp(&b)));
            let leaders: std::collections::BTreeSet<u32> = sums.leaders().iter().copied().collect();
            proptest::prop_assert_eq!(leaders.len(), sums.leaders().len(), "each once");
            proptest::prop_assert!(leaders.len() < 2 * LEADERS);
            proptest::prop_assert!(order.iter().take(LEADERS).all(|item| leaders.contains(item)));
            let values: Vec<f32> = sums.values().iter().map(|&sum| (2.0 * sum) as f32).collect();
            let (mean, variance) = moments(&values);
            let (by_sums, variance_by_sums) = sums.moments(3_000, 2.0);
            proptest::prop_assert!((by_sums - mean).abs() <= 1e-4 * mean.abs());
            proptest::prop_assert!((variance_by_sums - variance).abs() <= 1e-3 * variance.abs());
        }
    }

    #[test]
    fn an_event_that_does_not_count_only_moves_the_scale() {
        let mut sums = Sums::default();
        sums.grow(2);
        sums.add(0, weight(4.0), true);
        let rescale = Some(0.5);
        sums.add(1, EventWeight { weight: 9.0, rescale }, false);
        assert_eq!(
            (sums.values(), sums.total(), sums.leaders()),
            (&[2.0, 0.0][..], 2.0, &[0][..])
        );
    }
}
