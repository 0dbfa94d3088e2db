//! What was served, to whom, by which model, with which probability: the evidence that replay evaluates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ModelVersion, MovieId, Record, SchemaVersion, Topic, UserId};

/// Which call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /recommend`
    Recommend,
    /// `POST /similar`
    Similar,
    /// `GET /popular`
    Popular,
    /// A list that a model in its shadow stage made beside the one that was served; nobody saw it.
    Shadow,
}

impl Endpoint {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recommend => "recommend",
            Self::Similar => "similar",
            Self::Popular => "popular",
            Self::Shadow => "shadow",
        }
    }
}

/// Restrictions the client asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// At least one of these genres.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genres_any: Vec<String>,
    /// Every one of these genres.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genres_all: Vec<String>,
    /// None of these genres.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genres_none: Vec<String>,
    /// Released in this year or later; a movie of unknown year does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year_from: Option<u16>,
    /// Released in this year or earlier; a movie of unknown year does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year_to: Option<u16>,
    /// At least so many interactions ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_interactions: Option<u32>,
    /// Movies to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<MovieId>,
}

/// One entry of a served list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoggedItem {
    /// The movie.
    pub movie_id: MovieId,
    /// Position, from 0.
    pub rank: u32,
    /// The score it was ranked by.
    pub score: f32,
    /// Where it came from: a generator's name, `popularity`, `exploration`, ...
    pub source: String,
    /// Probability that the logging policy puts this movie at this position, given the positions above; 1 for a
    /// deterministic list. The product over the items is the probability of the list.
    pub propensity: f64,
    /// Whether this position was sampled rather than ranked.
    #[serde(default)]
    pub explored: bool,
}

/// Time spent in one stage of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageLatency {
    /// `features`, `candidates`, `rank`, `filter`, ...
    pub stage: String,
    /// Microseconds.
    pub us: u64,
}

/// One answered request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequestLog {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// UUIDv7; clients send it back with what they do about the list.
    pub request_id: String,
    /// When the request came in, ms.
    pub timestamp: i64,
    /// The call.
    pub endpoint: Endpoint,
    /// HTTP status of the answer.
    pub status: u16,
    /// The user, where the call names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Where the list is shown, as the client names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surface: Option<String>,
    /// The serving model; absent before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_version: Option<ModelVersion>,
    /// The logging policy: `ranked`, or `plackett_luce` for a list of the exploration slice.
    pub policy: String,
    /// Experiment, where one is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// The arm of that experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// The sticky hash that chose the arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_hash: Option<u32>,
    /// The user's feature version (applied interactions) that the list rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_version: Option<u64>,
    /// Entries asked for.
    pub k: u32,
    /// Candidates before the cut.
    pub candidates: u32,
    /// Movies given as seeds or as the subject of `similar`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<MovieId>,
    /// Restrictions.
    #[serde(default)]
    pub filters: Filters,
    /// The list.
    pub items: Vec<LoggedItem>,
    /// Why the list is not personal, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_reason: Option<String>,
    /// Stages left out because they would have been late.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Time from the request's arrival to its answer, ms.
    pub latency_ms: f64,
    /// The same by stage.
    #[serde(default)]
    pub stages: Vec<StageLatency>,
}

impl RequestLog {
    /// Whether an answer of this status failed its request: 500 or more, or 408. A request is in the log only if it had
    /// come in whole, so a time limit that it ran into is not its client's doing.
    #[must_use]
    pub fn is_failure(status: u16) -> bool {
        status >= 500 || status == 408
    }
}

impl Record for RequestLog {
    const TOPIC: Topic = Topic::RequestLogs;

    /// By user, so that one user's lists stay in order; anonymous requests spread by their id.
    fn key(&self) -> Vec<u8> {
        match self.user_id {
            Some(user) => user.to_string().into_bytes(),
            None => self.request_id.clone().into_bytes(),
        }
    }
}
