//! Which model becomes champion, and why.
//!
//! # The rule
//! Champion and challenger are judged on the same users and the same held-out interactions, none of which the
//! champion has learned from (see [`crate::run`]). In this order:
//! 1. A model with a score or metric that is not finite never passes.
//! 2. Without a champion the first sound model passes as *bootstrap*.
//! 3. With at least [`GateConfig::min_users`] users the challenger passes if its NDCG@10 is at least
//!    `champion × (1 + min_relative_gain)` and, with [`GateConfig::require_significance`], the lower bound of the
//!    95% paired bootstrap interval over users is not below zero.
//! 4. With fewer users, [`GateConfig::little_evidence`] decides: by default the challenger passes if the mean paired
//!    difference is not negative. With no user at all nothing was compared, and the champion stays.
//!
//! The defaults ask only that the challenger be *not worse*: it is the same recipe on fresher data, and freshness that
//! costs nothing is worth having. An experiment with another recipe should set a gain and ask for significance.

use std::collections::BTreeMap;

use marquee_models::metrics::paired_interval;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::evaluate::Scorecard;

/// Name of the metric that decides.
pub const PRIMARY: &str = "ndcg@10";

/// What to do when too few users could be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LittleEvidence {
    /// Promote if the mean paired difference is not negative.
    PromoteIfNotWorse,
    /// Keep the champion.
    KeepChampion,
}

/// What a challenger must show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// Relative gain in NDCG@10 over the champion; 0.01 asks for one percent, a negative value tolerates a loss.
    pub min_relative_gain: f64,
    /// Whether the paired interval's lower bound must not be below zero.
    pub require_significance: bool,
    /// Fewest users of a comparison that counts as evidence.
    pub min_users: usize,
    /// What to do with fewer.
    pub little_evidence: LittleEvidence,
    /// Draws of the paired bootstrap.
    pub bootstrap_draws: usize,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            min_relative_gain: 0.0,
            require_significance: false,
            min_users: 30,
            little_evidence: LittleEvidence::PromoteIfNotWorse,
            bootstrap_draws: 1000,
        }
    }
}

impl GateConfig {
    /// # Errors
    /// [`Error::Config`] naming the first setting outside its domain.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key, detail: &str| {
            Err(Error::Config {
                key,
                detail: detail.to_owned(),
            })
        };
        if !(self.min_relative_gain > -1.0 && self.min_relative_gain < 10.0) {
            return refuse("gate.min_relative_gain", "must lie between -1 and 10");
        }
        if self.bootstrap_draws == 0 || self.bootstrap_draws > 1_000_000 {
            return refuse("gate.bootstrap_draws", "must lie between 1 and 1000000");
        }
        Ok(())
    }
}

/// On which ground it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Promoted: there was no champion.
    Bootstrap,
    /// Promoted: not worse by the rule, on enough users.
    NotWorse,
    /// Promoted on little evidence.
    NotWorseOnLittleEvidence,
    /// Kept the champion: the challenger is worse, or its gain is not proven as asked.
    NotProven,
    /// Kept the champion: nobody could be compared, or too few and configuration says so.
    TooLittleEvidence,
    /// Kept the champion: the challenger is broken.
    Unsound,
}

/// The gate's answer with everything that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the challenger becomes champion.
    pub promoted: bool,
    /// On which ground.
    pub verdict: Verdict,
    /// The same in a sentence.
    pub reason: String,
    /// The numbers; all finite.
    pub numbers: BTreeMap<String, f64>,
}

/// Decides about `challenger`. `champion` was scored on the same users in the same order.
#[must_use]
pub fn decide(
    challenger: &Scorecard,
    champion: Option<&Scorecard>,
    config: &GateConfig,
    seed: u64,
) -> Decision {
    let mut numbers = challenger.metrics.clone();
    let own = challenger.metric(PRIMARY);
    if !challenger.is_sound() {
        return answer(
            Verdict::Unsound,
            format!("{} scores or metrics are not finite", challenger.unsound.max(1)),
            numbers,
        );
    }
    let Some(champion) = champion else {
        let reason = match own {
            Some(own) => format!("first model: NDCG@10 {own:.4} over {} users", challenger.users()),
            None => "first model: no user to evaluate on".to_owned(),
        };
        return answer(Verdict::Bootstrap, reason, numbers);
    };
    for (name, value) in &champion.metrics {
        numbers.insert(format!("champion_{name}"), *value);
    }
    if !champion.is_sound() {
        // Whatever serves now is broken; the sound challenger cannot be worse.
        return answer(
            Verdict::NotWorse,
            "the champion's scores are not finite".to_owned(),
            numbers,
        );
    }
    let clusters: Vec<u32> = (0..challenger.ndcg.len() as u32).collect();
    let interval = paired_interval(
        &challenger.ndcg,
        &champion.ndcg,
        &clusters,
        config.bootstrap_draws,
        seed,
    );
    let (Some(own), Some(theirs), Some(interval)) = (own, champion.metric(PRIMARY), interval) else {
        return answer(
            Verdict::TooLittleEvidence,
            "no user with interactions that the champion has not learned from: nothing to compare".to_owned(),
            numbers,
        );
    };
    numbers.insert("difference_ndcg@10".into(), interval.mean);
    numbers.insert("difference_ndcg@10_lo".into(), interval.lo);
    numbers.insert("difference_ndcg@10_hi".into(), interval.hi);
    let required = theirs * (1.0 + config.min_relative_gain);
    numbers.insert("required_ndcg@10".into(), required);
    let figures = format!(
        "NDCG@10 {own:.4} against {theirs:.4} of the champion over {} users (difference {:+.4}, 95% interval {:+.4} \
         to {:+.4})",
        challenger.users(),
        interval.mean,
        interval.lo,
        interval.hi
    );
    if challenger.users() < config.min_users {
        let passes = config.little_evidence == LittleEvidence::PromoteIfNotWorse && interval.mean >= 0.0;
        let verdict = if passes {
            Verdict::NotWorseOnLittleEvidence
        } else {
            Verdict::TooLittleEvidence
        };
        let reason = format!(
            "{figures}; fewer than the {} users of sound evidence",
            config.min_users
        );
        return answer(verdict, reason, numbers);
    }
    if own < required {
        let reason = format!("{figures}; required was {required:.4}");
        return answer(Verdict::NotProven, reason, numbers);
    }
    if config.require_significance && interval.lo < 0.0 {
        let reason = format!("{figures}; the interval must not reach below zero");
        return answer(Verdict::NotProven, reason, numbers);
    }
    answer(Verdict::NotWorse, figures, numbers)
}

fn answer(verdict: Verdict, reason: String, mut numbers: BTreeMap<String, f64>) -> Decision {
    // JSON has no NaN; what is not finite is told by the reason.
    numbers.retain(|_, value| value.is_finite());
    let promoted = matches!(
        verdict,
        Verdict::Bootstrap | Verdict::NotWorse | Verdict::NotWorseOnLittleEvidence
    );
    Decision {
        promoted,
        verdict,
        reason,
        numbers,
    }
}

#[cfg(test)]
mod tests;
