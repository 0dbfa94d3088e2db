//! Do two samples of users come from one distribution?
//!
//! Events of one user resemble each other, so a χ² test that takes events for independent cries wolf. This is the
//! second-order correction of Rao and Scott ("On chi-squared tests for multiway contingency tables with cell
//! proportions estimated from survey data", Annals of Statistics 12, 1984) with users as clusters, in the F form of
//! Thomas and Rao ("Small-sample comparisons of level and power for simple goodness-of-fit statistics under cluster
//! sampling", JASA 82, 1987), because a window may hold few users.

use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use super::tally::Tally;

/// Bins in which the smaller sample expects fewer events than this are put together.
const MIN_EXPECTED: f64 = 5.0;

/// The outcome of one comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Homogeneity {
    /// Pearson's χ² over its expectation under clustering: about 1 if nothing has changed.
    pub f: f64,
    /// Probability of one so large if nothing has changed.
    pub p_value: f64,
    /// How many times the variance of independent events the clustered ones have, on average over the bins.
    pub design_effect: f64,
    /// Population stability index: `Σ (q - p) ln(q / p)`.
    pub psi: f64,
    /// The PSI beyond what sampling alone makes of it at this size and clustering; may be negative.
    pub psi_excess: f64,
    /// Kullback-Leibler divergence of the window from the reference, nats.
    pub kl: f64,
    /// Jensen-Shannon divergence, nats: 0 to ln 2.
    pub js: f64,
    /// Total variation: half the sum of the shares' absolute differences, 0 to 1.
    pub total_variation: f64,
}

/// One sample, its bins put together as the comparison needs them.
struct Sample {
    /// Share by bin.
    share: Vec<f64>,
    /// Events.
    events: f64,
    users: usize,
    /// Covariance of the shares, by row, estimated from the spread between users.
    covariance: Vec<f64>,
}

/// The counts of each user, scaled down to `max_weight` where they are more.
fn weighted(tally: &Tally, max_weight: f64) -> Vec<Vec<f64>> {
    tally
        .counts()
        .map(|counts| {
            let size: f64 = counts.iter().copied().map(f64::from).sum();
            let scale = (max_weight / size).min(1.0);
            counts.iter().map(|&count| f64::from(count) * scale).collect()
        })
        .collect()
}

fn totals(rows: &[Vec<f64>], bins: usize) -> Vec<f64> {
    let mut totals = vec![0.0; bins];
    for row in rows {
        for (total, count) in totals.iter_mut().zip(row) {
            *total += count;
        }
    }
    totals
}

impl Sample {
    fn of(rows: &[Vec<f64>], group: &[usize], bins: usize) -> Self {
        let grouped: Vec<Vec<f64>> = rows
            .iter()
            .map(|counts| {
                let mut row = vec![0.0; bins];
                for (count, &bin) in counts.iter().zip(group) {
                    row[bin] += count;
                }
                row
            })
            .collect();
        let mut share = totals(&grouped, bins);
        let events: f64 = share.iter().sum();
        for sum in &mut share {
            *sum /= events;
        }
        // Linearised variance of a ratio of sums over clusters (Cochran, Sampling Techniques, 1977, 6.3).
        let mut covariance = vec![0.0; bins * bins];
        let users = grouped.len();
        let weight = users as f64 / (users as f64 - 1.0) / (events * events);
        for row in &grouped {
            let size: f64 = row.iter().sum();
            let residual: Vec<f64> = row
                .iter()
                .zip(&share)
                .map(|(count, share)| count - size * share)
                .collect();
            for (a, line) in residual.iter().zip(covariance.chunks_exact_mut(bins)) {
                for (cell, b) in line.iter_mut().zip(&residual) {
                    *cell += weight * a * b;
                }
            }
        }
        Self {
            share,
            events,
            users,
            covariance,
        }
    }

    /// `Σ V_kk / p_k`.
    fn trace(&self, pooled: &[f64]) -> f64 {
        let bins = pooled.len();
        (0..bins)
            .map(|bin| self.covariance[bin * bins + bin] / pooled[bin])
            .sum()
    }
}

