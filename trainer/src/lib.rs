//! Continuous learning: from a retrain event to a model that may serve.
//!
//! ```text
//! [retrain-events] ─► service ─► snapshot ─► run (fit, evaluate) ─► gate ─► registry ─► [model-events]
//!                                   ▲ [interactions], [movies]                 └─► bundle on disk ─► recommender
//! ```
//!
//! A training set is *named* by topic offsets ([`snapshot`]), so that a bundle's manifest reproduces its bytes.
//! A [`bundle`] is one directory per version whose every byte is under a digest; recommenders load it with
//! [`Bundle::load`]. The [`registry`] is one file, replaced atomically by a single writer; it holds the versions, the
//! aliases, the position in `retrain-events` and the events that still have to be published, so that one rename moves
//! all of them at once: after a kill at any moment a retrain event is neither lost nor run twice, and no model is
//! half published. The [`gate`] decides what becomes champion and writes its numbers into the event.

pub mod bundle;
mod chores;
mod config;
mod durable;
mod error;
pub mod evaluate;
pub mod evaluation;
pub mod export;
pub mod gate;
mod genres;
pub mod memory;
mod metrics;
pub mod mlflow;
mod pipeline;
pub mod registry;
pub mod report;
mod retrain;
pub mod rollout;
pub mod run;
mod service;
pub mod signal;
pub mod snapshot;
mod store;
#[cfg(test)]
mod testing;

pub use bundle::{Bundle, BundleError, Manifest};
pub use chores::evaluate_once;
pub use config::Config;
pub use error::Error;
pub use gate::{Decision, GateConfig};
pub use genres::GenreVocabulary;
pub use registry::{Registry, RegistryError, RegistryReader};
pub use retrain::manual_retrain_event;
pub use service::Service;
