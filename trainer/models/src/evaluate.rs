//! The protocols by which models are judged, over data in memory; no I/O.
//!
//! [`Dataset::prepare`] filters and splits. [`prequential`] replays a segment event by event, each predicted from
//! what happened strictly before it, with the state and the model that serve. [`static_eval`] ranks once per warm
//! user. [`random_split`] compares implementations on pairs without time. All give [`ResultRow`]s: a figure without its population and segment is worthless.

pub mod contender;
pub mod dataset;
mod frozen;
mod prequential;
mod random_split;
pub mod result;

pub use contender::ModelName;
pub use dataset::{Dataset, RawRating, Segment};
pub use frozen::static_eval;
pub use prequential::prequential;
pub use random_split::random_split;
pub use result::{Population, ResultRow, StarErrors};

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::served::ServedParams;

/// What to judge, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationOptions {
    /// Where the targets lie; [`Segment::Train`] cannot be judged.
    pub segment: Segment,
    /// Who competes.
    pub models: Vec<ModelName>,
    /// Settings of the served model.
    pub params: ServedParams,
    /// Prequential only: every model is refitted once this many further interactions were revealed; `None` for never.
    pub retrain_every: Option<usize>,
    /// Seed of fits and of the bootstrap.
    pub seed: u64,
    /// Draws per bootstrap interval.
    pub bootstrap_draws: usize,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            segment: Segment::Validation,
            models: vec![ModelName::Served],
            params: ServedParams::default(),
            retrain_every: Some(3000),
            seed: 0,
            bootstrap_draws: 1000,
        }
    }
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Interactions (prequential) or users (static, random split) done, summed over the models.
    pub done: usize,
    /// Of how many.
    pub total: usize,
}

/// Adds up what parallel models have done.
struct Meter<'a> {
    done: AtomicUsize,
    total: usize,
    report: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Meter<'a> {
    fn new(total: usize, report: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self {
            done: AtomicUsize::new(0),
            total,
            report,
        }
    }

    fn add(&self, more: usize) {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        (self.report)(Progress {
            done,
            total: self.total,
        });
    }
}

#[cfg(test)]
mod tests;
