//! The estimators, and when they refuse.

use std::collections::BTreeMap;
use std::fmt;

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{LoggedList, Slot};

/// How the logged rewards are weighed; see the [module](super) for what each assumes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Estimator {
    /// Inverse propensity scoring of whole lists.
    Ips,
    /// The same with no weight above this; it says something about a cut-down target.
    Clipped(f64),
    /// Self-normalised inverse propensity scoring.
    Snips,
    /// A reward model, corrected by inverse propensity scoring of its errors.
    DoublyRobust,
    /// Each position by itself.
    Independent,
    /// Each position with those above it.
    Cascade,
}

impl Estimator {
    /// All of them, with the given clip.
    #[must_use]
    pub fn all(clip: f64) -> [Self; 6] {
        [
            Self::Ips,
            Self::Clipped(clip),
            Self::Snips,
            Self::DoublyRobust,
            Self::Independent,
            Self::Cascade,
        ]
    }
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ips => "IPS",
            Self::Clipped(clip) => return write!(f, "IPS clipped at {clip}"),
            Self::Snips => "SNIPS",
            Self::DoublyRobust => "doubly robust",
            Self::Independent => "slate, independent positions",
            Self::Cascade => "slate, cascade",
        })
    }
}

/// A target policy's mean reward per list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OffPolicyEstimate {
    /// The value.
    pub value: f64,
    /// Its 95% interval.
    pub interval: (f64, f64),
    /// Kish's effective number of lists, `(Σw)² / Σw²`; for the slate estimators its mean over positions in proportion
    /// to what they earned.
    pub effective: f64,
}

/// Below which an estimate is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floors {
    /// Users.
    pub clusters: usize,
    /// Effective number of lists.
    pub effective: f64,
    /// Share of the target's positions that the logging policy could have filled.
    pub support: f64,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            clusters: 30,
            effective: 100.0,
            support: 0.95,
        }
    }
}

/// Why there is no estimate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Too few users.
    #[error("{clusters} users are too few, {floor} are needed")]
    FewClusters {
        /// Users.
        clusters: usize,
        /// How many are needed.
        floor: usize,
    },
    /// The weights rest on a handful of lists.
    #[error("the weights leave an effective {effective:.1} lists, {floor} are needed")]
    FewEffective {
        /// Effective number of lists.
        effective: f64,
        /// How many are needed.
        floor: f64,
    },
    /// The target shows what the logging policy never would.
    #[error("the logging policy covers {support:.3} of what the target would show, {floor} are needed")]
    LittleSupport {
        /// Share that is covered.
        support: f64,
        /// What is needed.
        floor: f64,
    },
    /// A propensity that no distribution has.
    #[error("list {list} has a propensity outside (0, 1]")]
    Impossible {
        /// Which list, from 0.
        list: usize,
    },
    /// The weights' mean, 1 if the propensities are right and cover the target, is significantly another.
    #[error("the mean weight is {mean:.3} ± {error:.3} (standard error) where true propensities give 1")]
    Implausible {
        /// Mean weight.
        mean: f64,
        /// Its standard error.
        error: f64,
    },
    /// The estimator needs marginal propensities, and a list has none.
    #[error("no marginal propensities are known")]
    NoMarginals,
}

/// How well the logged lists can speak for the target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diagnostics {
    /// Lists.
    pub lists: usize,
    /// Users.
    pub clusters: usize,
    /// Mean of the whole lists' weights; 1 in expectation.
    pub mean_weight: f64,
    /// The greatest of them.
    pub greatest_weight: f64,
    /// Effective number of whole lists.
    pub effective: f64,
    /// Share of the target's positions that the logging policy could have filled.
    pub support: f64,
    /// Share of lists whose weight is above the clip.
    pub clipped_lists: f64,
    /// Share of the total weight that the clip removes.
    pub clipped_weight: f64,
}

/// What the logging policy itself earned per list, with its interval: the answer of whoever takes the log at face value.
#[must_use]
pub fn naive(lists: &[LoggedList]) -> Option<OffPolicyEstimate> {
    let values: Vec<f64> = lists.iter().map(LoggedList::reward).collect();
    let value = mean(&values)?;
    let influence: Vec<f64> = values.iter().map(|reward| reward - value).collect();
    Some(OffPolicyEstimate {
        value,
        interval: interval(lists, value, &influence),
        effective: values.len() as f64,
    })
}

