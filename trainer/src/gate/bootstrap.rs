//! Intervals of relative changes by a cluster bootstrap over users.
//!
//! Cases of one user are not independent, so whole users are drawn (the cluster bootstrap; Efron, Tibshirani: "An
//! Introduction to the Bootstrap", 1993, §13, gives the percentile interval). Both models' cases of a drawn user, under
//! both protocols, come along, so that every pairing survives: of models, and of the same user's two kinds of cases.
//! The gains of both protocols are joined with inverse-variance weights, the variances being the bootstrap's own. A
//! protocol under which neither model hits anything is left out: its gain of nothing at all would be as sure as can be,
//! and would outweigh what the other one shows.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::evaluate::{METRICS, Protocol, Scorecard};

/// Keeps the weight of a protocol finite on which both models answered alike.
const LEAST_VARIANCE: f64 = 1e-8;
const PANELS: usize = Protocol::ALL.len();

/// A relative change and the bounds of its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Ours over theirs, minus one.
    pub value: f64,
    /// Lower bound.
    pub lo: f64,
    /// Upper bound.
    pub hi: f64,
}

/// Changes from one scorecard to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Per protocol and metric, as in [`METRICS`]; absent where nothing was measured.
    pub changes: BTreeMap<(Protocol, usize), Change>,
    /// The gain in the first metric over the joined protocols; absent where there is none.
    pub joint: Option<Change>,
    /// Of the protocols asked for, those whose gains are joined.
    pub joined: Vec<Protocol>,
    /// Users met under either protocol.
    pub users: usize,
}

type Sums = [[f64; METRICS.len()]; PANELS];

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    ours: Sums,
    theirs: Sums,
}

/// Ours over theirs, minus one. From nothing to something counts as doubled, from nothing to nothing as no change.
fn relative(ours: f64, theirs: f64) -> f64 {
    if theirs > 0.0 {
        ours / theirs - 1.0
    } else if ours > 0.0 {
        1.0
    } else {
        0.0
    }
}

/// Compares two models that sat one exam. `joined` are the protocols whose gains are joined; `confidence` is
/// two-sided.
#[must_use]
pub fn compare(
    ours: &Scorecard,
    theirs: &Scorecard,
    joined: &[Protocol],
    draws: usize,
    confidence: f64,
    seed: u64,
) -> Comparison {
    let mut users: BTreeMap<u32, Pair> = BTreeMap::new();
    for (index, protocol) in Protocol::ALL.into_iter().enumerate() {
        for user in &ours.panel(protocol).users {
            users.entry(user.user).or_default().ours[index] = user.sums;
        }
        for user in &theirs.panel(protocol).users {
            users.entry(user.user).or_default().theirs[index] = user.sums;
        }
    }
    let users: Vec<Pair> = users.into_values().collect();
    let total = |chosen: &mut dyn Iterator<Item = usize>| {
        let mut total = Pair::default();
        for user in chosen.map(|index| &users[index]) {
            for panel in 0..PANELS {
                for metric in 0..METRICS.len() {
                    total.ours[panel][metric] += user.ours[panel][metric];
                    total.theirs[panel][metric] += user.theirs[panel][metric];
                }
            }
        }
        total
    };
    let changes_of = |pair: &Pair| {
        let mut changes = [[0.0; METRICS.len()]; PANELS];
        for (panel, row) in changes.iter_mut().enumerate() {
            for (metric, change) in row.iter_mut().enumerate() {
                *change = relative(pair.ours[panel][metric], pair.theirs[panel][metric]);
            }
        }
        changes
    };
    let whole = total(&mut (0..users.len()));
    let seen = changes_of(&whole);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sampled: Vec<Sums> = (0..if users.is_empty() { 0 } else { draws })
        .map(|_| {
            let mut chosen = (0..users.len()).map(|_| rng.random_range(0..users.len()));
            changes_of(&total(&mut chosen))
        })
        .collect();

    let mut changes = BTreeMap::new();
    for (panel, protocol) in Protocol::ALL.into_iter().enumerate() {
        if theirs.panel(protocol).users.is_empty() {
            continue;
        }
        for metric in 0..protocol.metrics().len() {
            let mut values: Vec<f64> = sampled.iter().map(|draw| draw[panel][metric]).collect();
            changes.insert(
                (protocol, metric),
                change(seen[panel][metric], &mut values, confidence),
            );
        }
    }

    let weights: Vec<(usize, f64)> = Protocol::ALL
        .into_iter()
        .enumerate()
        .filter(|(panel, protocol)| {
            joined.contains(protocol)
                && !theirs.panel(*protocol).users.is_empty()
                && whole.ours[*panel][0] + whole.theirs[*panel][0] > 0.0
        })
        .map(|(panel, _)| {
            let spread = variance(sampled.iter().map(|draw| draw[panel][0]));
            (panel, 1.0 / (spread + LEAST_VARIANCE))
        })
        .collect();
    let weight: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let join = |draw: &Sums| weights.iter().map(|&(panel, w)| w * draw[panel][0]).sum::<f64>() / weight;
    let joint = (!weights.is_empty()).then(|| {
        let mut values: Vec<f64> = sampled.iter().map(join).collect();
        change(join(&seen), &mut values, confidence)
    });
    Comparison {
        changes,
        joint,
        joined: weights.iter().map(|&(panel, _)| Protocol::ALL[panel]).collect(),
        users: users.len(),
    }
}

