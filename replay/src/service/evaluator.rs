//! Evaluates each window once it can no longer change, and publishes the figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::Outgoing;
use marquee_runtime::{Bus, Clock};
use marquee_schemas::{ModelVersion, QualityMetric, SchemaVersion};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::evaluation::{Estimate, EvaluationOptions, ModelEvaluation, Schedule, Window, evaluate};
use crate::lake::manifests;
use crate::table::Table;

const POLL: Duration = Duration::from_secs(1);

/// Runs until `token` is cancelled. A window's figures are published before it is noted as done, so a kill between
/// the two publishes them again under the same ids, by which their readers recognise them.
pub(super) async fn run(
    config: &Config,
    bus: &Bus,
    clock: &Arc<dyn Clock>,
    token: &CancellationToken,
) -> Result<(), Error> {
    let mut schedule = Schedule::open(&config.lake_dir, config.evaluation.clone())?;
    let publisher = bus.publisher("marquee-replay-evaluation")?;
    let options = EvaluationOptions {
        attribution_window_ms: config.evaluation.attribution_window_ms,
        ..EvaluationOptions::default()
    };
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
        let Some(window) = schedule.due(clock.now_ms())? else {
            continue;
        };
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            outcome = evaluate_window(config, bus, &publisher, window, options) => match outcome {
                Ok(true) => schedule.done(window)?,
                Ok(false) => {}
                Err(Error::Bus(error)) if error.is_transient() => {
                    tracing::warn!(%error, "the evaluation is postponed");
                }
                Err(error) => return Err(error),
            },
        }
    }
}

/// Whether the window was evaluated; it is not while the lake lags behind the topics.
async fn evaluate_window(
    config: &Config,
    bus: &Bus,
    publisher: &marquee_runtime::bus::Publisher,
    window: Window,
    options: EvaluationOptions,
) -> Result<bool, Error> {
    if !is_caught_up(config, bus).await? {
        return Ok(false);
    }
    let models = evaluate(&config.lake_dir, window.start_ms, window.end_ms, options).await?;
    let metrics: Vec<QualityMetric> = models
        .iter()
        .flat_map(|model| metrics_of(model, window, options.k))
        .collect();
    let outgoing: Vec<Outgoing> = metrics.iter().map(Outgoing::of).collect();
    publisher.publish_all(&outgoing).await?;
    tracing::info!(
        window_start_ms = window.start_ms,
        window_end_ms = window.end_ms,
        models = models.len(),
        metrics = metrics.len(),
        "evaluated what was served"
    );
    Ok(true)
}

/// Whether the lake holds, but for the last flush, everything the topics hold. The log's end moves on while the
/// service runs, so what matters is that the lag is no more than a flush's worth.
async fn is_caught_up(config: &Config, bus: &Bus) -> Result<bool, Error> {
    let mut lag = 0;
    for table in [Table::RequestLogs, Table::Interactions] {
        let ends = bus.watermarks(table.topic()).await?.ends();
        let positions: BTreeMap<i32, i64> = manifests(&config.lake_dir, table)?
            .iter()
            .map(|manifest| (manifest.partition, manifest.next_offset))
            .collect();
        for (partition, end) in ends {
            lag += end - positions.get(&partition).copied().unwrap_or(0);
        }
    }
    Ok(lag <= i64::try_from(config.flush.max_rows).unwrap_or(i64::MAX))
}

/// The figures of one model in one window. Ids follow from what is measured and when, never from the values.
fn metrics_of(model: &ModelEvaluation, window: Window, k: usize) -> Vec<QualityMetric> {
    let version = model.model_version.as_deref().unwrap_or("none");
    let metric = |name: String, estimate: Estimate| QualityMetric {
        schema_version: SchemaVersion,
        metric_id: format!("replay/{name}/{version}/{}/{}", window.start_ms, window.end_ms),
        name,
        scope: "model".into(),
        population: "all".into(),
        model_version: model.model_version.clone().map(ModelVersion),
        value: estimate.value,
        lo: estimate.interval.map(|interval| interval.0),
        hi: estimate.interval.map(|interval| interval.1),
        n: estimate.n,
        window_start_ms: window.start_ms,
        window_end_ms: window.end_ms,
    };
    [
        (format!("next_interaction_hit_rate@{k}"), model.hit_rate),
        (format!("next_interaction_ndcg@{k}"), model.ndcg),
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
        let model = ModelEvaluation {
            model_version: Some("v000001".into()),
            lists: 3,
            answered: 2,
            users: 2,
            hit_rate: Some(Estimate {
                value: 0.5,
                interval: Some((0.1, 0.9)),
                n: 2,
            }),
            ndcg: None,
        };
        let window = Window {
            start_ms: 0,
            end_ms: 600_000,
        };
        let metrics = metrics_of(&model, window, 10);
        assert_eq!(metrics.len(), 1);
        assert_eq!(
            metrics[0].metric_id,
            "replay/next_interaction_hit_rate@10/v000001/0/600000"
        );
        assert_eq!((metrics[0].lo, metrics[0].n), (Some(0.1), 2));
    }
}
