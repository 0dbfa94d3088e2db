//! Evaluates each window once it can no longer change, and publishes the figures.

use async_trait::async_trait;
use marquee_runtime::Bus;
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_schemas::{QualityMetric, online};

use super::rounds::{Round, Subject, Windows, figure};
use crate::config::Config;
use crate::error::Error;
use crate::evaluation::{EvaluationOptions, Pace, Slice, SliceEvaluation, Window, evaluate};
use crate::sql::SqlError;
use crate::table::Table;

/// The rounds of the evaluation. A window's figures are published before it is noted as done, so a kill between the two
/// publishes them again under the same ids, by which their readers recognise them.
///
/// Once a click has named a list, clicks are reported: windows without any show a rate of zero from then on, for a rate
/// that vanishes when it is lowest tells nobody that it fell.
pub(super) struct Evaluator<'a> {
    config: &'a Config,
    publisher: Publisher,
    windows: Windows<'a>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(config: &'a Config, bus: &'a Bus) -> Result<Self, Error> {
        let evaluation = &config.evaluation;
        let pace = Pace {
            name: "evaluation",
            every_ms: evaluation.every_ms,
            settles_ms: evaluation
                .attribution_window_ms
                .saturating_add(evaluation.delay_ms),
        };
        Ok(Self {
            config,
            publisher: bus.publisher("marquee-replay-evaluation")?,
            windows: Windows::open(
                &config.lake_dir,
                bus,
                pace,
                &[Table::RequestLogs, Table::Interactions],
            )?,
        })
    }
}

#[async_trait]
impl Round for Evaluator<'_> {
    async fn step(&mut self, now_ms: i64) -> Result<(), Error> {
        let Some(window) = self.windows.ready(now_ms).await? else {
            return Ok(());
        };
        let options = EvaluationOptions {
            attribution_window_ms: self.config.evaluation.attribution_window_ms,
            clicks_reported: self.windows.clicks_reported(),
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
        if evaluation.reports_clicks() {
            self.windows.note_clicks();
        }
        self.windows.done(window)?;
        tracing::info!(
            window_start_ms = window.start_ms,
            window_end_ms = window.end_ms,
            metrics = metrics.len(),
            "evaluated what was served"
        );
        Ok(())
    }

    async fn failed(&mut self, now_ms: i64, cause: &SqlError) -> Result<(), Error> {
        self.windows.failed(&self.publisher, now_ms, cause).await
    }
}

/// The figures of one slice in one window. Ids follow from what is measured and when, never from the values.
fn metrics_of(slice: &SliceEvaluation, window: Window, k: usize) -> Vec<QualityMetric> {
    let (scope, population) = match &slice.slice {
        Slice::All => ("model", "all".to_owned()),
        Slice::Warm => ("model", "warm".to_owned()),
        Slice::Cold => ("model", "cold".to_owned()),
        Slice::Surface(name) => ("surface", name.to_string()),
        Slice::Arm { experiment, arm } => ("arm", format!("{experiment}/{arm}")),
    };
    [
        (format!("next_interaction_hit_rate@{k}"), slice.hit_rate),
        (format!("next_interaction_ndcg@{k}"), slice.ndcg),
        (format!("next_interaction_mrr@{k}"), slice.mrr),
        (online::CTR.to_owned(), slice.clicked_lists),
        ("item_ctr".to_owned(), slice.ctr),
    ]
    .into_iter()
    .filter_map(|(name, estimate)| {
        Some(figure(
            Subject {
                name: &name,
                model_version: slice.model_version.as_deref(),
                scope,
                population: &population,
            },
            estimate?,
            window,
        ))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use marquee_statistics::Estimate;

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
            clicked_lists: Some(Estimate {
                value: 0.25,
                interval: None,
                n: 3,
            }),
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
        assert_eq!(metrics.len(), 2);
        // The figure that a rollout is judged by counts lists, not items.
        assert_eq!(
            (metrics[1].name.as_str(), metrics[1].value, metrics[1].n),
            ("ctr", 0.25, 3)
        );
        assert_eq!(
            metrics[0].metric_id,
            "replay/next_interaction_hit_rate@10/v000001/model/warm/0/600000"
        );
        assert_eq!((metrics[0].lo, metrics[0].n), (Some(0.1), 2));
    }
}
