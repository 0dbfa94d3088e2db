//! Result rows: flat, serialisable, each with its population, segment and number of cases.

use serde::{Deserialize, Serialize};

use super::Segment;
use super::contender::ModelName;
use crate::metrics::clustered_interval;

/// Cut-offs reported.
pub const CUTOFFS: [usize; 3] = [5, 10, 20];

/// Whose cases a row is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Population {
    /// Every case.
    All,
    /// Users in the data of the model's latest fit.
    Warm,
    /// Users not in it.
    Cold,
    /// Users without any earlier interaction (part of the cold ones).
    NoHistory,
}

impl Population {
    /// Every population, in the order of reports.
    pub const ALL: [Self; 4] = [Self::All, Self::Warm, Self::Cold, Self::NoHistory];
}

/// One model's figures over one population.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the serialised names are the metrics' own; see crate::metrics"
)]
pub struct ResultRow {
    pub protocol: String,
    pub model: String,
    pub population: Population,
    pub segment: Segment,
    /// Cases: events (prequential) or users (static).
    pub n: usize,
    /// Different users among them.
    pub users: usize,
    #[serde(rename = "ndcg@5")]
    pub ndcg_5: f64,
    #[serde(rename = "ndcg@10")]
    pub ndcg_10: f64,
    #[serde(rename = "ndcg@20")]
    pub ndcg_20: f64,
    #[serde(rename = "ndcg@10_lo")]
    pub ndcg_10_lo: f64,
    #[serde(rename = "ndcg@10_hi")]
    pub ndcg_10_hi: f64,
    #[serde(rename = "hr@5")]
    pub hr_5: f64,
    #[serde(rename = "hr@10")]
    pub hr_10: f64,
    #[serde(rename = "hr@20")]
    pub hr_20: f64,
    #[serde(rename = "hr@10_lo")]
    pub hr_10_lo: f64,
    #[serde(rename = "hr@10_hi")]
    pub hr_10_hi: f64,
    #[serde(rename = "recall@5")]
    pub recall_5: f64,
    #[serde(rename = "recall@10")]
    pub recall_10: f64,
    #[serde(rename = "recall@20")]
    pub recall_20: f64,
    #[serde(rename = "precision@5")]
    pub precision_5: f64,
    #[serde(rename = "precision@10")]
    pub precision_10: f64,
    #[serde(rename = "precision@20")]
    pub precision_20: f64,
    #[serde(rename = "map@5")]
    pub map_5: f64,
    #[serde(rename = "map@10")]
    pub map_10: f64,
    #[serde(rename = "map@20")]
    pub map_20: f64,
    pub mrr: f64,
    /// Share of the movies in anyone's top 100, over the whole segment (the same in every population's row).
    #[serde(rename = "coverage@100")]
    pub coverage_100: f64,
}

/// The figures of one case, by cut-off in the order of [`CUTOFFS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Case {
    pub(super) user: u32,
    pub(super) warm: bool,
    pub(super) has_history: bool,
    pub(super) ndcg: [f64; 3],
    pub(super) hit: [f64; 3],
    pub(super) recall: [f64; 3],
    pub(super) precision: [f64; 3],
    pub(super) average_precision: [f64; 3],
    pub(super) reciprocal_rank: f64,
}

impl Case {
    fn is_of(&self, population: Population) -> bool {
        match population {
            Population::All => true,
            Population::Warm => self.warm,
            Population::Cold => !self.warm,
            Population::NoHistory => !self.has_history,
        }
    }
}

/// What all rows of one evaluation share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heading {
    pub(super) protocol: &'static str,
    pub(super) segment: Segment,
    pub(super) draws: usize,
    pub(super) seed: u64,
}

/// One row per population that has a case.
pub(super) fn rows(
    heading: Heading,
    model: ModelName,
    cases: &[Case],
    coverage: f64,
    populations: &[Population],
) -> Vec<ResultRow> {
    populations
        .iter()
        .filter_map(|&population| {
            let chosen: Vec<&Case> = cases.iter().filter(|case| case.is_of(population)).collect();
            row(heading, model, population, &chosen, coverage)
        })
        .collect()
}

fn row(
    heading: Heading,
    model: ModelName,
    population: Population,
    cases: &[&Case],
    coverage: f64,
) -> Option<ResultRow> {
    let clusters: Vec<u32> = cases.iter().map(|case| case.user).collect();
    let mut users = clusters.clone();
    users.sort_unstable();
    users.dedup();
    let mean =
        |of: &dyn Fn(&Case) -> f64| cases.iter().map(|case| of(case)).sum::<f64>() / cases.len() as f64;
    let at = |of: &dyn Fn(&Case) -> [f64; 3]| [0, 1, 2].map(|cutoff| mean(&|case| of(case)[cutoff]));
    let interval = |of: &dyn Fn(&Case) -> f64| {
        let values: Vec<f64> = cases.iter().map(|case| of(case)).collect();
        clustered_interval(&values, &clusters, heading.draws, heading.seed)
    };
    let ndcg_interval = interval(&|case| case.ndcg[1])?;
    let hr_interval = interval(&|case| case.hit[1])?;
    let [ndcg_5, ndcg_10, ndcg_20] = at(&|case| case.ndcg);
    let [hr_5, hr_10, hr_20] = at(&|case| case.hit);
    let [recall_5, recall_10, recall_20] = at(&|case| case.recall);
    let [precision_5, precision_10, precision_20] = at(&|case| case.precision);
    let [map_5, map_10, map_20] = at(&|case| case.average_precision);
    Some(ResultRow {
        protocol: heading.protocol.to_owned(),
        model: model.name().to_owned(),
        population,
        segment: heading.segment,
        n: cases.len(),
        users: users.len(),
        ndcg_5,
        ndcg_10,
        ndcg_20,
        ndcg_10_lo: ndcg_interval.lo,
        ndcg_10_hi: ndcg_interval.hi,
        hr_5,
        hr_10,
        hr_20,
        hr_10_lo: hr_interval.lo,
        hr_10_hi: hr_interval.hi,
        recall_5,
        recall_10,
        recall_20,
        precision_5,
        precision_10,
        precision_20,
        map_5,
        map_10,
        map_20,
        mrr: mean(&|case| case.reciprocal_rank),
        coverage_100: coverage,
    })
}