/// Compares a window with a reference over the same bins. A user counts as at most `max_weight` events: what a few
/// very active users do says little about all others, and leaving them their weight drowns a change in noise.
///
/// `None` if there is nothing to compare: fewer than two users on a side, a single bin, or no spread at all.
#[must_use]
pub fn compare(reference: &Tally, window: &Tally, max_weight: f64) -> Option<Homogeneity> {
    if reference.users() < 2 || window.users() < 2 || reference.bins() != window.bins() {
        return None;
    }
    let (old, new) = (weighted(reference, max_weight), weighted(window, max_weight));
    let (group, bins) = grouping(&totals(&old, reference.bins()), &totals(&new, reference.bins()))?;
    let (old, new) = (Sample::of(&old, &group, bins), Sample::of(&new, &group, bins));
    let scale = 1.0 / old.events + 1.0 / new.events;
    let pooled: Vec<f64> = old
        .share
        .iter()
        .zip(&new.share)
        .map(|(p, q)| (p * old.events + q * new.events) / (old.events + new.events))
        .collect();
    // Eigenvalues of the generalised design-effect matrix A = diag(pooled)^-1 (V_old + V_new) / scale enter by their
    // sum and the sum of their squares only.
    let (old_trace, new_trace) = (old.trace(&pooled) / scale, new.trace(&pooled) / scale);
    let trace = old_trace + new_trace;
    let squares: f64 = (0..bins * bins)
        .map(|cell| {
            let covariance = (old.covariance[cell] + new.covariance[cell]) / scale;
            covariance * covariance / (pooled[cell / bins] * pooled[cell % bins])
        })
        .sum();
    if !(trace > 0.0 && squares > 0.0) {
        return None;
    }
    let pearson: f64 = old
        .share
        .iter()
        .zip(&new.share)
        .zip(&pooled)
        .map(|((p, q), pooled)| (q - p) * (q - p) / pooled / scale)
        .sum();
    let f = pearson / trace;
    let freedom = trace * trace / squares;
    // The variance itself is estimated, from the users of two samples (Satterthwaite).
    let clusters = trace * trace
        / (old_trace * old_trace / (old.users as f64 - 1.0)
            + new_trace * new_trace / (new.users as f64 - 1.0));
    let p_value = FisherSnedecor::new(freedom, freedom * clusters).ok()?.sf(f);
    let psi = divergence(&old.share, &new.share, &old, &new, |p, q| (q - p) * (q / p).ln());
    Some(Homogeneity {
        f,
        p_value,
        design_effect: trace / (bins as f64 - 1.0),
        psi,
        // To second order, PSI is Pearson's χ² times the scale; its expectation follows.
        psi_excess: psi - trace * scale,
        kl: divergence(&old.share, &new.share, &old, &new, |p, q| q * (q / p).ln()),
        js: divergence(&old.share, &new.share, &old, &new, |p, q| {
            let middle = f64::midpoint(p, q);
            0.5 * (p * (p / middle).ln() + q * (q / middle).ln())
        }),
        total_variation: 0.5
            * old
                .share
                .iter()
                .zip(&new.share)
                .map(|(p, q)| (q - p).abs())
                .sum::<f64>(),
    })
}

/// Bin → bin of the comparison, and their number: rare bins, and those that neither sample fills, are put together,
/// and go with the first if there is nothing in them.
fn grouping(old: &[f64], new: &[f64]) -> Option<(Vec<usize>, usize)> {
    let (old_events, new_events): (f64, f64) = (old.iter().sum(), new.iter().sum());
    if old_events <= 0.0 || new_events <= 0.0 {
        return None;
    }
    let both: Vec<f64> = old.iter().zip(new).map(|(p, q)| p + q).collect();
    let expects = |sum: f64| sum / (old_events + new_events) * old_events.min(new_events);
    let common = |sum: f64| expects(sum) >= MIN_EXPECTED;
    let own = both.iter().filter(|&&sum| common(sum)).count();
    let left_over: f64 = both.iter().copied().filter(|&sum| !common(sum)).sum();
    let (rest, bins) = if left_over > 0.0 { (own, own + 1) } else { (0, own) };
    let mut next = 0..own;
    let group = both
        .iter()
        .map(|&sum| {
            if common(sum) {
                next.next().unwrap_or(rest)
            } else {
                rest
            }
        })
        .collect();
    (bins >= 2).then_some((group, bins))
}

/// Sums `term` over the bins, with half an event added to each, so that an empty one does not make it infinite.
fn divergence(p: &[f64], q: &[f64], old: &Sample, new: &Sample, term: impl Fn(f64, f64) -> f64) -> f64 {
    let smooth = |share: f64, events: f64| (share * events + 0.5) / (events + 0.5 * p.len() as f64);
    p.iter()
        .zip(q)
        .map(|(&p, &q)| term(smooth(p, old.events), smooth(q, new.events)))
        .sum()
}

