//! When to ask for a training, over all partitions of this process.
//!
//! The counts that decide are cumulative and durable in each partition's file, and so are the observations that drift
//! and data quality rest on. This file, `triggers.redb`, holds what has been *decided*: up to which total the
//! interactions have been answered for, which observations lie in windows that are closed, how far the topics that
//! tell of models and metrics have been read, and what is still to be sent. Everything that follows from one look is
//! one transaction. If a crash comes between a partition's commit and the decision that it makes due, the counts are
//! still there at the next start and the decision falls then; if it comes after the decision, the ledger says so. So
//! each decision falls once, under one id, with one set of bytes.
//!
//! Requests for volume lie on a grid of totals (`bootstrap_min_interactions` + k × `volume_interactions`), so that
//! their ids do not depend on how the log was cut into batches: event `volume-p0.1.2.3-12000` is the request that
//! became due when these partitions together held 12,000 interactions. Several grid points passed between two looks
//! make one request, for the newest. The totals of partitions that were given back are remembered, so that the sum
//! never falls.
//!
//! One request is in flight at a time: until a model event says that it was answered (or nobody has answered for
//! long), and while a challenger is being rolled out, what becomes due waits. Processes that share the group decide each about its own partitions; the ids name
//! the partitions, so that requests of different processes are not taken for one another, and each sees the others'
//! requests in `retrain-events`.

mod config;
mod coordinator;
pub(crate) mod file;
mod ledger;
mod metrics;
mod publish;
mod quality;
mod rules;
mod signals;
mod windows;

pub use config::TriggerConfig;
pub use coordinator::{Look, Settings, Triggers};
pub use ledger::PartitionTotals;
pub use quality::{QualityConfig, QualityReport};
pub use signals::{Positions, SIGNAL_TOPICS, SignalReader, Signals, signals};
pub use windows::ObservationSource;
