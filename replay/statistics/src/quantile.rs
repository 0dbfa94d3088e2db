//! Quantiles with intervals that assume nothing of the distribution.

use crate::cluster::{Estimate, Z_95};

/// The `q`-quantile (0 < q < 1) of `values`: the smallest value with at least the share `q` at or below it. The 95%
/// interval lies between two order statistics, whose ranks are `nq ± z·√(nq(1-q))` (David and Nagaraja, *Order
/// Statistics*, 3rd ed., section 7.1). `None` without values, or with one that is not a number.
#[must_use]
pub fn quantile(values: &mut [f64], q: f64) -> Option<Estimate> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len() as f64;
    let at = |rank: f64| values[rank_index(rank, values.len())];
    let half = Z_95 * (n * q * (1.0 - q)).sqrt();
    Some(Estimate {
        value: at((n * q).ceil()),
        interval: Some((at((n * q - half).floor()), at((n * q + half).ceil() + 1.0))),
        n: values.len() as u64,
    })
}

/// Index of a rank that counts from 1, within the values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1 and above; counts are far below 2^53"
)]
fn rank_index(rank: f64, len: usize) -> usize {
    (rank.max(1.0) as usize).min(len) - 1
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn the_95th_of_a_hundred_numbers_is_the_95th() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let estimate = quantile(&mut values, 0.95).unwrap();
        // 1.96 · √(100 · 0.95 · 0.05) = 4.27: ranks 90 and 101, of which the last is 100.
        assert_eq!(
            (estimate.value, estimate.interval, estimate.n),
            (95.0, Some((90.0, 100.0)), 100)
        );
        assert_eq!(quantile(&mut [7.0], 0.5).unwrap().interval, Some((7.0, 7.0)));
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [1.0, f64::NAN], 0.5), None);
    }

    #[test]
    fn the_interval_covers_the_true_quantile_as_often_as_it_says() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let covered = (0..1_000)
            .filter(|_| {
                let mut values: Vec<f64> = (0..400).map(|_| rng.random()).collect();
                let (lo, hi) = quantile(&mut values, 0.9).unwrap().interval.unwrap();
                lo <= 0.9 && 0.9 <= hi
            })
            .count();
        // A binomial of 1,000 at 0.95 has a standard deviation of 7; the ranks are rounded outwards.
        assert!((930..=990).contains(&covered), "{covered}");
    }
}