/// Holm's step-down adjustment ("A simple sequentially rejective multiple test procedure", Scandinavian Journal of
/// Statistics 6, 1979): comparing the adjusted values with α bounds the chance of *any* false alarm by α.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut running = 0.0_f64;
    for (rank, &at) in order.iter().enumerate() {
        running = running
            .max(p_values[at] * (p_values.len() - rank) as f64)
            .min(1.0);
        adjusted[at] = running;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `users` users with `events` events each, all of a user in one bin; bin `b` gets its share of the users.
    fn tally(shares: [u64; 2], users: u64, events: usize, first: u64) -> Tally {
        let mut tally = Tally::new(2, 100_000);
        for user in 0..users {
            let bin = usize::from(user % (shares[0] + shares[1]) >= shares[0]);
            for _ in 0..events {
                tally.add(first + user, bin);
            }
        }
        tally
    }

    #[test]
    fn users_of_one_event_are_independent_and_larger_ones_are_not() {
        let single = compare(&tally([1, 1], 400, 1, 0), &tally([1, 1], 400, 1, 1_000), 20.0).unwrap();
        assert!((single.design_effect - 1.0).abs() < 0.01, "{single:?}");
        assert!(single.p_value > 0.99 && single.psi.abs() < 1e-12, "{single:?}");
        let clustered = compare(&tally([1, 1], 400, 10, 0), &tally([1, 1], 400, 10, 1_000), 20.0).unwrap();
        assert!((clustered.design_effect - 10.0).abs() < 0.1, "{clustered:?}");
    }

    #[test]
    fn what_ten_times_the_events_prove_one_event_of_each_user_does_not() {
        // 50% against 60% of 100 users: a z of 1.4 whatever the number of events each of them has.
        let once = compare(&tally([1, 1], 100, 1, 0), &tally([6, 4], 100, 1, 1_000), 20.0).unwrap();
        let often = compare(&tally([1, 1], 100, 10, 0), &tally([6, 4], 100, 10, 1_000), 20.0).unwrap();
        assert!((once.p_value - often.p_value).abs() < 0.01, "{once:?} {often:?}");
        assert!((0.14..0.18).contains(&once.p_value), "{once:?}");
    }

    #[test]
    fn divergences_of_a_known_change() {
        let found = compare(
            &tally([1, 1], 4_000, 1, 0),
            &tally([1, 3], 4_000, 1, 10_000),
            20.0,
        )
        .unwrap();
        let ln3 = 3.0_f64.ln();
        assert!((found.psi - 0.25 * ln3).abs() < 1e-3, "{found:?}");
        let kl = 0.25 * 0.5_f64.ln() + 0.75 * 1.5_f64.ln();
        assert!((found.kl - kl).abs() < 1e-3, "{found:?}");
        assert!((found.total_variation - 0.25).abs() < 1e-12, "{found:?}");
        assert!(found.js > 0.0 && found.js < found.kl, "{found:?}");
        assert!(found.p_value < 1e-6 && found.psi_excess < found.psi, "{found:?}");
    }

    #[test]
    fn a_user_counts_as_at_most_so_many_events() {
        let mut heavy = tally([1, 1], 100, 1, 1_000);
        for _ in 0..100_000 {
            heavy.add(5_000, 0);
        }
        let reference = tally([1, 1], 100, 1, 0);
        let capped = compare(&reference, &heavy, 1.0).unwrap();
        assert!(capped.p_value > 0.8, "{capped:?}");
        let uncapped = compare(&reference, &heavy, f64::MAX).unwrap();
        assert!(uncapped.psi > 1.0, "{uncapped:?}");
    }

    #[test]
    fn nothing_to_compare_is_no_finding() {
        let some = tally([1, 1], 100, 1, 0);
        assert_eq!(compare(&some, &Tally::new(2, 10), 20.0), None);
        assert_eq!(compare(&some, &Tally::new(3, 10), 20.0), None);
        let one_bin = tally([1, 0], 100, 1, 0);
        assert_eq!(compare(&one_bin, &one_bin, 20.0), None);
    }

    #[test]
    fn holm_steps_down() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.5]);
        for (found, expected) in adjusted.iter().zip([0.04, 0.09, 0.09, 0.5]) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
