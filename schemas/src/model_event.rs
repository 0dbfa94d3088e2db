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
    /// `version` serves everybody again; `previous` is what it replaces: the champion after it, or a challenger that
    /// was being rolled out.
    RolledBack,
    /// `version`, a challenger, serves the share of users that [`ModelEvent::rollout_share`] gives; the champion serves
    /// the others. A share of zero is the shadow stage: it answers nobody, and recommenders score it on the side. The
    /// rollout ends with the next `promoted` or `rolled_back`, whichever version that names.
    RolloutStep,
    /// The training failed; `reason` says how.
    Failed,
    /// A stage of a training began; `reason` names it. For people who wait: it is sent once and not repeated.
    TrainingStage,
    /// A model command was refused; `reason` says why.
    CommandRefused,
}

/// One question that the gate asked about a challenger, with the numbers of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateCheck {
    /// What was asked, for example `primary`, `secondary`, `floor`, `coverage`, `soundness`, `evidence`.
    pub check: String,
    /// The metric, with its protocol: `static/ndcg@10`, `prequential/hr@10`, ...
    pub metric: String,
    /// Whether the answer lets the challenger pass.
    pub passed: bool,
    /// The challenger's figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger: Option<f64>,
    /// The champion's, on the same users and events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<f64>,
    /// Challenger over champion, minus one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_change: Option<f64>,
    /// Lower end of the interval of the relative change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lo: Option<f64>,
    /// Upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hi: Option<f64>,
    /// The least that was asked for: a relative change, or for a floor the figure itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<f64>,
    /// The same in a sentence.
    pub detail: String,
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
    /// Further retrain events that waited meanwhile and are answered by the same training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined_retrain_event_ids: Vec<String>,
    /// The champion before this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ModelVersion>,
    /// The gate's questions and answers, where the gate decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<GateCheck>,
    /// The model command that this step answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// When, ms.
    pub at_ms: i64,
}

impl ModelEvent {
    /// Name of the number that holds a rollout step's share.
    pub const SHARE: &'static str = "share";

    /// The share of users that a rollout step gives to its version, 0 to 1; `None` for other kinds. A number that is
    /// no share counts as 0: nobody is served by accident.
    #[must_use]
    pub fn rollout_share(&self) -> Option<f64> {
        let share = self.numbers.get(Self::SHARE).copied().unwrap_or(0.0);
        (self.kind == ModelEventKind::RolloutStep)
            .then(|| if (0.0..=1.0).contains(&share) { share } else { 0.0 })
    }
}

impl Record for ModelEvent {
    const TOPIC: Topic = Topic::ModelEvents;

    fn key(&self) -> Vec<u8> {
        self.version.0.clone().into_bytes()
    }
}
