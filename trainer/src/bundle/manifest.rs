//! What a bundle says about itself.

use std::collections::BTreeMap;

use marquee_models::served::ServedParams;
use marquee_schemas::{ModelVersion, PartitionOffset};
use serde::{Deserialize, Serialize};

use crate::GenreVocabulary;
use crate::durable::sha256_hex;

/// What became of the records that the offsets name. `records` is the sum of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Records read.
    pub records: u64,
    /// Interactions that the model learns from.
    pub interactions: u64,
    /// Records that break the contract (malformed, out of range, from the future).
    pub invalid: u64,
    /// Repeated event ids.
    pub duplicates: u64,
    /// Kinds that make no history (impressions, watchlist, preferences).
    pub without_signal: u64,
    /// Interactions with movies that the catalogue does not have (yet).
    pub unknown_movies: u64,
    /// Records that asked to forget a user.
    #[serde(default)]
    pub erasures: u64,
    /// Interactions of users whom a later record asked to forget.
    #[serde(default)]
    pub erased: u64,
}

/// How the data was divided for the evaluation. The ranker in the bundle is the evaluated one; the generators are then
/// fitted on all of the data.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Split {
    /// `time` (the newest share is held out) or `unseen_by_champion` (of what came after the champion's data).
    pub rule: String,
    /// Largest share of the interactions that could be held out.
    #[serde(default)]
    pub share: f64,
    /// The data that the champion of the time had learned from; empty by the rule `time`.
    #[serde(default)]
    pub learned: Vec<PartitionOffset>,
    /// Interactions that the evaluated model learned from.
    pub train: u64,
    /// Interactions held out.
    pub test: u64,
    /// Event time of the first held-out interaction, ms; absent when none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_from_ms: Option<i64>,
}

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Bytes.
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// What a bundle was made from and how good it is. Offsets, split, seed, hyperparameters, catalogue and code revision
/// together determine the model's bytes; [`crate::run::reproduce`] makes them again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`super::FORMAT_VERSION`] of its writer.
    pub format_version: u32,
    /// The model's version.
    pub version: ModelVersion,
    /// When it was written, ms.
    pub created_at_ms: i64,
    /// Revision of the code that made it.
    pub code_revision: String,
    /// The data, as resume positions of `interactions` and `movies`.
    pub offsets: Vec<PartitionOffset>,
    /// What was in the data.
    pub counts: Counts,
    /// Users with a history.
    pub users: u64,
    /// Movies of the catalogue.
    pub movies: u64,
    /// Event time of the newest interaction, ms.
    pub trained_until_ms: i64,
    /// How it was divided for the evaluation.
    pub split: Split,
    /// Seed of everything random.
    pub seed: u64,
    /// Hyperparameters.
    pub params: ServedParams,
    /// Measured quality on the held-out data, `metric@k` by name, with `n`, the number of users it rests on.
    pub metrics: BTreeMap<String, f64>,
    /// Which genre is which bit.
    pub genres: GenreVocabulary,
    /// The retrain events that asked for it.
    pub retrain_event_ids: Vec<String>,
    /// The other files.
    pub files: BTreeMap<String, FileDigest>,
}

impl Manifest {
    /// Digest of what decides a model besides its data: hyperparameters, seed and code revision.
    #[must_use]
    pub fn recipe_sha256(&self) -> String {
        let recipe = serde_json::json!([self.params, self.seed, self.code_revision]);
        sha256_hex(recipe.to_string().as_bytes())
    }
}
