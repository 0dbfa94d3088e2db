//! Why a new model was asked for, or was not.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ModelVersion, PartitionOffset, Record, SchemaVersion, Topic, Trigger};

/// What became of one trigger at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerOutcome {
    /// Its condition does not hold.
    NotDue,
    /// Its condition holds and a training was asked for.
    Asked,
    /// Its condition holds, and the training that another trigger asks for answers it, too.
    Joined,
    /// Its condition holds, but a training that was asked for has not ended yet.
    InFlight,
    /// Its condition holds, but the last training is too recent.
    CoolingDown,
}

/// One trigger's part in a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerVerdict {
    /// Which.
    pub trigger: Trigger,
    /// What became of it.
    pub outcome: TriggerOutcome,
    /// Why, in a sentence.
    pub reason: String,
    /// The numbers compared, thresholds included.
    pub numbers: BTreeMap<String, f64>,
}

/// All triggers at one look, those that were not due included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriggerDecision {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Deterministic: who decided, and which of its decisions this is.
    pub decision_id: String,
    /// What made the processor look: `interactions`, `window`, `metrics`, `model`, `clock`.
    pub occasion: String,
    /// One entry per trigger.
    pub verdicts: Vec<TriggerVerdict>,
    /// The request that was made, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrain_event_id: Option<String>,
    /// The champion at the time, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<ModelVersion>,
    /// The data that the decision rests on.
    pub offsets: Vec<PartitionOffset>,
    /// When, ms.
    pub decided_at_ms: i64,
}

impl Record for TriggerDecision {
    const TOPIC: Topic = Topic::TriggerDecisions;

    fn key(&self) -> Vec<u8> {
        self.decision_id.clone().into_bytes()
    }
}