fn change(value: f64, sampled: &mut [f64], confidence: f64) -> Change {
    sampled.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * sampled.len().saturating_sub(1) as f64).round() as usize;
        sampled.get(place).copied().unwrap_or(value)
    };
    Change {
        value,
        lo: at((1.0 - confidence) / 2.0),
        hi: at(1.0 - (1.0 - confidence) / 2.0),
    }
}

fn variance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / count;
    values.map(|value| (value - mean).powi(2)).sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::card_of;

    #[test]
    fn a_constant_advantage_is_certain_however_noisy_both_are() {
        let theirs: Vec<f64> = (0..50)
            .map(|user| 0.05 + f64::from(user * 7 % 11) / 20.0)
            .collect();
        let ours: Vec<f64> = theirs.iter().map(|value| value * 1.25).collect();
        let comparison = compare(
            &card_of(&ours, &ours),
            &card_of(&theirs, &theirs),
            &Protocol::ALL,
            300,
            0.95,
            9,
        );
        let joint = comparison.joint.unwrap();
        assert!(
            (joint.lo - 0.25).abs() < 1e-9 && (joint.hi - 0.25).abs() < 1e-9,
            "{joint:?}"
        );
        assert_eq!(comparison.users, 50);
    }

    #[test]
    fn the_surer_protocol_weighs_more() {
        // Static: no change on average, and noisy. Prequential: ten percent for everyone.
        let theirs = vec![0.2; 40];
        let noisy: Vec<f64> = (0..40)
            .map(|user| if user % 2 == 0 { 0.3 } else { 0.1 })
            .collect();
        let sure = vec![0.22; 40];
        let comparison = compare(
            &card_of(&noisy, &sure),
            &card_of(&theirs, &theirs),
            &Protocol::ALL,
            500,
            0.95,
            1,
        );
        let joint = comparison.joint.unwrap();
        assert!((joint.value - 0.1).abs() < 1e-3, "{joint:?}");
        let fixed = comparison.changes[&(Protocol::Static, 0)];
        assert!(fixed.lo < -0.05 && fixed.hi > 0.05, "{fixed:?}");
    }

    #[test]
    fn a_protocol_under_which_neither_hits_anything_does_not_drown_the_other() {
        let (nothing, theirs, ours) = ([0.0; 40], [0.2; 40], [0.25; 40]);
        let of = |ours: &[f64], theirs: &[f64]| {
            let (ours, theirs) = (card_of(&nothing, ours), card_of(&nothing, theirs));
            compare(&ours, &theirs, &Protocol::ALL, 300, 0.95, 2)
        };
        let comparison = of(&ours, &theirs);
        assert_eq!(comparison.joined, [Protocol::Prequential]);
        let joint = comparison.joint.unwrap();
        assert!((joint.value - 0.25).abs() < 1e-9 && joint.lo > 0.2, "{joint:?}");
        let silent = of(&nothing, &nothing);
        assert!(silent.joint.is_none() && silent.joined.is_empty());
    }

    #[test]
    fn nobody_gives_no_comparison_and_the_same_seed_the_same_bounds() {
        let nobody = Scorecard::default();
        let nothing = compare(&nobody, &nobody, &Protocol::ALL, 100, 0.95, 1);
        assert!(nothing.joint.is_none() && nothing.changes.is_empty());
        let (a, b) = (card_of(&[0.1, 0.4, 0.2], &[]), card_of(&[0.2, 0.2, 0.3], &[]));
        let once = compare(&a, &b, &Protocol::ALL, 100, 0.95, 3);
        assert_eq!(once, compare(&a, &b, &Protocol::ALL, 100, 0.95, 3));
    }

    #[test]
    fn something_out_of_nothing_is_finite() {
        assert_eq!(relative(0.0, 0.0), 0.0);
        assert_eq!(relative(0.3, 0.0), 1.0);
        assert_eq!(relative(0.0, 0.3), -1.0);
    }
}