/// How well the lists can speak for the target, with weights above `clip` counted.
#[must_use]
pub fn diagnose(lists: &[LoggedList], clip: f64) -> Diagnostics {
    let weights: Vec<f64> = lists.iter().map(LoggedList::weight).collect();
    let n = lists.len().max(1) as f64;
    let total: f64 = weights.iter().sum();
    let cut: f64 = weights.iter().map(|weight| (weight - clip).max(0.0)).sum();
    Diagnostics {
        lists: lists.len(),
        clusters: clusters(lists),
        mean_weight: total / n,
        greatest_weight: weights.iter().copied().fold(0.0, f64::max),
        effective: kish(&weights),
        support: lists.iter().map(|list| list.support).sum::<f64>() / n,
        clipped_lists: weights.iter().filter(|&&weight| weight > clip).count() as f64 / n,
        clipped_weight: if total > 0.0 { cut / total } else { 0.0 },
    }
}

/// The target's mean reward per list.
///
/// # Errors
/// A [`Refusal`] where the lists cannot carry it.
pub fn estimate(
    estimator: Estimator,
    lists: &[LoggedList],
    floors: Floors,
) -> Result<OffPolicyEstimate, Refusal> {
    check(lists, floors)?;
    let (values, effective) = match estimator {
        Estimator::Ips => whole(lists, |weight, list| weight * list.reward()),
        Estimator::Clipped(clip) => {
            let weights: Vec<f64> = lists.iter().map(|list| list.weight().min(clip)).collect();
            let values = lists
                .iter()
                .zip(&weights)
                .map(|(list, weight)| weight * list.reward());
            (values.collect(), kish(&weights))
        }
        Estimator::DoublyRobust => whole(lists, |weight, list| {
            list.direct + weight * (list.reward() - list.predicted())
        }),
        Estimator::Independent => independent(lists)?,
        Estimator::Snips => {
            let weights: Vec<f64> = lists.iter().map(LoggedList::weight).collect();
            let rewards: Vec<f64> = lists.iter().map(LoggedList::reward).collect();
            return normalised(lists, &[(weights, rewards)], floors);
        }
        Estimator::Cascade => return normalised(lists, &cascade(lists), floors),
    };
    let value = mean(&values).unwrap_or_default();
    let influence: Vec<f64> = values.iter().map(|of_list| of_list - value).collect();
    enough(effective, floors)?;
    Ok(OffPolicyEstimate {
        value,
        interval: interval(lists, value, &influence),
        effective,
    })
}

fn check(lists: &[LoggedList], floors: Floors) -> Result<(), Refusal> {
    let clusters = clusters(lists);
    if clusters < floors.clusters.max(2) {
        return Err(Refusal::FewClusters {
            clusters,
            floor: floors.clusters.max(2),
        });
    }
    let possible = |slot: &Slot| {
        let logging = slot.logging > 0.0 && slot.logging <= 1.0 + 1e-9;
        logging && (0.0..=1.0 + 1e-9).contains(&slot.target) && slot.reward.is_finite()
    };
    if let Some(list) = lists.iter().position(|list| !list.slots.iter().all(possible)) {
        return Err(Refusal::Impossible { list });
    }
    let support = lists.iter().map(|list| list.support).sum::<f64>() / lists.len() as f64;
    if support < floors.support {
        return Err(Refusal::LittleSupport {
            support,
            floor: floors.support,
        });
    }
    // The first position's ratio has the lightest tail, so that its mean is the sharpest check of the propensities.
    let first: Vec<f64> = lists
        .iter()
        .map(|list| list.slots.first().map_or(1.0, Slot::ratio))
        .collect();
    let centre = mean(&first).unwrap_or(1.0);
    let influence: Vec<f64> = first.iter().map(|ratio| ratio - centre).collect();
    let error = standard_error(lists, &influence);
    if (centre - 1.0).abs() > 4.0 * error + 1e-9 {
        return Err(Refusal::Implausible { mean: centre, error });
    }
    Ok(())
}

fn enough(effective: f64, floors: Floors) -> Result<(), Refusal> {
    if effective < floors.effective {
        return Err(Refusal::FewEffective {
            effective,
            floor: floors.effective,
        });
    }
    Ok(())
}

fn whole(lists: &[LoggedList], value: impl Fn(f64, &LoggedList) -> f64) -> (Vec<f64>, f64) {
    let weights: Vec<f64> = lists.iter().map(LoggedList::weight).collect();
    let values = lists
        .iter()
        .zip(&weights)
        .map(|(list, &weight)| value(weight, list));
    (values.collect(), kish(&weights))
}

