//! Means over clusters, with intervals.
//!
//! A user's lists resemble one another, so it is users that are drawn independently, not lists. All intervals are at
//! 95% and use the linearised variance of a ratio (Cochran, *Sampling Techniques*, 3rd ed., section 6.3).

/// 0.975 quantile of the normal distribution.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// A mean with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The interval; absent where fewer than two users are behind it or they do not differ.
    pub interval: Option<(f64, f64)>,
    /// Observations behind it.
    pub n: u64,
}

/// A sum over a sum, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Sum of the totals over sum of the sizes.
    pub value: f64,
    /// Variance of `value`; `None` with fewer than two clusters.
    pub variance: Option<f64>,
    /// Sum of the sizes.
    pub n: f64,
    /// Number of clusters.
    pub clusters: f64,
}

/// Sum over sum of (total, size) per cluster, with the linearised variance
/// `m / (m - 1) · Σ (tᵢ - r·nᵢ)² / (Σ nᵢ)²`. `None` if the sizes add up to nothing.
pub fn ratio(clusters: impl Iterator<Item = (f64, f64)>) -> Option<Ratio> {
    let clusters: Vec<(f64, f64)> = clusters.collect();
    let n: f64 = clusters.iter().map(|cluster| cluster.1).sum();
    if n <= 0.0 {
        return None;
    }
    let value = clusters.iter().map(|cluster| cluster.0).sum::<f64>() / n;
    let m = clusters.len() as f64;
    let squares: f64 = clusters
        .iter()
        .map(|(total, size)| (total - value * size).powi(2))
        .sum();
    Some(Ratio {
        value,
        variance: (m >= 2.0).then(|| m / (m - 1.0) * squares / (n * n)),
        n,
        clusters: m,
    })
}

/// Wilson's score interval (Wilson 1927) for a share `p` of `n`.
#[must_use]
pub fn wilson(p: f64, n: f64) -> (f64, f64) {
    let z2 = Z_95 * Z_95;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // At a share of 0 or 1 rounding may put an end past the share itself.
    ((centre - half).max(0.0).min(p), (centre + half).min(1.0).max(p))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are whole, positive and far below 2^53"
)]
fn count(n: f64) -> u64 {
    n as u64
}

/// The share of successes; each cluster gives its successes and its size. The interval is Wilson's on the effective
/// sample size.
pub fn proportion(clusters: impl Iterator<Item = (f64, f64)>) -> Option<Estimate> {
    let ratio = ratio(clusters)?;
    let p = ratio.value;
    let effective = match ratio.variance {
        Some(variance) if variance > 0.0 => (p * (1.0 - p) / variance).min(ratio.n),
        // Every cluster agrees: count clusters, for their members may be copies of one another.
        _ => ratio.clusters,
    };
    Some(Estimate {
        value: p,
        interval: Some(wilson(p, effective)),
        n: count(ratio.n),
    })
}

/// The mean of values in [0, 1]; each cluster gives its sum and its size. The interval is the normal one.
pub fn mean(clusters: impl Iterator<Item = (f64, f64)>) -> Option<Estimate> {
    mean_within(clusters, 0.0, 1.0)
}

/// The mean of values that lie between `low` and `high`; each cluster gives its sum and its size. The interval is the
/// normal one, cut at those ends.
pub fn mean_within(clusters: impl Iterator<Item = (f64, f64)>, low: f64, high: f64) -> Option<Estimate> {
    let ratio = ratio(clusters)?;
    let half = ratio
        .variance
        .filter(|&variance| variance > 0.0)
        .map(|variance| Z_95 * variance.sqrt());
    Some(Estimate {
        value: ratio.value,
        interval: half.map(|half| ((ratio.value - half).max(low), (ratio.value + half).min(high))),
        n: count(ratio.n),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }

    #[test]
    fn wilsons_interval_is_that_of_the_textbook() {
        // 8 of 10: (0.4902, 0.9433), Brown, Cai and DasGupta 2001.
        let (lo, hi) = wilson(0.8, 10.0);
        near(lo, 0.4902);
        near(hi, 0.9433);
    }

    #[test]
    fn wilsons_interval_holds_the_share_at_its_ends() {
        for n in 1..200_u32 {
            for p in [0.0, 1.0] {
                let (lo, hi) = wilson(p, f64::from(n));
                assert!(lo <= p && p <= hi, "{p} of {n}: {lo} {hi}");
            }
        }
    }

    #[test]
    fn clusters_of_copies_are_worth_one_observation_each() {
        let copies = proportion([(50.0, 50.0), (0.0, 50.0), (50.0, 50.0), (0.0, 50.0)].into_iter()).unwrap();
        let (lo, hi) = copies.interval.unwrap();
        assert_eq!((copies.value, copies.n), (0.5, 200));
        // Variance 4/3 · 4·25² / 200² = 1/12, so the 200 lists weigh like 3.
        let (want_lo, want_hi) = wilson(0.5, 3.0);
        near(lo, want_lo);
        near(hi, want_hi);
    }

    #[test]
    fn independent_observations_are_worth_nearly_their_number() {
        let single = (0..100).map(|i| (f64::from(i % 2), 1.0));
        let (lo, hi) = proportion(single).unwrap().interval.unwrap();
        let (want_lo, want_hi) = wilson(0.5, 99.0);
        near(lo, want_lo);
        near(hi, want_hi);
    }

    #[test]
    fn nothing_gives_no_estimate_and_one_cluster_no_interval_of_a_mean() {
        assert_eq!(mean(std::iter::empty()), None);
        let one = mean(std::iter::once((1.5, 3.0))).unwrap();
        assert_eq!((one.value, one.interval, one.n), (0.5, None, 3));
    }
}
