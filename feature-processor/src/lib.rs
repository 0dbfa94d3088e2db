//! Folds the `interactions` topic into durable features, effectively once.
//!
//! The state is a fold over one partition of the log: one redb file per assigned partition, written in one
//! transaction per batch that holds the features, the ids already seen, the next offset and the outbox. A crash at
//! any point, a repeated batch or a rebalance therefore leaves the state that an undisturbed run would have
//! ([`Store::state_hash`] compares them). What leaves the process (the `features` changelog, dead letters, retrain
//! events) goes through the outbox: published after the commit, published again after a crash in between, under
//! keys and ids by which consumers recognise the repetition.
//!
//! The way of one batch: [`judge`] reads and checks the records, [`Catalogue`] knows the movies, [`UserState`] and
//! [`MovieState`] fold, [`Store`] makes it durable, [`Triggers`] decides about retraining over all partitions, and
//! [`Processor`] ties them to the bus. [`Service`] runs it.

mod answer;
mod as_of;
mod catalogue;
mod config;
pub mod drift;
mod error;
mod fault;
mod fold;
pub mod http;
pub mod inspect;
mod judge;
mod processor;
mod service;
mod shelf;
mod sink;
mod store;
mod takeover;
pub mod triggers;
mod wire;

pub use answer::{ColdStart, MovieAnswer, UserAnswer};
pub use as_of::{AsOf, Point, PointInTime};
pub use catalogue::{Catalogue, MemoryCatalogue, TopicCatalogue};
pub use config::Config;
pub use error::Error;
pub use fault::{CrashPoint, Faults, NoFaults};
pub use fold::{
    Genre, GlobalState, GlobalSummary, MovieState, MovieSummary, POPULARITY_HALF_LIVES_DAYS,
    ROLLING_SPANS_MS, Rolling, TRANSITIONS_KEPT, Transition, TransitionRow, UserState, follow,
    genre_strength, summarise,
};
pub use judge::{Judged, Refusal, Verdict, judge};
pub use processor::{Processor, Summary};
pub use service::Service;
pub use shelf::Shelf;
pub use sink::{BusSink, MemorySink, Sink};
pub use store::{Applied, Counters, RowCopy, Segment, Snapshot, Store, StoreOptions};
pub use takeover::{RowSource, TopicRows};
pub use triggers::{PartitionTotals, TriggerConfig, Triggers};
