//! From shadow to everybody, in steps, on evidence.
//!
//! A challenger that passes the gate serves first nobody (the shadow stage: recommenders score it on the side), then
//! 10% of the users, then 50%, then all; who belongs to a share is the recommenders' sticky hash. Each step is a
//! `rollout_step` of `model-events`; the end is `promoted` or `rolled_back`.
//!
//! The evidence are the figures of [`marquee_schemas::online`] in `quality-metrics`, of both models, in windows that
//! lie wholly inside the present stage, so that both arms met the same days and hours. Whenever new figures arrive
//! there are three answers:
//! - *roll back*: a figure is worse with confidence: clicks or hits below the champion's, or errors, fallbacks or
//!   latency above it by more than the configured margin;
//! - *advance*: the stage has lasted long enough, at least one of clicks and hits was measured on enough requests of
//!   either model, and every one that was is confidently no worse than the margin allows;
//! - *wait*: anything else. Too little evidence never promotes. But while a challenger waits no other model is trained,
//!   so a stage that has lasted for [`RolloutConfig::max_stage_ms`] ends the rollout: the champion stays.
//!
//! In the shadow nobody is served and there may be nothing to measure: that stage passes with its time, unless what was
//! measured speaks against it. A person may take each step, or end the rollout, at any time by a model command.

mod evidence;

use std::collections::BTreeMap;

use marquee_schemas::{ModelVersion, QualityMetric, online};
use serde::{Deserialize, Serialize};

use crate::Error;
use evidence::Difference;
pub use evidence::Evidence;

/// Shares of the users by stage; behind the last comes the promotion.
pub const SHARES: [f64; 3] = [0.0, 0.1, 0.5];

const HOUR_MS: i64 = 60 * 60 * 1000;

/// When a rollout goes on and when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// Whether challengers that pass the gate are rolled out in steps; otherwise they serve everybody at once. Steps
    /// need online figures, and so somebody who asks for lists and answers them.
    pub enabled: bool,
    /// Shortest stay in a stage, ms.
    pub min_stage_ms: i64,
    /// Longest stay in a stage, ms: a challenger about which the evidence still says too little is then given up.
    pub max_stage_ms: i64,
    /// Fewest requests of either model behind a figure that counts.
    pub min_requests: u64,
    /// Largest tolerated relative loss in clicks or hits.
    pub max_relative_loss: f64,
    /// Largest tolerated relative growth of the 95th percentile of latency.
    pub max_latency_growth: f64,
    /// Growth of it that is tolerated in any case, ms: a model that takes half a millisecond longer hurts nobody.
    pub free_latency_growth_ms: f64,
    /// Largest tolerated growth of the share of failed requests, absolute.
    pub max_error_growth: f64,
    /// Largest tolerated growth of the share of lists that are not personal, absolute.
    pub max_fallback_growth: f64,
    /// Standard errors that make a difference certain. Figures are looked at whenever they arrive, so this is more
    /// than the usual 1.96.
    pub certainty: f64,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            min_stage_ms: 10 * 60 * 1000,
            max_stage_ms: 3 * 24 * HOUR_MS,
            min_requests: 200,
            max_relative_loss: 0.10,
            max_latency_growth: 0.25,
            free_latency_growth_ms: 5.0,
            max_error_growth: 0.01,
            max_fallback_growth: 0.05,
            certainty: 2.576,
        }
    }
}

impl RolloutConfig {
    /// # Errors
    /// [`Error::Config`] naming the first setting outside its domain.
    pub fn check(&self) -> Result<(), Error> {
        let shares = [
            ("rollout.max_relative_loss", self.max_relative_loss),
            ("rollout.max_latency_growth", self.max_latency_growth),
            ("rollout.free_latency_growth_ms", self.free_latency_growth_ms),
            ("rollout.max_error_growth", self.max_error_growth),
            ("rollout.max_fallback_growth", self.max_fallback_growth),
            ("rollout.certainty", self.certainty),
            ("rollout.min_stage_ms", self.min_stage_ms as f64),
        ];
        if let Some((key, _)) = shares
            .into_iter()
            .find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err(Error::Config {
                key,
                detail: "must be a number that is not negative".to_owned(),
            });
        }
        if self.max_stage_ms < self.min_stage_ms {
            return Err(Error::Config {
                key: "rollout.max_stage_ms",
                detail: "must not be below rollout.min_stage_ms".to_owned(),
            });
        }
        Ok(())
    }
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The challenger.
    pub version: ModelVersion,
    /// Whom it is measured against.
    pub champion: ModelVersion,
    /// Index into [`SHARES`].
    pub stage: usize,
    /// When the stage began, ms.
    pub since_ms: i64,
    /// What was measured in this stage.
    pub evidence: Evidence,
}

/// What the evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// On to the next step.
    Advance,
    /// The champion serves everybody again.
    RollBack,
    /// Not enough to say.
    Wait,
}

/// An answer with its grounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// What to do.
    pub answer: Answer,
    /// Why, in a sentence.
    pub reason: String,
    /// The figures of both models, by metric: `ctr`, `champion_ctr`, `ctr_requests`, ...
    pub numbers: BTreeMap<String, f64>,
}

/// How a figure is read.
enum Reading {
    /// More is better; the relative loss is bounded.
    Benefit,
    /// Less is better; the absolute growth is bounded.
    Share(f64),
    /// Less is better; the relative growth is bounded, beyond an absolute one that is free.
    Relative { growth: f64, free: f64 },
}

