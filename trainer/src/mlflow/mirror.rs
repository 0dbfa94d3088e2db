//! Bringing the server up to the registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::MlflowConfig;
use super::api::{Api, RunContent};
use super::transport::{MlflowError, Transport};
use crate::bundle::Manifest;
use crate::evaluation::EvaluationRecord;
use crate::registry::{self, Entry, RegistryError, RegistryReader, folder_of, store_at};
use crate::report;
use crate::store::Store;

/// Remembers, beside the registry, what the server has. May be deleted: everything is then looked up again.
const STATE: &str = "mlflow.json";
/// The tag that identifies a training's run.
const DIGEST: &str = "marquee.bundle_sha256";
/// The tag that identifies an evaluation's run.
const EVALUATION: &str = "marquee.evaluation_id";
const ALIASES: [&str; 3] = ["champion", "challenger", "previous"];

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct State {
    /// The server that it is about.
    tracking_uri: String,
    /// Version → where it is on the server.
    versions: BTreeMap<String, Place>,
    /// Alias → our version that it points at on the server.
    aliases: BTreeMap<String, String>,
    /// Newest evaluation that the server has.
    evaluated_until_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    run_id: String,
    artifact_uri: String,
    model_version: String,
    /// Steps of the version's life that the run's tags tell.
    steps: usize,
}

/// What one pass has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mirrored {
    /// Versions.
    pub versions: usize,
    /// Aliases set or removed.
    pub aliases: usize,
    /// Evaluations.
    pub evaluations: usize,
}

/// The mirror. Blocks; belongs on a thread of its own.
#[derive(Debug)]
pub struct Mirror<T> {
    config: MlflowConfig,
    registry_dir: PathBuf,
    store: Store,
    api: Api<T>,
    state: State,
}

impl<T: Transport> Mirror<T> {
    /// A mirror of the registry in this folder.
    ///
    /// # Errors
    /// [`MlflowError::Registry`] if its own state cannot be read.
    pub fn open(config: MlflowConfig, registry_dir: &Path, transport: T) -> Result<Self, MlflowError> {
        let store = store_at(registry_dir)?;
        let read = store.get(STATE).map_err(|source| RegistryError::Io {
            path: store.describe(STATE),
            source,
        })?;
        // What cannot be understood is looked up again.
        let state = read
            .and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok())
            .filter(|state| state.tracking_uri == config.tracking_uri)
            .unwrap_or_else(|| State {
                tracking_uri: config.tracking_uri.clone(),
                ..State::default()
            });
        Ok(Self {
            config,
            registry_dir: registry_dir.to_path_buf(),
            store,
            api: Api(transport),
            state,
        })
    }

    /// Sends what the server lacks. What was sent stays sent if a later call fails.
    ///
    /// # Errors
    /// [`MlflowError`] of the first call that failed; the next pass goes on from there.
    pub fn pass(&mut self) -> Result<Mirrored, MlflowError> {
        let reader = registry::open_read_only(&self.registry_dir)?;
        let mut mirrored = Mirrored::default();
        for entry in reader.list() {
            let known = self.state.versions.get(&entry.version.0).map(|place| place.steps);
            if known == Some(entry.steps.len()) {
                continue;
            }
            self.version(&reader, entry, known.is_none())?;
            mirrored.versions += usize::from(known.is_none());
        }
        mirrored.aliases = self.aliases(&reader)?;
        mirrored.evaluations = self.evaluations()?;
        Ok(mirrored)
    }

    fn version(&mut self, reader: &RegistryReader, entry: &Entry, is_new: bool) -> Result<(), MlflowError> {
        let manifest = manifest_of(reader, entry);
        let content = content_of(entry, manifest.as_ref());
        let experiment = self.api.experiment(&self.config.experiment)?;
        let run = self.api.run(&experiment, &content)?;
        let page = report::explain(entry);
        let decision = serde_json::to_vec_pretty(&entry.decision).unwrap_or_default();
        for (name, bytes) in [
            ("gate/explanation.md", page.markdown().into_bytes()),
            ("gate/explanation.html", page.html().into_bytes()),
            ("gate/decision.json", decision),
        ] {
            if !self.api.upload(&run, name, &bytes)? {
                tracing::debug!("the MLflow server takes no artifacts");
                break;
            }
        }
        if is_new && self.config.upload_bundles && !entry.pruned {
            self.api
                .upload_folder(&run, "bundle", reader.store(), &folder_of(&entry.version))?;
        }
        self.api.fill(&run, &content)?;
        let model_version = self
            .api
            .model_version(&self.config.registered_model, &run, &content.tags)?;
        self.state.versions.insert(
            entry.version.0.clone(),
            Place {
                run_id: run.id,
                artifact_uri: run.artifact_uri,
                model_version,
                steps: entry.steps.len(),
            },
        );
        self.save()
    }

    fn aliases(&mut self, reader: &RegistryReader) -> Result<usize, MlflowError> {
        let mut changed = 0;
        for (alias, version) in
            ALIASES
                .into_iter()
                .zip([reader.champion(), reader.challenger(), reader.previous()])
        {
            let wanted = version.map(|version| version.0.clone());
            if self.state.aliases.get(alias) == wanted.as_ref() {
                continue;
            }
            let place = wanted
                .as_ref()
                .and_then(|version| self.state.versions.get(version));
            let on_server = place.map(|place| place.model_version.as_str());
            self.api.alias(&self.config.registered_model, alias, on_server)?;
            match wanted {
                Some(version) => self.state.aliases.insert(alias.to_owned(), version),
                None => self.state.aliases.remove(alias),
            };
            self.save()?;
            changed += 1;
        }
        Ok(changed)
    }

    fn evaluations(&mut self) -> Result<usize, MlflowError> {
        let mut sent = 0;
        for record in crate::evaluation::read_history(&self.registry_dir)? {
            if record.at_ms <= self.state.evaluated_until_ms {
                continue;
            }
            let experiment = self.api.experiment(&self.config.evaluation_experiment)?;
            let content = evaluation_content(&record);
            let run = self.api.run(&experiment, &content)?;
            self.api.fill(&run, &content)?;
            self.state.evaluated_until_ms = record.at_ms;
            self.save()?;
            sent += 1;
        }
        Ok(sent)
    }

    fn save(&self) -> Result<(), MlflowError> {
        let bytes = serde_json::to_vec_pretty(&self.state).unwrap_or_default();
        Ok(self
            .store
            .put(STATE, &bytes)
            .map_err(|source| RegistryError::Io {
                path: self.store.describe(STATE),
                source,
            })?)
    }
}

