//! Measured quality, offline and online, for triggers and rollout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ModelVersion, Record, SchemaVersion, Topic};

/// Names of the figures by which a rollout is judged, per model version (`scope` `model`, `population` `all`). `n` is
/// the number of requests behind a figure (for the hit rate, of answered lists). Whoever measures them under these
/// names takes part; a figure nobody measures is no evidence either way.
pub mod online {
    /// Share of served lists with a click on them.
    pub const CTR: &str = "ctr";
    /// Share of answered lists whose user's next interaction was among the first ten.
    pub const HIT_RATE: &str = "next_interaction_hit_rate@10";
    /// 95th percentile of a request's latency, ms.
    pub const LATENCY_P95_MS: &str = "latency_p95_ms";
    /// Share of requests that failed ([`crate::RequestLog::is_failure`]). Those that were shed were nobody's to answer, and
    /// are not among them.
    pub const ERROR_RATE: &str = "error_rate";
    /// Share of lists that were not personal.
    pub const FALLBACK_RATE: &str = "fallback_rate";
}

/// One figure with its population and interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QualityMetric {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Deterministic: a function of metric, scope and window.
    pub metric_id: String,
    /// `ctr`, `ndcg@10`, `latency_p95_ms`, ...
    pub name: String,
    /// What it describes: `model`, `endpoint`, `arm`, `data`, ...
    pub scope: String,
    /// Population: `all`, `warm`, `cold`, ...
    pub population: String,
    /// The model, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_version: Option<ModelVersion>,
    /// The value.
    pub value: f64,
    /// Lower end of the 95% interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lo: Option<f64>,
    /// Upper end of the 95% interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hi: Option<f64>,
    /// Observations behind it.
    pub n: u64,
    /// Start of the window, ms, inclusive.
    pub window_start_ms: i64,
    /// End of the window, ms, exclusive.
    pub window_end_ms: i64,
}

impl Record for QualityMetric {
    const TOPIC: Topic = Topic::QualityMetrics;

    fn key(&self) -> Vec<u8> {
        self.metric_id.clone().into_bytes()
    }
}
