//! Off-policy evaluation: what a *target* policy would have earned on requests that a *logging* policy answered.
//!
//! A request's context `x` got the list `a₁ … a_K`; position `k` earned `rₖ`. The estimand is the target's mean reward
//! per list, `E[Σₖ rₖ]` with lists drawn from the target. What is needed of each policy is the probability of the movie
//! shown at `k` *given the movies above it* (its conditional propensity), which the request log carries for the
//! logging policy; the estimator that assumes positions to be independent needs the probability of the movie at `k`
//! whatever stands above it (its marginal), for which [`PlackettLuce`] has a formula.
//!
//! | estimator | weight of `rₖ` | unbiased if | source |
//! |---|---|---|---|
//! | [`Estimator::Ips`] | product of all K ratios | the logging policy covers the target | Horvitz and Thompson 1952; Precup et al. 2000 |
//! | [`Estimator::Clipped`] | the same, at most `clip` | never; its bias is bounded by what it cuts | Ionides 2008; Bottou et al. 2013 |
//! | [`Estimator::Snips`] | the same over their mean | in the limit | Swaminathan and Joachims 2015 |
//! | [`Estimator::DoublyRobust`] | IPS on what a reward model leaves unexplained | weights or model are right | Dudík et al. 2014 |
//! | [`Estimator::Independent`] | ratio of marginals at `k` | a position's reward depends on its movie alone | Li et al. 2018 |
//! | [`Estimator::Cascade`] | product of the first `k` ratios, self-normalised per position | it depends on nothing below | McInerney et al. 2020 |
//!
//! Intervals (95%) take users as the independent units: the sum of a user's influence values is one draw, Student's
//! quantile is for the number of users. An estimate that rests on too little is [refused](Refusal), not qualified.

mod estimate;
mod plackett_luce;
mod reward_model;
#[cfg(test)]
mod simulation;

pub use estimate::{Diagnostics, Estimator, Floors, OffPolicyEstimate, Refusal, diagnose, estimate, naive};
pub use plackett_luce::PlackettLuce;
pub use reward_model::RewardModel;

/// One position of a logged list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// Probability of the shown movie here under the logging policy, given the movies above it.
    pub logging: f64,
    /// The same under the target policy.
    pub target: f64,
    /// Probability of the shown movie here whatever stands above it: (logging, target), where known.
    pub marginals: Option<(f64, f64)>,
    /// What the position earned.
    pub reward: f64,
    /// What the reward model expected of it; 0 without a model.
    pub predicted: f64,
}

impl Slot {
    fn ratio(&self) -> f64 {
        self.target / self.logging
    }
}

/// One logged list.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedList {
    /// The user, or what else makes lists dependent on each other.
    pub cluster: u64,
    /// The positions, from the top.
    pub slots: Vec<Slot>,
    /// What the reward model expects of a list drawn from the target; 0 without a model.
    pub direct: f64,
    /// Share of the target's positions that fall on movies which the logging policy could have shown.
    pub support: f64,
}

impl LoggedList {
    fn reward(&self) -> f64 {
        self.slots.iter().map(|slot| slot.reward).sum()
    }

    fn predicted(&self) -> f64 {
        self.slots.iter().map(|slot| slot.predicted).sum()
    }

    /// Probability of the whole list under the target over that under the logging policy.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.slots.iter().map(Slot::ratio).product()
    }
}
