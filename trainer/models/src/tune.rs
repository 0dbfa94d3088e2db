//! Hyperparameter search: a tree-structured Parzen estimator over the settings of the served model.
//!
//! Bergstra, Bardenet, Bengio, Kégl, "Algorithms for hyper-parameter optimization" (NeurIPS 2011, §4): after a few random
//! trials, points are drawn where good trials lie dense and bad ones thin. A proposal is a function of the seed and
//! of the trials before it, so that a search which was interrupted goes on as if it had not been.
//!
//! What a search may look at is [`Blind`]: a data set whose test segment is gone.

mod parzen;
mod space;

use serde::{Deserialize, Serialize};

pub use space::{Dimension, Scale, served_space};

use crate::Error;
use crate::evaluate::{Dataset, EvaluationOptions, ModelName, Population, Progress, Segment, prequential};
use crate::served::ServedParams;

/// A data set without its test segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Blind(Dataset);

impl Blind {
    /// Drops everything from the first event of the test segment on.
    #[must_use]
    pub fn new(dataset: Dataset) -> Self {
        Self(dataset.without_test())
    }

    /// The value that a search maximises: NDCG@10 of the served model over all events of the validation segment,
    /// predicted one after the other.
    ///
    /// # Errors
    /// Whatever a fit refuses; [`Error::Data`] if there is no positive event to predict.
    pub fn value(
        &self,
        params: &ServedParams,
        retrain_every: Option<usize>,
        seed: u64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<f64, Error> {
        let options = EvaluationOptions {
            segment: Segment::Validation,
            models: vec![ModelName::Served],
            params: params.clone(),
            retrain_every,
            seed,
            bootstrap_draws: 0,
        };
        prequential(&self.0, &options, progress)?
            .iter()
            .find(|row| row.population == Population::All)
            .map(|row| row.ndcg_10)
            .ok_or_else(|| Error::Data("the validation segment has no event to predict".into()))
    }
}

/// One point that was tried, by dimension of the space, and its value (larger is better).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its place in the search, from 0.
    pub index: usize,
    /// The settings, in the units of their dimensions and in the order of the space.
    pub point: Vec<f64>,
    /// What it was worth.
    pub value: f64,
}

/// Draws the point of trial `index`, given the trials before it (of which more may be missing than there are).
#[must_use]
pub fn propose(space: &[Dimension], before: &[Trial], index: usize, seed: u64) -> Vec<f64> {
    parzen::propose(space, before, index, seed)
}

/// `base` with the settings of a point.
///
/// # Errors
/// [`Error::Hyperparameter`] if the result is out of its domain, or the space names a setting that does not exist.
pub fn apply(base: &ServedParams, space: &[Dimension], point: &[f64]) -> Result<ServedParams, Error> {
    space::apply(base, space, point)
}

#[cfg(test)]
mod tests;
