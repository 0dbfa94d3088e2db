//! Requests for a new model.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ModelVersion, PartitionOffset, Record, SchemaVersion, Topic};

/// What asked for the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Enough data for a first model.
    Bootstrap,
    /// So many new interactions since the last training.
    Volume,
    /// More ratings by a share since the last training.
    RatingGrowth,
    /// More users by a share since the last training.
    UserGrowth,
    /// The clock.
    Schedule,
    /// The distribution of a feature moved.
    Drift,
    /// What goes on watchlists moved.
    WatchlistShift,
    /// The data broke its usual quality.
    DataQuality,
    /// A metric fell below its absolute floor.
    MetricFloor,
    /// Metrics fell against the champion's baseline.
    MetricDrop,
    /// Clicks on served lists fell.
    CtrDrop,
    /// A person, with a written reason.
    Manual,
}

/// A request to train. Deduplicated by `event_id`, which is a function of the decision, not of the moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetrainEvent {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Deterministic: the same decision has the same id, also after a crash.
    pub event_id: String,
    /// What asked.
    pub trigger: Trigger,
    /// The decision in a sentence.
    pub reason: String,
    /// The numbers it rests on.
    pub numbers: BTreeMap<String, f64>,
    /// The data to train on; partitions not named are read to their end at the start of the run.
    pub offsets: Vec<PartitionOffset>,
    /// The champion at the time, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<ModelVersion>,
    /// When it was decided, ms.
    pub decided_at_ms: i64,
}

impl Record for RetrainEvent {
    const TOPIC: Topic = Topic::RetrainEvents;

    fn key(&self) -> Vec<u8> {
        self.event_id.clone().into_bytes()
    }
}