fn independent(lists: &[LoggedList]) -> Result<(Vec<f64>, f64), Refusal> {
    let mut values = Vec::with_capacity(lists.len());
    let mut weights: Vec<Vec<f64>> = Vec::new();
    let mut earned: Vec<f64> = Vec::new();
    for list in lists {
        let mut value = 0.0;
        for (position, slot) in list.slots.iter().enumerate() {
            let (logging, target) = slot.marginals.ok_or(Refusal::NoMarginals)?;
            let weight = if logging > 0.0 { target / logging } else { 0.0 };
            if weights.len() <= position {
                weights.push(Vec::new());
                earned.push(0.0);
            }
            weights[position].push(weight);
            earned[position] += slot.reward;
            value += weight * slot.reward;
        }
        values.push(value);
    }
    let effective: Vec<f64> = weights.iter().map(|of_position| kish(of_position)).collect();
    Ok((values, in_proportion(&effective, &earned)))
}

/// Per position: each list's weight and reward.
fn cascade(lists: &[LoggedList]) -> Vec<(Vec<f64>, Vec<f64>)> {
    let longest = lists.iter().map(|list| list.slots.len()).max().unwrap_or(0);
    let mut so_far = vec![1.0; lists.len()];
    (0..longest)
        .map(|position| {
            // A list that has ended keeps its weight and earns nothing more.
            for (weight, list) in so_far.iter_mut().zip(lists) {
                *weight *= list.slots.get(position).map_or(1.0, Slot::ratio);
            }
            let rewards = lists
                .iter()
                .map(|list| list.slots.get(position).map_or(0.0, |slot| slot.reward));
            (so_far.clone(), rewards.collect())
        })
        .collect()
}

/// Sum over the groups of `Σ w·r / Σ w`.
fn normalised(
    lists: &[LoggedList],
    groups: &[(Vec<f64>, Vec<f64>)],
    floors: Floors,
) -> Result<OffPolicyEstimate, Refusal> {
    let mut value = 0.0;
    let mut influence = vec![0.0; lists.len()];
    let mut effective = Vec::with_capacity(groups.len());
    let mut earned = Vec::with_capacity(groups.len());
    for (weights, rewards) in groups {
        let centre = mean(weights).unwrap_or_default();
        if centre <= 0.0 {
            return Err(Refusal::FewEffective {
                effective: 0.0,
                floor: floors.effective,
            });
        }
        let weighted: f64 = weights.iter().zip(rewards).map(|(w, r)| w * r).sum();
        let of_group = weighted / weights.iter().sum::<f64>();
        value += of_group;
        for ((sum, weight), reward) in influence.iter_mut().zip(weights).zip(rewards) {
            *sum += weight * (reward - of_group) / centre;
        }
        effective.push(kish(weights));
        earned.push(rewards.iter().sum());
    }
    let effective = in_proportion(&effective, &earned);
    enough(effective, floors)?;
    Ok(OffPolicyEstimate {
        value,
        interval: interval(lists, value, &influence),
        effective,
    })
}

