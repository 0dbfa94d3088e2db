//! Two arms of an experiment, compared at any time.
//!
//! Users are assigned, so users are the units. Each contributes a numerator and a denominator (clicks and lists), both
//! growing while the experiment runs, and a covariate from before it began. [`Arm`] keeps their moments, so that one
//! more click costs nothing more than a few additions; [`compare`] gives the difference of the arms' ratios by the
//! delta method, sharpened by [CUPED](compare); [`Sequential`] turns a sequence of such looks into one statement that
//! holds at all of them; `sample_ratio` says whether the arms are what the assignment meant them to be.

mod arm;
mod sample_ratio;
mod sequential;
#[cfg(test)]
mod simulation;

pub use arm::{Arm, Comparison, Covariate, UserTotals, compare};
pub use sample_ratio::SampleRatio;
pub use sequential::{Decision, Look, Sequential};
