//! What a movie at a position may be expected to earn: the regression inside the doubly robust estimator.

use std::collections::BTreeMap;

/// Mean reward by position, times how much better or worse than its positions a movie did, shrunk towards 1:
/// the posterior mean of a Poisson rate under a Gamma prior of `PRIOR` expected rewards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RewardModel {
    /// Rewards and showings of each position.
    by_position: Vec<(f64, f64)>,
    /// What each movie earned over what its positions earn, shrunken.
    lift: BTreeMap<u32, f64>,
}

/// Rewards that a movie must have been expected to earn before its own record weighs as much as the average.
const PRIOR: f64 = 5.0;

impl RewardModel {
    /// Fits on (position, movie, reward) of shown movies. Fit it on other users than those whose lists it will predict
    /// (cross-fitting, Chernozhukov et al. 2018): a model that has seen a list's own outcome biases its estimate.
    pub fn fit(shown: impl Iterator<Item = (usize, u32, f64)> + Clone) -> Self {
        let mut model = Self::default();
        for (position, _, reward) in shown.clone() {
            if model.by_position.len() <= position {
                model.by_position.resize(position + 1, (0.0, 0.0));
            }
            model.by_position[position].0 += reward;
            model.by_position[position].1 += 1.0;
        }
        let mut by_movie: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for (position, movie, reward) in shown {
            let expected = model.base(position);
            let of_movie = by_movie.entry(movie).or_insert((0.0, 0.0));
            of_movie.0 += reward;
            of_movie.1 += expected;
        }
        model.lift = by_movie
            .into_iter()
            .map(|(movie, (earned, expected))| (movie, (earned + PRIOR) / (expected + PRIOR)))
            .collect();
        model
    }

    fn base(&self, position: usize) -> f64 {
        self.by_position.get(position).map_or(
            0.0,
            |(rewards, shown)| if *shown > 0.0 { rewards / shown } else { 0.0 },
        )
    }

    /// Expected reward of `movie` at `position` (from 0).
    #[must_use]
    pub fn predict(&self, position: usize, movie: u32) -> f64 {
        self.base(position) * self.lift.get(&movie).copied().unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_movie_earns_its_positions_mean_times_its_own_shrunken_lift() {
        // Position 0 earns 1/2 on average; movie 1 earns always, movie 2 never, 20 times each.
        let shown = (0..20).flat_map(|_| [(0, 1, 1.0), (0, 2, 0.0)]);
        let model = RewardModel::fit(shown);
        assert!((model.predict(0, 1) - 0.5 * 25.0 / 15.0).abs() < 1e-12);
        assert!((model.predict(0, 2) - 0.5 * 5.0 / 15.0).abs() < 1e-12);
        assert!((model.predict(0, 9) - 0.5).abs() < 1e-12);
        assert_eq!(model.predict(4, 1), 0.0);
    }
}
