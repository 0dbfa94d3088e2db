//! When to ask for a training.

use std::collections::BTreeMap;
use std::str::FromStr;

use croner::Cron;
use serde::{Deserialize, Serialize};

use crate::Error;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// When to ask for a training. Counts are of *history interactions* ([`marquee_schemas::Kind::is_history`]) applied
/// by this process, over all its partitions.
///
/// Each default is the value of the policy named with it. Shares are fractions: 0.2 is 20%.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TriggerConfig {
    /// The first training waits for this many interactions ...
    pub bootstrap_min_interactions: u64,
    /// ... of at least this many users.
    pub bootstrap_min_users: u64,
    /// After the first: one request per this many further interactions (data-volume policy).
    pub volume_interactions: u64,
    /// ... or once there are this share more interactions than at the last training (data-volume policy).
    pub interaction_growth: f64,
    /// ... or this share more users (data-volume policy).
    pub user_growth: f64,
    /// The longest time between trainings, ms (schedule policy).
    pub max_model_age_ms: i64,
    /// Times to train at, as a cron expression of five fields in UTC, for example `0 4 * * 1`; empty for none.
    pub schedule: String,
    /// Windows running whose data must have been anomalous (data-quality policy).
    pub quality_windows: u32,
    /// Values that a metric of the champion must not fall below, by the metric's name (performance policy).
    pub metric_floors: BTreeMap<String, f64>,
    /// Shares that a technical metric of the champion may lose against its baseline, by name (performance policy). Of
    /// a metric whose name begins with `rmse`: the share that it may gain.
    pub metric_drops: BTreeMap<String, f64>,
    /// How many technical metrics must have dropped at a time (performance policy).
    pub metric_drops_needed: usize,
    /// The metric whose fall is answered without waiting for the cooldown (business policy) ...
    pub ctr_metric: String,
    /// ... and the share it may lose.
    pub ctr_drop: f64,
    /// The hit rate that ADWIN watches for a fall.
    pub hit_rate_metric: String,
    /// Windows running in which a metric must be too low: one bad window is no trend.
    pub metric_windows: u32,
    /// A champion's first windows, whose mean is its baseline.
    pub baseline_windows: u32,
    /// Windows with fewer observations behind a metric say nothing.
    pub metric_min_observations: u64,
    /// The shortest time between the end of a training and the next request, ms. Volume, the first request and a fall
    /// of `ctr_metric` do not wait.
    pub cooldown_ms: i64,
    /// The fewest interactions between a training and the next request; the same do not wait.
    pub cooldown_interactions: u64,
    /// A request that nobody has answered for so long counts as lost, ms.
    pub in_flight_timeout_ms: i64,
    /// A decision is published at least this often, ms of wall time, and ...
    pub decide_every_ms: i64,
    /// ... once per this many interactions, whether or not anything is due.
    pub decide_every_interactions: u64,
}

impl Default for TriggerConfig {
    fn default() -> Self {
        let named = |values: &[(&str, f64)]| {
            values
                .iter()
                .map(|&(name, value)| (name.to_owned(), value))
                .collect()
        };
        Self {
            bootstrap_min_interactions: 2_000,
            bootstrap_min_users: 50,
            volume_interactions: 10_000,
            interaction_growth: 0.20,
            user_growth: 0.10,
            max_model_age_ms: 14 * 24 * HOUR_MS,
            schedule: String::new(),
            quality_windows: 2,
            // Half of what popularity alone reaches: a model below that does not work.
            metric_floors: named(&[("mrr", 0.02), ("precision@10", 0.005), ("recall@10", 0.05)]),
            metric_drops: named(&[
                ("mrr", 0.10),
                ("precision@10", 0.15),
                ("recall@10", 0.15),
                ("ndcg@10", 0.08),
                ("rmse", 0.05),
                ("next_interaction_hit_rate@10", 0.15),
                ("next_interaction_ndcg@10", 0.08),
            ]),
            metric_drops_needed: 2,
            ctr_metric: "ctr".into(),
            ctr_drop: 0.15,
            hit_rate_metric: "next_interaction_hit_rate@10".into(),
            metric_windows: 2,
            baseline_windows: 3,
            metric_min_observations: 100,
            cooldown_ms: HOUR_MS / 4,
            cooldown_interactions: 1_000,
            in_flight_timeout_ms: 6 * HOUR_MS,
            decide_every_ms: HOUR_MS,
            decide_every_interactions: 5_000,
        }
    }
}

impl TriggerConfig {
    /// The schedule, if there is one.
    ///
    /// # Errors
    /// [`Error::Config`] if it is no cron expression.
    pub(crate) fn cron(&self) -> Result<Option<Cron>, Error> {
        if self.schedule.is_empty() {
            return Ok(None);
        }
        Cron::from_str(&self.schedule)
            .map(Some)
            .map_err(|error| Error::Config(format!("triggers.schedule: {error}")))
    }

    /// What cannot work, by name.
    pub(crate) fn faults(&self) -> Option<&'static str> {
        let positive = |share: f64| share.is_finite() && share > 0.0;
        let checks = [
            (
                self.volume_interactions == 0,
                "triggers.volume_interactions is zero",
            ),
            (
                !positive(self.interaction_growth),
                "triggers.interaction_growth is not positive",
            ),
            (
                !positive(self.user_growth),
                "triggers.user_growth is not positive",
            ),
            (!positive(self.ctr_drop), "triggers.ctr_drop is not positive"),
            (
                !self.metric_drops.values().copied().all(positive),
                "triggers.metric_drops holds a share that is not positive",
            ),
            (
                !self.metric_floors.values().all(|floor| floor.is_finite()),
                "triggers.metric_floors holds a value that is no number",
            ),
            (
                self.metric_drops_needed == 0,
                "triggers.metric_drops_needed is zero",
            ),
            (
                self.max_model_age_ms <= 0,
                "triggers.max_model_age_ms is not positive",
            ),
            (self.quality_windows == 0, "triggers.quality_windows is zero"),
            (self.metric_windows == 0, "triggers.metric_windows is zero"),
            (self.baseline_windows == 0, "triggers.baseline_windows is zero"),
            (
                self.decide_every_ms <= 0,
                "triggers.decide_every_ms is not positive",
            ),
            (
                self.decide_every_interactions == 0,
                "triggers.decide_every_interactions is zero",
            ),
        ];
        checks.iter().find(|(broken, _)| *broken).map(|&(_, what)| what)
    }
}
