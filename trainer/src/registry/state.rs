//! What `registry.json` holds.

use marquee_schemas::{ModelEvent, ModelEventKind, ModelVersion, PartitionOffset, RetrainEvent, Topic};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

use super::{RegistryError, STATE};
use crate::gate::Decision;
use crate::rollout::Rollout;
use crate::store::{Store, Tag};

/// Newest format that this build writes and reads.
const FORMAT_VERSION: u32 = 2;
/// Ids remembered for deduplication. A retrain event or command is repeated, if at all, within moments.
pub(super) const HANDLED_KEPT: usize = 4096;
/// Retrain events that wait under their own reasons; of further ones only the data they ask for is kept.
pub(super) const PENDING_KEPT: usize = 64;
/// Former champions remembered.
pub(super) const LINEAGE_KEPT: usize = 64;

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// Stored, nothing decided.
    None,
    /// Challenger: passed the gate or is being rolled out.
    Staging,
    /// Champion.
    Production,
    /// Rejected or replaced.
    Archived,
}

/// A change in a model's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What happened; absent when it follows from a step of another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ModelEventKind>,
    /// The state after it.
    pub state: ModelState,
    /// When, ms.
    pub at_ms: i64,
    /// Why, in a sentence.
    pub reason: String,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub version: ModelVersion,
    /// Where it stands.
    pub state: ModelState,
    /// Semantic version: the major number is the bundle format's, the minor one rises with hyperparameters or code, the
    /// patch with data alone.
    pub semver: String,
    /// Digest of hyperparameters, seed and code revision.
    pub recipe_sha256: String,
    /// Digest of its bundle, see [`crate::Bundle::sha256`].
    pub bundle_sha256: String,
    /// Whether the bundle's files were removed to save space.
    #[serde(default)]
    pub pruned: bool,
    /// When it was stored, ms.
    pub created_at_ms: i64,
    /// The data it was fitted on.
    pub offsets: Vec<PartitionOffset>,
    /// Its measured quality.
    pub metrics: BTreeMap<String, f64>,
    /// What the gate said.
    pub decision: Decision,
    /// The retrain events that asked for it.
    pub retrain_event_ids: Vec<String>,
    /// Its life so far, oldest first.
    pub steps: Vec<Step>,
}

/// A training that has begun. It is stored before the work starts, so that a restart trains on the same data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInProgress {
    /// The events it answers.
    pub events: Vec<RetrainEvent>,
    /// The data, every partition named.
    pub offsets: Vec<PartitionOffset>,
    /// When it first began, ms.
    pub began_at_ms: i64,
    /// How often it was started without ending.
    pub attempts: u32,
}

/// The whole state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Ordinal of the last version that was given out.
    pub last_ordinal: u64,
    /// Versions, oldest first.
    pub versions: Vec<Entry>,
    /// Champions in the order in which they began to serve; the last one serves. A rollback removes it.
    pub lineage: Vec<ModelVersion>,
    /// Topic → partition → next offset to read.
    pub positions: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Newest retrain events and commands that were answered, oldest first.
    pub handled: VecDeque<String>,
    /// Retrain events that wait for the training under way to end; the next one answers all of them.
    #[serde(default)]
    pub pending: Vec<RetrainEvent>,
    /// The training under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunInProgress>,
    /// The rollout under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Model events that the broker has not acknowledged yet, in order.
    pub outbox: Vec<ModelEvent>,
}

#[derive(Serialize)]
struct FileRef<'a> {
    format_version: u32,
    #[serde(flatten)]
    state: &'a Snapshot,
}

impl Snapshot {
    /// The version that serves.
    #[must_use]
    pub fn champion(&self) -> Option<&ModelVersion> {
        self.lineage.last()
    }

    /// The version that served before the champion.
    #[must_use]
    pub fn previous(&self) -> Option<&ModelVersion> {
        self.lineage.iter().rev().nth(1)
    }

    /// The next record of a topic's partition that was not taken yet.
    #[must_use]
    pub fn position(&self, topic: Topic, partition: i32) -> Option<i64> {
        self.positions.get(topic.name())?.get(&partition).copied()
    }

    /// Whether a retrain event or command was answered or waits to be.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.handled.iter().any(|handled| handled == id)
            || self.pending.iter().any(|event| event.event_id == id)
            || self
                .run
                .iter()
                .any(|run| run.events.iter().any(|event| event.event_id == id))
    }

    /// The newest staged version.
    #[must_use]
    pub fn challenger(&self) -> Option<&ModelVersion> {
        let staged = |entry: &&Entry| entry.state == ModelState::Staging;
        self.versions
            .iter()
            .rev()
            .find(staged)
            .map(|entry| &entry.version)
    }

    /// The version under a name or alias.
    ///
    /// # Errors
    /// [`RegistryError::UnknownVersion`].
    pub fn find(&self, name: &str) -> Result<&Entry, RegistryError> {
        let version = match name {
            "champion" => self.champion(),
            "previous" => self.previous(),
            "challenger" => self.challenger(),
            _ => None,
        };
        let wanted = version.map_or(name, |version| version.0.as_str());
        self.versions
            .iter()
            .find(|entry| entry.version.0 == wanted)
            .ok_or_else(|| RegistryError::UnknownVersion(name.to_owned()))
    }

    pub(super) fn find_mut(&mut self, version: &ModelVersion) -> Option<&mut Entry> {
        self.versions.iter_mut().find(|entry| entry.version == *version)
    }

    /// The version that the next training will produce.
    #[must_use]
    pub fn next_version(&self) -> ModelVersion {
        ModelVersion::from_ordinal(self.last_ordinal + 1)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(&FileRef {
            format_version: FORMAT_VERSION,
            state: self,
        })
    }
}

/// Reads the state, and which version of the file it is; `None` if there is no such file.
pub(super) fn read(store: &Store) -> Result<Option<(Snapshot, Tag)>, RegistryError> {
    #[derive(Deserialize)]
    struct Envelope {
        format_version: u32,
    }

    let path = store.describe(STATE);
    let (bytes, tag) = match store.get_tagged(STATE) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(source) => return Err(RegistryError::Io { path, source }),
    };
    let damaged = |error: serde_json::Error| RegistryError::Damaged {
        path: path.clone(),
        detail: error.to_string(),
    };
    let envelope: Envelope = serde_json::from_slice(&bytes).map_err(damaged)?;
    if envelope.format_version < FORMAT_VERSION {
        return Err(RegistryError::Damaged {
            path: path.clone(),
            detail: format!("format version {} is no longer read", envelope.format_version),
        });
    }
    if envelope.format_version > FORMAT_VERSION {
        return Err(RegistryError::NewerFormat {
            path: path.clone(),
            found: envelope.format_version,
            supported: FORMAT_VERSION,
        });
    }
    let state = serde_json::from_slice(&bytes).map_err(damaged)?;
    Ok(Some((state, tag)))
}