fn in_proportion(effective: &[f64], earned: &[f64]) -> f64 {
    let total: f64 = earned.iter().sum();
    if total > 0.0 {
        effective
            .iter()
            .zip(earned)
            .map(|(e, earned)| e * earned / total)
            .sum()
    } else {
        effective.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn kish(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn clusters(lists: &[LoggedList]) -> usize {
    let mut ids: Vec<u64> = lists.iter().map(|list| list.cluster).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}

/// Standard error of a mean whose per-list influence values are given, users being independent.
fn standard_error(lists: &[LoggedList], influence: &[f64]) -> f64 {
    let mut sums: BTreeMap<u64, f64> = BTreeMap::new();
    for (list, value) in lists.iter().zip(influence) {
        *sums.entry(list.cluster).or_default() += value;
    }
    let m = sums.len() as f64;
    if m < 2.0 {
        return f64::INFINITY;
    }
    let squares: f64 = sums.values().map(|sum| sum * sum).sum();
    (m / (m - 1.0) * squares).sqrt() / lists.len() as f64
}

fn interval(lists: &[LoggedList], value: f64, influence: &[f64]) -> (f64, f64) {
    let freedom = clusters(lists).saturating_sub(1).max(1) as f64;
    let quantile = StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975));
    let half = quantile * standard_error(lists, influence);
    (value - half, value + half)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_FLOORS: Floors = Floors {
        clusters: 2,
        effective: 0.0,
        support: 0.0,
    };

    fn list(cluster: u64, slots: &[(f64, f64, f64)]) -> LoggedList {
        LoggedList {
            cluster,
            slots: slots
                .iter()
                .map(|&(logging, target, reward)| Slot {
                    logging,
                    target,
                    marginals: Some((logging, target)),
                    reward,
                    predicted: 0.25,
                })
                .collect(),
            direct: 0.5,
            support: 1.0,
        }
    }

    /// First-position ratios 1.5, 0.5, 1: mean 1.
    fn lists() -> Vec<LoggedList> {
        vec![
            list(1, &[(0.5, 0.75, 1.0), (0.5, 1.0, 0.0)]),
            list(2, &[(0.5, 0.25, 0.0), (0.5, 0.5, 1.0)]),
            list(3, &[(1.0, 1.0, 1.0), (0.5, 0.25, 1.0)]),
        ]
    }

    fn value(estimator: Estimator) -> f64 {
        estimate(estimator, &lists(), NO_FLOORS).unwrap().value
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn each_estimator_on_a_hand_computed_log() {
        // Weights of the lists: 3, 1/2, 1/2; rewards 1, 1, 2.
        near(value(Estimator::Ips), (3.0 + 0.5 + 1.0) / 3.0);
        near(value(Estimator::Clipped(2.0)), (2.0 + 0.5 + 1.0) / 3.0);
        near(value(Estimator::Snips), 4.5 / 4.0);
        // Predicted 1/2 per list.
        near(
            value(Estimator::DoublyRobust),
            0.5 + (3.0 * 0.5 + 0.5 * 0.5 + 0.5 * 1.5) / 3.0,
        );
        near(value(Estimator::Independent), (1.5 + 1.0 + 1.0 + 0.5) / 3.0);
        near(value(Estimator::Cascade), 2.5 / 3.0 + (0.5 + 0.5) / 4.0);
    }

    #[test]
    fn diagnostics_of_a_hand_computed_log() {
        let got = diagnose(&lists(), 2.0);
        near(got.mean_weight, 4.0 / 3.0);
        near(got.greatest_weight, 3.0);
        near(got.effective, 16.0 / 9.5);
        near(got.clipped_lists, 1.0 / 3.0);
        near(got.clipped_weight, 0.25);
        assert_eq!((got.lists, got.clusters), (3, 3));
    }

    #[test]
    fn the_logging_policy_itself_is_estimated_by_its_mean() {
        let same: Vec<LoggedList> = (0..40)
            .map(|n| list(n, &[(0.5, 0.5, f64::from(u8::from(n % 4 == 0)))]))
            .collect();
        let naive = naive(&same).unwrap();
        for estimator in [
            Estimator::Ips,
            Estimator::Snips,
            Estimator::Independent,
            Estimator::Cascade,
        ] {
            let got = estimate(estimator, &same, NO_FLOORS).unwrap();
            near(got.value, 0.25);
            near(got.interval.0, naive.interval.0);
            near(got.effective, 40.0);
        }
    }

    #[test]
    fn too_little_evidence_is_refused_by_name() {
        let of = |lists: &[LoggedList], floors| estimate(Estimator::Snips, lists, floors).unwrap_err();
        assert!(matches!(
            of(&lists(), Floors::default()),
            Refusal::FewClusters {
                clusters: 3,
                floor: 30
            }
        ));
        let floors = Floors {
            effective: 2.0,
            ..NO_FLOORS
        };
        assert!(matches!(of(&lists(), floors), Refusal::FewEffective { .. }));
        let mut uncovered = lists();
        uncovered[0].support = 0.1;
        let floors = Floors {
            support: 0.95,
            ..NO_FLOORS
        };
        assert!(matches!(of(&uncovered, floors), Refusal::LittleSupport { .. }));
        for impossible in [0.0, -0.1, 1.1, f64::NAN] {
            let mut lists = lists();
            lists[1].slots[1].logging = impossible;
            assert_eq!(of(&lists, NO_FLOORS), Refusal::Impossible { list: 1 });
        }
        let mut unknown = lists();
        unknown[2].slots[0].marginals = None;
        assert_eq!(
            estimate(Estimator::Independent, &unknown, NO_FLOORS),
            Err(Refusal::NoMarginals)
        );
    }

    #[test]
    fn propensities_that_cannot_be_true_are_noticed() {
        // The logged propensity is twice what it was: the mean ratio is 1/2.
        let wrong: Vec<LoggedList> = (0..200)
            .map(|n| list(n, &[(0.8, if n % 2 == 0 { 0.5 } else { 0.3 }, 1.0)]))
            .collect();
        assert!(matches!(
            estimate(Estimator::Ips, &wrong, NO_FLOORS),
            Err(Refusal::Implausible { .. })
        ));
    }
}
