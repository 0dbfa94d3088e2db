//! When a stage is too late to be worth its while.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stage that has not begun so long after its request arrived is left out, and the answer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// Personal ranking; without it the list is what is popular.
    pub rank_ms: u64,
    /// Diversity and recency.
    pub shape_ms: u64,
    /// Explanations.
    pub explain_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            rank_ms: 250,
            shape_ms: 500,
            explain_ms: 1_000,
        }
    }
}

/// What was left out of an answer because it would have been late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// The personal ranking: the list is what is popular.
    PersonalRanking,
    /// Diversity and recency: the list is in the order of its scores.
    Shaping,
    /// The reasons.
    Explanations,
}

impl LeftOut {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PersonalRanking => "personal_ranking",
            Self::Shaping => "shaping",
            Self::Explanations => "explanations",
        }
    }
}

impl Deadlines {
    /// Whether `part` of a request that arrived then is too late now; without an arrival nothing is.
    pub(super) fn missed(&self, part: LeftOut, arrived: Option<Instant>) -> bool {
        let allowed_ms = match part {
            LeftOut::PersonalRanking => self.rank_ms,
            LeftOut::Shaping => self.shape_ms,
            LeftOut::Explanations => self.explain_ms,
        };
        arrived.is_some_and(|arrived| arrived.elapsed() > Duration::from_millis(allowed_ms))
    }
}
