//! Pure numerics of marquee: every model behind one small interface, no I/O, no clock, no threads of its own
//! beyond rayon.
//!
//! Users and items are dense indices (`u32`) here; the mapping to public ids belongs to the callers.
//! A model is made from *checked* hyperparameters and an interaction matrix ([`Interactions`]), is immutable
//! afterwards, and scores any user from that user's history alone ([`Scorer::score_into`], the fold-in): there is
//! no user that a model does not know, only users without a history.

pub mod als;
pub mod ann;
pub mod biases;
pub mod bpr;
pub mod checked;
pub mod cosine;
pub mod ease;
pub mod error;
pub mod evaluate;
mod factors;
pub mod gbdt;
mod kernels;
pub mod live;
pub mod matrix;
pub mod metrics;
mod padded;
pub mod popularity;
pub mod ranker;
pub mod scorer;
pub mod served;
pub mod tensors;
pub mod transitions;
pub mod tune;

pub use checked::Checked;
pub use error::Error;
pub use matrix::Interactions;
pub use scorer::{HistoryItem, Scorer, Scratch};
