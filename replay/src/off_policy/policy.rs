//! The recommender's exploration: Plackett-Luce over ranks, with weight `r^-steepness` for rank r (from 1).

use marquee_statistics::off_policy::PlackettLuce;

/// How far a probability may lie from the logged one and still be the same.
const SAME: f64 = 1e-9;

fn weight(place: usize, steepness: f64) -> f64 {
    ((place + 1) as f64).powf(-steepness)
}

/// The distribution of the first `k` positions drawn from a ranking's best `pool`.
#[derive(Debug, Clone)]
pub(super) struct RankPolicy {
    pool: usize,
    steepness: f64,
    k: usize,
    /// By place, then position.
    marginals: Vec<Vec<f64>>,
}

impl RankPolicy {
    pub(super) fn new(pool: usize, steepness: f64, k: usize) -> Self {
        let scores: Vec<f64> = (0..pool).map(|place| weight(place, steepness).ln()).collect();
        let policy = PlackettLuce::new(&scores, 1.0);
        let marginals = (0..pool)
            .map(|place| {
                let at = |position| {
                    policy
                        .as_ref()
                        .map_or(0.0, |policy| policy.marginal(place, position))
                };
                (0..k).map(at).collect()
            })
            .collect();
        Self {
            pool,
            steepness,
            k,
            marginals,
        }
    }

    /// Probability that the movie at `place` of the ranking stands at `position`.
    pub(super) fn marginal(&self, place: usize, position: usize) -> f64 {
        self.marginals
            .get(place)
            .and_then(|of_place| of_place.get(position))
            .copied()
            .unwrap_or(0.0)
    }

    /// Probability of each shown movie at its position given those above it, had the list been drawn from `ranking`.
    pub(super) fn conditionals(&self, ranking: &[u32], shown: &[u32]) -> Vec<f64> {
        let pool = self.pool.min(ranking.len());
        let mut open: Vec<f64> = (0..pool).map(|place| weight(place, self.steepness)).collect();
        shown
            .iter()
            .map(|movie| {
                let Some(place) = ranking[..pool].iter().position(|ranked| ranked == movie) else {
                    return 0.0;
                };
                // Summed from the smallest up, and anew each time, so that nothing is lost.
                let sum: f64 = open.iter().rev().sum();
                let probability = open[place] / sum;
                open[place] = 0.0;
                probability
            })
            .collect()
    }

    /// Whether the logged probabilities follow from this ranking.
    pub(super) fn is_faithful(&self, ranking: &[u32], shown: &[u32], logged: &[f64]) -> bool {
        let restored = self.conditionals(ranking, shown);
        restored.iter().zip(logged).all(|(a, b)| (a - b).abs() <= SAME)
    }

    /// Share of the positions drawn from `ranking` that fall on movies among the best of `logging`.
    pub(super) fn support(&self, ranking: &[u32], logging: &[u32]) -> f64 {
        let covered = |_: usize, movie: u32| f64::from(u8::from(logging.contains(&movie)));
        self.expectation(ranking, covered) / self.k.max(1) as f64
    }

    /// Expected sum over the positions of a list drawn from `ranking`.
    pub(super) fn expectation(&self, ranking: &[u32], of: impl Fn(usize, u32) -> f64) -> f64 {
        ranking
            .iter()
            .take(self.pool)
            .enumerate()
            .map(|(place, &movie)| {
                (0..self.k)
                    .map(|position| self.marginal(place, position) * of(position, movie))
                    .sum::<f64>()
            })
            .sum()
    }
}

/// The places in the ranking that logged probabilities tell: position by position, the probability times what was still
/// to be had is the movie's weight, and its weight its rank. `None` where they come from another pool or steepness.
pub(super) fn places(propensities: &[f64], pool: usize, steepness: f64) -> Option<Vec<usize>> {
    if steepness <= 0.0 {
        // All places are alike.
        return Some((0..propensities.len()).collect());
    }
    let weights: Vec<f64> = (0..pool).map(|place| weight(place, steepness)).collect();
    let mut taken = vec![false; pool];
    propensities
        .iter()
        .map(|probability| {
            let open: f64 = weights
                .iter()
                .zip(&taken)
                .rev()
                .filter(|(_, taken)| !**taken)
                .map(|(weight, _)| weight)
                .sum();
            let wanted = probability * open;
            let place = (0..pool).filter(|&place| !taken[place]).min_by(|&a, &b| {
                let distance = |place: usize| (weights[place] / wanted).ln().abs();
                distance(a).total_cmp(&distance(b))
            })?;
            taken[place] = true;
            ((weights[place] / open - probability).abs() <= SAME).then_some(place)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_the_probabilities_that_they_gave() {
        let ranking: Vec<u32> = (100..150).collect();
        let policy = RankPolicy::new(50, 1.5, 5);
        let shown = [102, 100, 149, 117, 101];
        let logged = policy.conditionals(&ranking, &shown);
        assert!(logged.iter().all(|&p| p > 0.0));
        assert_eq!(places(&logged, 50, 1.5), Some(vec![2, 0, 49, 17, 1]));
        assert_eq!(places(&logged, 40, 1.5), None);
        assert_eq!(places(&logged, 50, 1.0), None);
        assert!(policy.is_faithful(&ranking, &shown, &logged));
        let mut other = ranking.clone();
        other.swap(0, 5);
        assert!(!policy.is_faithful(&other, &shown, &logged));
    }

    #[test]
    fn what_the_other_ranking_does_not_hold_has_no_probability_and_does_not_use_up_any() {
        let policy = RankPolicy::new(3, 1.0, 3);
        // Weights 1, 1/2, 1/3.
        let got = policy.conditionals(&[1, 2, 3], &[2, 9, 1]);
        assert!((got[0] - 0.5 / (11.0 / 6.0)).abs() < 1e-12);
        assert_eq!(got[1], 0.0);
        assert!((got[2] - 1.0 / (4.0 / 3.0)).abs() < 1e-12);
    }

    #[test]
    fn expectations_and_support_add_up() {
        let policy = RankPolicy::new(4, 1.5, 2);
        let ranking = [5, 6, 7, 8];
        assert!((policy.expectation(&ranking, |_, _| 1.0) - 2.0).abs() < 1e-6);
        assert!((policy.support(&ranking, &[8, 7, 6, 5]) - 1.0).abs() < 1e-6);
        let without_the_first = policy.support(&ranking, &[6, 7, 8]);
        let of_the_first = policy.marginal(0, 0) + policy.marginal(0, 1);
        assert!((without_the_first - (1.0 - of_the_first / 2.0)).abs() < 1e-6);
    }
}
