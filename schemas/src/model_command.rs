//! What people ask of the trainer about its models.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ModelVersion, Record, SchemaVersion, Topic};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelAction {
    /// Make `version` the champion at once, whatever the gate said; ends a rollout.
    Promote,
    /// End the rollout under way, or, without one, let the previous champion serve again.
    Rollback,
    /// Take the rollout's next step now, without waiting for evidence.
    AdvanceRollout,
    /// Abandon the training under way; the events it answers count as answered.
    CancelTraining,
}

/// A command to the trainer, the registry's only writer. Its outcome is a `model-events` record that carries
/// `command_id`. Deduplicated by `command_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelCommand {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Chosen by whoever asks; the same command sent again has the same id.
    pub command_id: String,
    /// What is asked for.
    pub action: ModelAction,
    /// The version or alias that `promote` means; others ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<ModelVersion>,
    /// Why, in words; kept with the model.
    pub reason: String,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<String>,
    /// When, ms.
    pub issued_at_ms: i64,
}

impl Record for ModelCommand {
    const TOPIC: Topic = Topic::ModelCommands;

    /// One key for all: commands are answered in the order in which they were given.
    fn key(&self) -> Vec<u8> {
        b"models".to_vec()
    }
}
