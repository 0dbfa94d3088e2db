//! What becomes of models.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ModelVersion, PartitionOffset, Record, SchemaVersion, Topic};

/// What happened to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelEventKind {
    /// Fitted, evaluated and stored; not serving.
    Trained,
    /// Became the champion: recommenders load and serve it.
    Promoted,
    /// Did not prove better: the champion stays.
    Rejected,
    /// The previous champion serves again.
    RolledBack,
    /// A stage of the rollout began; `numbers.share` says which.
    RolloutStep,
    /// The training failed; `reason` says how.
    Failed,
}

/// A step in a model's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelEvent {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Deterministic: `<version>/<kind>` with a counter where a step may repeat.
    pub event_id: String,
    /// The model; for `failed`, the version that would have been.
    pub version: ModelVersion,
    /// What happened.
    pub kind: ModelEventKind,
    /// Why, in a sentence.
    pub reason: String,
    /// Where the bundle lies: a path or URL, absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_uri: Option<String>,
    /// SHA-256 of the bundle, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_sha256: Option<String>,
    /// The data it was fitted on.
    #[serde(default)]
    pub offsets: Vec<PartitionOffset>,
    /// Its measured quality, `metric@k` by name, and other numbers of the step.
    #[serde(default)]
    pub numbers: BTreeMap<String, f64>,
    /// The retrain event that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrain_event_id: Option<String>,
    /// The champion before this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ModelVersion>,
    /// When, ms.
    pub at_ms: i64,
}

impl Record for ModelEvent {
    const TOPIC: Topic = Topic::ModelEvents;

    fn key(&self) -> Vec<u8> {
        self.version.0.clone().into_bytes()
    }
}
