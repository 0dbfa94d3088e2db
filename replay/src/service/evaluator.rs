//! Evaluates each window once it can no longer change, and publishes the figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Bus, Clock};
use marquee_schemas::{ModelVersion, QualityMetric, SchemaVersion};
use marquee_statistics::Estimate;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::evaluation::{EvaluationOptions, Schedule, Slice, SliceEvaluation, Window, evaluate};
use crate::lake::manifests;
use crate::table::Table;

const POLL: Duration = Duration::from_secs(1);

/// How long to leave an evaluation alone that failed.
const PAUSE: Duration = Duration::from_secs(60);

/// Next offset by table and partition.
type Positions = BTreeMap<(Table, i32), i64>;

/// Runs until `token` is cancelled. A window's figures are published before it is noted as done, so a kill between
/// the two publishes them again under the same ids, by which their readers recognise them.
pub(super) async fn run(
    config: &Config,
    bus: &Bus,
    clock: &Arc<dyn Clock>,
    token: &CancellationToken,
) -> Result<(), Error> {
    let mut evaluator = Evaluator {
        config,
        bus,
        publisher: bus.publisher("marquee-replay-evaluation")?,
        schedule: Schedule::open(&config.lake_dir, config.evaluation.clone())?,
        awaited: None,
    };
    let mut wait = POLL;
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        wait = POLL;
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            outcome = evaluator.step(clock.now_ms()) => match outcome {
                Ok(()) => {}
                Err(Error::Bus(error)) if error.is_transient() => {
                    tracing::warn!(%error, "the evaluation is postponed");
                }
                // The evaluation can be made up for; what must not stop for it is the sink.
                Err(Error::Sql(error)) => {
                    tracing::error!(%error, "the evaluation failed and will be tried again");
                    wait = PAUSE;
                }
                Err(error) => return Err(error),
            },
        }
    }
}

struct Evaluator<'a> {
    config: &'a Config,
    bus: &'a Bus,
    publisher: Publisher,
    schedule: Schedule,
    /// A window that is over, and how far the lake must have come to hold all of it.
    awaited: Option<(Window, Positions)>,
}

impl Evaluator<'_> {
    /// Evaluates the next window, if one is due and complete.
    async fn step(&mut self, now_ms: i64) -> Result<(), Error> {
        let Some(window) = self.schedule.due(now_ms)? else {
            return Ok(());
        };
        let ends = match self.awaited.take() {
            Some((awaited, ends)) if awaited == window => ends,
            _ => self.ends().await?,
        };
        if !self.holds(&ends)? {
            self.awaited = Some((window, ends));
            return Ok(());
        }
        let options = EvaluationOptions {
            attribution_window_ms: self.config.evaluation.attribution_window_ms,
            ..EvaluationOptions::default()
        };
        let evaluation = evaluate(&self.config.lake_dir, window.start_ms, window.end_ms, options).await?;
        let metrics: Vec<Outgoing> = evaluation
            .slices()
            .iter()
            .flat_map(|slice| metrics_of(slice, window, options.k))
            .map(|metric| Outgoing::of(&metric))
            .collect();
        self.publisher.publish_all(&metrics).await?;
        self.schedule.done(window)?;
        tracing::info!(
            window_start_ms = window.start_ms,
            window_end_ms = window.end_ms,
            metrics = metrics.len(),
            "evaluated what was served"
        );
        Ok(())
    }

    async fn ends(&self) -> Result<Positions, Error> {
        let mut ends = Positions::new();
        for table in [Table::RequestLogs, Table::Interactions] {
            let of_table = self.bus.watermarks(table.topic()).await?.ends();
            ends.extend(
                of_table
                    .into_iter()
                    .map(|(partition, end)| ((table, partition), end)),
            );
        }
        Ok(ends)
    }

    fn holds(&self, ends: &Positions) -> Result<bool, Error> {
        let mut positions = Positions::new();
        for table in [Table::RequestLogs, Table::Interactions] {
            for manifest in manifests(&self.config.lake_dir, table)? {
                positions.insert((table, manifest.partition), manifest.next_offset);
            }
        }
        Ok(ends
            .iter()
            .all(|(shard, &end)| positions.get(shard).copied().unwrap_or(0) >= end))
    }
}

/// The figures of one slice in one window. Ids follow from what is measured and when, never from the values.
fn metrics_of(slice: &SliceEvaluation, window: Window, k: usize) -> Vec<QualityMetric> {
    let version = slice.model_version.as_deref().unwrap_or("none");
    let (scope, population) = match &slice.slice {
        Slice::All => ("model", "all".to_owned()),
        Slice::Warm => ("model", "warm".to_owned()),
        Slice::Cold => ("model", "cold".to_owned()),
        Slice::Surface(name) => ("surface", name.to_string()),
        Slice::Arm { experiment, arm } => ("arm", format!("{experiment}/{arm}")),
    };
    let metric = |name: String, estimate: Estimate| QualityMetric {
        schema_version: SchemaVersion,
        metric_id: format!(
            "replay/{name}/{version}/{scope}/{population}/{}/{}",
            window.start_ms, window.end_ms
        ),
        name,
        scope: scope.into(),
        population: population.clone(),
        model_version: slice.model_version.clone().map(ModelVersion),
        value: estimate.value,
        lo: estimate.interval.map(|interval| interval.0),
        hi: estimate.interval.map(|interval| interval.1),
        n: estimate.n,
        window_start_ms: window.start_ms,
        window_end_ms: window.end_ms,
    };
    [
        (format!("next_interaction_hit_rate@{k}"), slice.hit_rate),
        (format!("next_interaction_ndcg@{k}"), slice.ndcg),
        (format!("next_interaction_mrr@{k}"), slice.mrr),
        ("ctr".to_owned(), slice.ctr),
    ]
    .into_iter()
    .filter_map(|(name, estimate)| Some(metric(name, estimate?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figures_id_follows_from_what_is_measured_and_when() {
        let slice = SliceEvaluation {
            model_version: Some("v000001".into()),
            slice: Slice::Warm,
            lists: 3,
            censored: 0,
            answered: 2,
            users: 2,
            hit_rate: Some(Estimate {
                value: 0.5,
                interval: Some((0.1, 0.9)),
                n: 2,
            }),
            precision: None,
            ndcg: None,
            mrr: None,
            ctr: None,
            seconds_to_answer: None,
            distinct_movies: 3,
            coverage: None,
            by_position: vec![],
        };
        let window = Window {
            start_ms: 0,
            end_ms: 600_000,
        };
        let metrics = metrics_of(&slice, window, 10);
        assert_eq!(metrics.len(), 1);
        assert_eq!(
            metrics[0].metric_id,
            "replay/next_interaction_hit_rate@10/v000001/model/warm/0/600000"
        );
        assert_eq!((metrics[0].lo, metrics[0].n), (Some(0.1), 2));
    }
}
