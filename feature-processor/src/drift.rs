//! Has what users do moved away from what the champion was trained on?
//!
//! Every record of the log leaves an [`Observation`] in its partition's file, in the transaction that folds it. The
//! coordinator cuts them into windows ([`Cutter`]), each observation into exactly one, and compares each window with a
//! reference: the newest observations that the champion was trained on ([`Monitor`]). The unit of evidence is the user
//! ([`Tally`], [`compare`]). [`Corpus::run`] measures how often it cries wolf and how soon it finds what is planted.
//! [`Adwin`] watches measured hit rates for changes that no distribution of the input shows.

mod adwin;
mod calibrate;
mod cutter;
mod feature;
mod homogeneity;
mod monitor;
mod observation;
mod tally;

pub use adwin::{Adwin, Change, effective_observations};
pub use calibrate::{Corpus, Outcome, Plan, Shift};
pub use cutter::{CutWindow, Cutter};
pub use feature::{Binner, Feature, GenresOf};
pub use homogeneity::{Homogeneity, compare, holm};
pub use monitor::{DriftConfig, Finding, Monitor, Window, WindowReport};
pub(crate) use observation::OBSERVATION_BYTES;
pub use observation::{Fate, Observation};
pub use tally::Tally;

/// Twice the stars, rounded up: the bin of a rating. 0 where there are none.
#[must_use]
pub fn half_stars(stars: Option<f32>) -> u8 {
    // Between 0.5 and 5 by the time a rating is folded; the cast saturates otherwise.
    stars.map_or(0, |stars| (stars * 2.0).ceil() as u8)
}