impl Rollout {
    /// A rollout at its shadow stage.
    #[must_use]
    pub fn begin(version: ModelVersion, champion: ModelVersion, now_ms: i64) -> Self {
        Self {
            version,
            champion,
            stage: 0,
            since_ms: now_ms,
            evidence: Evidence::default(),
        }
    }

    /// Enters the next stage; `false` if this was the last.
    pub(crate) fn next_stage(&mut self, now_ms: i64) -> bool {
        if self.stage + 1 >= SHARES.len() {
            return false;
        }
        self.stage += 1;
        self.since_ms = now_ms;
        self.evidence = Evidence::default();
        true
    }

    /// Takes a figure, if it is about all lists of one of the two models in the present stage. Those about a part of the
    /// lists speak of lists that are in the whole already.
    pub(crate) fn observe(&mut self, figure: &QualityMetric) {
        let of_all = figure.scope == "model" && figure.population == "all";
        if !of_all || figure.window_start_ms < self.since_ms {
            return;
        }
        if figure.model_version.as_ref() == Some(&self.version) {
            self.evidence.add(figure, false);
        } else if figure.model_version.as_ref() == Some(&self.champion) {
            self.evidence.add(figure, true);
        }
    }

    /// What the evidence says at `now_ms`.
    #[must_use]
    pub fn judge(&self, config: &RolloutConfig, now_ms: i64) -> Judgement {
        let mut numbers = BTreeMap::new();
        let mut against = Vec::new();
        let mut doubts = Vec::new();
        let mut backed = Vec::new();
        for (name, reading) in [
            (online::CTR, Reading::Benefit),
            (online::HIT_RATE, Reading::Benefit),
            (online::ERROR_RATE, Reading::Share(config.max_error_growth)),
            (online::FALLBACK_RATE, Reading::Share(config.max_fallback_growth)),
            (
                online::LATENCY_P95_MS,
                Reading::Relative {
                    growth: config.max_latency_growth,
                    free: config.free_latency_growth_ms,
                },
            ),
        ] {
            let Some(difference) = self.evidence.difference(name, config.min_requests) else {
                continue;
            };
            numbers.insert(name.to_owned(), difference.challenger);
            numbers.insert(format!("champion_{name}"), difference.champion);
            numbers.insert(format!("{name}_requests"), difference.challenger_n as f64);
            let told = difference.told(name);
            match verdict_of(&difference, &reading, config) {
                (Answer::RollBack, _) => against.push(told),
                (Answer::Wait, _) => doubts.push(told),
                (Answer::Advance, true) => backed.push(told),
                (Answer::Advance, false) => {}
            }
        }
        let lasted_ms = now_ms - self.since_ms;
        let lasted = lasted_ms >= config.min_stage_ms;
        let share = SHARES[self.stage.min(SHARES.len() - 1)];
        let shadow = share == 0.0;
        let (mut answer, mut reason) = if !against.is_empty() {
            (Answer::RollBack, against.join("; "))
        } else if !lasted {
            (Answer::Wait, "the stage has not lasted long enough".to_owned())
        } else if !doubts.is_empty() {
            (Answer::Wait, format!("inconclusive: {}", doubts.join("; ")))
        } else if !backed.is_empty() {
            (Answer::Advance, backed.join("; "))
        } else if shadow {
            (
                Answer::Advance,
                "nothing measured in the shadow speaks against it".to_owned(),
            )
        } else {
            (
                Answer::Wait,
                format!(
                    "neither clicks nor hits were measured on {} requests of either model",
                    config.min_requests
                ),
            )
        };
        if answer == Answer::Wait && lasted_ms >= config.max_stage_ms {
            answer = Answer::RollBack;
            reason = format!(
                "the champion stays: {:.1} hours at {:.0}% of the users did not tell enough ({reason})",
                lasted_ms as f64 / HOUR_MS as f64,
                share * 100.0
            );
        }
        Judgement {
            answer,
            reason,
            numbers,
        }
    }
}

/// What one figure says, and whether it is a benefit.
fn verdict_of(difference: &Difference, reading: &Reading, config: &RolloutConfig) -> (Answer, bool) {
    let margin = config.certainty * difference.standard_error;
    let change = difference.challenger - difference.champion;
    match *reading {
        // Neither earned anything: that compares nothing.
        Reading::Benefit if difference.challenger <= 0.0 && difference.champion <= 0.0 => {
            (Answer::Advance, false)
        }
        Reading::Benefit => {
            let tolerated = config.max_relative_loss * difference.champion;
            let answer = if change + margin < 0.0 {
                Answer::RollBack
            } else if change - margin >= -tolerated {
                Answer::Advance
            } else {
                Answer::Wait
            };
            (answer, true)
        }
        Reading::Share(tolerated) => (guard(change, margin, tolerated), false),
        Reading::Relative { growth, free } => {
            let tolerated = (growth * difference.champion).max(free);
            (guard(change, margin, tolerated), false)
        }
    }
}

/// Growth beyond the tolerated one: certain rolls back, possible waits.
fn guard(change: f64, margin: f64, tolerated: f64) -> Answer {
    if change <= tolerated {
        Answer::Advance
    } else if change - margin > 0.0 {
        Answer::RollBack
    } else {
        Answer::Wait
    }
}

#[cfg(test)]
mod tests;
