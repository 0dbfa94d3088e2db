//! What a person should look at.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Record, SchemaVersion, Topic};

/// How soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// During working hours.
    Warning,
    /// Now.
    Critical,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Deterministic for one condition, so that a repeated alert is recognised.
    pub alert_id: String,
    /// How soon.
    pub severity: Severity,
    /// The service that raises it.
    pub source: String,
    /// Machine-readable condition, for example `request_log_overflow`.
    pub condition: String,
    /// The same in a sentence.
    pub message: String,
    /// The numbers behind it.
    #[serde(default)]
    pub numbers: BTreeMap<String, f64>,
    /// When, ms.
    pub at_ms: i64,
}

impl Record for Alert {
    const TOPIC: Topic = Topic::Alerts;

    fn key(&self) -> Vec<u8> {
        self.alert_id.clone().into_bytes()
    }
}