/// The manifest of a version whose files are still there.
fn manifest_of(reader: &RegistryReader, entry: &Entry) -> Option<Manifest> {
    let name = format!("{}/{}", folder_of(&entry.version), crate::bundle::MANIFEST);
    serde_json::from_slice(&reader.store().get(&name).ok()??).ok()
}

fn content_of(entry: &Entry, manifest: Option<&Manifest>) -> RunContent {
    let text = |value: &str| value.to_owned();
    let mut params = BTreeMap::from([
        (text("recipe_sha256"), entry.recipe_sha256.clone()),
        (text("semver"), entry.semver.clone()),
    ]);
    for at in &entry.offsets {
        params.insert(
            format!("offsets/{}/{}", at.topic, at.partition),
            at.offset.to_string(),
        );
    }
    if let Some(manifest) = manifest {
        params.insert(text("seed"), manifest.seed.to_string());
        params.insert(text("code_revision"), manifest.code_revision.clone());
        params.insert(text("split_rule"), manifest.split.rule.clone());
        params.insert(text("interactions"), manifest.counts.interactions.to_string());
        params.insert(text("users"), manifest.users.to_string());
        params.insert(text("movies"), manifest.movies.to_string());
        if let Ok(value) = serde_json::to_value(&manifest.params) {
            flatten("params", &value, &mut params);
        }
    }
    let mut metrics = entry.metrics.clone();
    metrics.extend(entry.decision.numbers.clone());
    let verdict = serde_json::to_value(entry.decision.verdict).ok();
    RunContent {
        name: format!("{} ({})", entry.version, entry.semver),
        identity: (DIGEST.to_owned(), entry.bundle_sha256.clone()),
        tags: BTreeMap::from([
            (DIGEST.to_owned(), entry.bundle_sha256.clone()),
            (text("marquee.version"), entry.version.0.clone()),
            (text("marquee.state"), format!("{:?}", entry.state)),
            (
                text("marquee.verdict"),
                verdict
                    .as_ref()
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
            ),
            (text("marquee.reason"), entry.decision.reason.clone()),
            (text("marquee.retrain_events"), entry.retrain_event_ids.join(", ")),
        ]),
        params,
        metrics,
        at_ms: entry.created_at_ms,
    }
}

fn evaluation_content(record: &EvaluationRecord) -> RunContent {
    let id = record.id();
    RunContent {
        name: format!("{} at {}", record.version, record.at_ms),
        identity: (EVALUATION.to_owned(), id.clone()),
        tags: BTreeMap::from([
            (EVALUATION.to_owned(), id),
            ("marquee.version".to_owned(), record.version.0.clone()),
        ]),
        params: BTreeMap::from([("model_version".to_owned(), record.version.0.clone())]),
        metrics: record.metrics.clone(),
        at_ms: record.at_ms,
    }
}

/// `{"a": {"b": 1}}` under `params` gives `params.a.b = 1`; lists are written as they are.
fn flatten(prefix: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                flatten(&format!("{prefix}.{name}"), field, out);
            }
        }
        Value::String(text) => {
            out.insert(prefix.to_owned(), text.clone());
        }
        other => {
            out.insert(prefix.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_flat_parameters() {
        let mut params = BTreeMap::new();
        flatten(
            "p",
            &serde_json::json!({"a": {"b": 1.5}, "c": "x", "d": [1, 2]}),
            &mut params,
        );
        assert_eq!(
            params.into_iter().collect::<Vec<_>>(),
            [
                ("p.a.b".to_owned(), "1.5".to_owned()),
                ("p.c".to_owned(), "x".to_owned()),
                ("p.d".to_owned(), "[1,2]".to_owned())
            ]
        );
    }
}
