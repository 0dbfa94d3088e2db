//! What is measured of the champion, against floors and against its own beginnings.

use std::collections::BTreeMap;

use marquee_schemas::{ModelVersion, QualityMetric};
use serde::{Deserialize, Serialize};

use super::TriggerConfig;

/// How one metric of the champion has fared.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Standing {
    baseline_sum: f64,
    baseline_windows: u32,
    pub(super) last: f64,
    last_end_ms: i64,
    /// Windows running below the floor.
    pub(super) below_floor: u32,
    /// Windows running below what the baseline allows.
    pub(super) dropped: u32,
}

impl Standing {
    /// The mean of the first windows, once there are enough.
    pub(super) fn baseline(&self, config: &TriggerConfig) -> Option<f64> {
        (self.baseline_windows >= config.baseline_windows)
            .then(|| self.baseline_sum / f64::from(self.baseline_windows))
    }
}

/// Every metric of the champion that a rule is about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Metrics {
    by_name: BTreeMap<String, Standing>,
}

/// A metric of which less is better.
fn is_error(name: &str) -> bool {
    name.starts_with("rmse")
}

impl Metrics {
    /// Takes a window's value. `false` if no rule is about it, if it is not the champion's or rests on too little, or
    /// if its window lies before one already taken.
    pub(super) fn take(
        &mut self,
        config: &TriggerConfig,
        champion: Option<&ModelVersion>,
        metric: &QualityMetric,
    ) -> bool {
        let relevant = config.metric_floors.contains_key(&metric.name)
            || config.metric_drops.contains_key(&metric.name)
            || metric.name == config.ctr_metric;
        let usable = champion.is_some()
            && metric.model_version.as_ref() == champion
            && metric.population == "all"
            && metric.n >= config.metric_min_observations
            && metric.value.is_finite();
        if !relevant || !usable {
            return false;
        }
        let standing = self.by_name.entry(metric.name.clone()).or_default();
        if metric.window_end_ms <= standing.last_end_ms {
            return false;
        }
        standing.last = metric.value;
        standing.last_end_ms = metric.window_end_ms;
        let floor = config.metric_floors.get(&metric.name);
        standing.below_floor = running(
            standing.below_floor,
            floor.is_some_and(|&floor| metric.value < floor),
        );
        match standing.baseline(config) {
            None => {
                standing.baseline_sum += metric.value;
                standing.baseline_windows += 1;
            }
            Some(baseline) => {
                let limit = config.limit(&metric.name, baseline);
                standing.dropped = running(
                    standing.dropped,
                    limit.is_some_and(|limit| has_dropped(metric, baseline, limit)),
                );
            }
        }
        true
    }

    pub(super) fn of(&self, name: &str) -> Option<&Standing> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Standing)> {
        self.by_name
            .iter()
            .map(|(name, standing)| (name.as_str(), standing))
    }

    /// The newest window taken.
    pub(super) fn newest_ms(&self) -> i64 {
        self.by_name
            .values()
            .map(|standing| standing.last_end_ms)
            .max()
            .unwrap_or(0)
    }

    /// Begins the counts of bad windows anew, after they have been answered.
    pub(super) fn answered(&mut self) {
        for standing in self.by_name.values_mut() {
            standing.below_floor = 0;
            standing.dropped = 0;
        }
    }
}

impl TriggerConfig {
    /// The value that a metric with this baseline must not fall below, or, if it measures errors, not rise above.
    pub(super) fn limit(&self, name: &str, baseline: f64) -> Option<f64> {
        let allowed = if name == self.ctr_metric {
            self.ctr_drop
        } else {
            *self.metric_drops.get(name)?
        };
        Some(
            baseline
                * if is_error(name) {
                    1.0 + allowed
                } else {
                    1.0 - allowed
                },
        )
    }
}

fn running(windows: u32, bad: bool) -> u32 {
    if bad { windows.saturating_add(1) } else { 0 }
}

/// Whether the value is at the limit or beyond, and its interval, where there is one, leaves no doubt that it is worse
/// than the baseline.
fn has_dropped(metric: &QualityMetric, baseline: f64, limit: f64) -> bool {
    if is_error(&metric.name) {
        metric.value >= limit && metric.lo.is_none_or(|lo| lo > baseline)
    } else {
        metric.value <= limit && metric.hi.is_none_or(|hi| hi < baseline)
    }
}
