//! Result rows: flat, serialisable, each with its population, segment and number of cases.

use serde::{Deserialize, Serialize};

use super::Segment;
use super::contender::ModelName;
use crate::metrics::{
    RatingError, clustered_interval, first_relevant, hit, list_metrics, rating_error, reciprocal_rank,
    single_ndcg,
};

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
    /// Errors of the predicted stars, where the model predicts any.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub stars: Option<StarErrors>,
}

/// How far predicted stars are from given ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StarErrors {
    /// Ratings compared.
    pub ratings: usize,
    /// See [`RatingError`].
    #[serde(flatten)]
    pub errors: RatingError,
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
    /// A list against the items that should be in it; `None` if there are none.
    pub(super) fn of_list(user: u32, ranked: &[u32], truth: &[u32]) -> Option<Self> {
        let [a, b, c] = CUTOFFS.map(|k| list_metrics(ranked, truth, k));
        let all = [a?, b?, c?];
        Some(Self {
            user,
            warm: true,
            has_history: true,
            ndcg: all.map(|metrics| metrics.ndcg),
            hit: all.map(|metrics| metrics.hit),
            recall: all.map(|metrics| metrics.recall),
            precision: all.map(|metrics| metrics.precision),
            average_precision: all.map(|metrics| metrics.average_precision),
            reciprocal_rank: first_relevant(ranked, truth),
        })
    }

    /// One target at its rank: recall equals the hit, and average precision the reciprocal rank inside the cut-off.
    pub(super) fn of_event(user: u32, rank: f64, warm: bool, has_history: bool) -> Self {
        Self {
            user,
            warm,
            has_history,
            ndcg: CUTOFFS.map(|k| single_ndcg(rank, k)),
            hit: CUTOFFS.map(|k| hit(rank, k)),
            recall: CUTOFFS.map(|k| hit(rank, k)),
            precision: CUTOFFS.map(|k| hit(rank, k) / k as f64),
            average_precision: CUTOFFS.map(|k| hit(rank, k) * reciprocal_rank(rank)),
            reciprocal_rank: reciprocal_rank(rank),
        }
    }
}

/// One rating, foretold and given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RatingCase {
    pub(super) warm: bool,
    pub(super) has_history: bool,
    pub(super) predicted: f64,
    pub(super) given: f64,
}

impl Population {
    fn holds(self, warm: bool, has_history: bool) -> bool {
        match self {
            Self::All => true,
            Self::Warm => warm,
            Self::Cold => !warm,
            Self::NoHistory => !has_history,
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
    ratings: &[RatingCase],
    coverage: f64,
    populations: &[Population],
) -> Vec<ResultRow> {
    populations
        .iter()
        .filter_map(|&population| {
            let chosen: Vec<&Case> = cases
                .iter()
                .filter(|case| population.holds(case.warm, case.has_history))
                .collect();
            let stars: Vec<(f64, f64)> = ratings
                .iter()
                .filter(|rating| population.holds(rating.warm, rating.has_history))
                .map(|rating| (rating.predicted, rating.given))
                .collect();
            let stars = rating_error(&stars).map(|errors| StarErrors {
                ratings: stars.len(),
                errors,
            });
            row(heading, model, population, &chosen, stars, coverage)
        })
        .collect()
}

fn row(
    heading: Heading,
    model: ModelName,
    population: Population,
    cases: &[&Case],
    stars: Option<StarErrors>,
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
        stars,
    })
}
