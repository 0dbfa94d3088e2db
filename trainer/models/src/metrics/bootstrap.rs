//! Percentile bootstrap intervals (Efron, Tibshirani: "An Introduction to the Bootstrap", 1993, §13), seeded.
//!
//! Events of one user are not independent, so whole users are drawn, not events (the cluster bootstrap); with one
//! event per cluster this is the ordinary bootstrap. A comparison of two models draws the same clusters for both.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A mean and the bounds of its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Mean over all values.
    pub mean: f64,
    /// Lower bound.
    pub lo: f64,
    /// Upper bound.
    pub hi: f64,
}

/// Two-sided coverage of the bounds.
const LEVEL: f64 = 0.95;

/// Interval of the mean of `values`, whose entry `i` belongs to cluster `clusters[i]`. `None` when there is no value
/// or the lengths differ.
#[must_use]
pub fn clustered_interval(values: &[f64], clusters: &[u32], draws: usize, seed: u64) -> Option<Interval> {
    if values.is_empty() || values.len() != clusters.len() {
        return None;
    }
    let mut by_cluster: Vec<(u32, f64, f64)> =
        clusters.iter().zip(values).map(|(&c, &v)| (c, v, 1.0)).collect();
    by_cluster.sort_by_key(|&(cluster, _, _)| cluster);
    let mut sums: Vec<(f64, f64)> = Vec::new();
    let mut last = None;
    for (cluster, value, one) in by_cluster {
        match sums.last_mut() {
            Some((sum, count)) if last == Some(cluster) => {
                *sum += value;
                *count += one;
            }
            _ => sums.push((value, one)),
        }
        last = Some(cluster);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..draws)
        .map(|_| {
            let (mut total, mut count) = (0.0, 0.0);
            for _ in 0..sums.len() {
                let (sum, events) = sums[rng.random_range(0..sums.len())];
                total += sum;
                count += events;
            }
            total / count
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * (draws.max(1) - 1) as f64).round() as usize;
        means.get(place).copied().unwrap_or(mean)
    };
    Some(Interval {
        mean,
        lo: at((1.0 - LEVEL) / 2.0),
        hi: at(1.0 - (1.0 - LEVEL) / 2.0),
    })
}

/// Interval of the mean difference `ours - theirs`, pairwise over the same events or users. `None` when there is no
/// value or the lengths differ.
#[must_use]
pub fn paired_interval(
    ours: &[f64],
    theirs: &[f64],
    clusters: &[u32],
    draws: usize,
    seed: u64,
) -> Option<Interval> {
    if ours.len() != theirs.len() {
        return None;
    }
    let differences: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    clustered_interval(&differences, clusters, draws, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_has_no_spread_and_many_have_some() {
        let one = clustered_interval(&[1.0, 0.0], &[4, 4], 200, 1).unwrap();
        assert_eq!((one.mean, one.lo, one.hi), (0.5, 0.5, 0.5));
        let values: Vec<f64> = (0..100).map(|event| f64::from(event % 2)).collect();
        let clusters: Vec<u32> = (0..100).collect();
        let many = clustered_interval(&values, &clusters, 1000, 1).unwrap();
        // The standard error of a fair coin over 100 draws is 0.05.
        assert!(
            (many.lo - 0.4).abs() < 0.03 && (many.hi - 0.6).abs() < 0.03,
            "{many:?}"
        );
    }

    #[test]
    fn a_constant_advantage_is_certain_however_noisy_both_are() {
        let theirs: Vec<f64> = (0..50).map(|user| f64::from(user * 7 % 11)).collect();
        let ours: Vec<f64> = theirs.iter().map(|value| value + 0.25).collect();
        let clusters: Vec<u32> = (0..50).collect();
        let gap = paired_interval(&ours, &theirs, &clusters, 300, 9).unwrap();
        assert!((gap.lo - 0.25).abs() < 1e-9 && (gap.hi - 0.25).abs() < 1e-9);
    }

    #[test]
    fn the_same_seed_gives_the_same_bounds_and_nothing_gives_none() {
        let values = [0.0, 1.0, 0.5, 0.25];
        let clusters = [0, 1, 2, 3];
        assert_eq!(
            clustered_interval(&values, &clusters, 100, 3),
            clustered_interval(&values, &clusters, 100, 3)
        );
        assert_eq!(clustered_interval(&[], &[], 100, 3), None);
        assert_eq!(paired_interval(&[1.0], &[], &[0], 100, 3), None);
    }
}
