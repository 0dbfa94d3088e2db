//! The part of MLflow's REST API (version 2.0) that the mirror uses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::transport::{Call, Method, MlflowError, Transport};

/// Most parameters of one `runs/log-batch`.
const PARAMS: usize = 100;
/// Most metrics of one `runs/log-batch`.
const METRICS: usize = 1_000;
/// Longest value of a parameter that every server takes.
const PARAM_LENGTH: usize = 500;
/// Longest value of a tag.
const TAG_LENGTH: usize = 5_000;

/// What a run shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct RunContent {
    pub(super) name: String,
    /// Identifies the run: the name of a tag and its value, unique to what is mirrored.
    pub(super) identity: (String, String),
    pub(super) tags: BTreeMap<String, String>,
    pub(super) params: BTreeMap<String, String>,
    pub(super) metrics: BTreeMap<String, f64>,
    pub(super) at_ms: i64,
}

/// A run on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) artifact_uri: String,
}

#[derive(Debug)]
pub(super) struct Api<T>(pub(super) T);

/// Names may hold letters, digits, `_`, `-`, `.`, space and `/`.
pub(super) fn key(name: &str) -> String {
    name.replace('@', "_at_")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "_-. /".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}

fn clipped(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

fn pairs(map: &BTreeMap<String, String>, longest: usize) -> Vec<Value> {
    map.iter()
        .map(|(name, value)| json!({"key": key(name), "value": clipped(value, longest)}))
        .collect()
}

/// A value inside single quotes of a filter.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', ""))
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

impl<T: Transport> Api<T> {
    fn call(&self, method: Method, name: &str, body: &Value) -> Result<Value, MlflowError> {
        self.0.call(&Call {
            method,
            path: format!("api/2.0/mlflow/{name}"),
            body: body.to_string().as_bytes(),
        })
    }

    fn post(&self, name: &str, body: &Value) -> Result<Value, MlflowError> {
        self.call(Method::Post, name, body)
    }

    fn get(&self, name: &str, query: &[(&str, &str)]) -> Result<Value, MlflowError> {
        let query: Vec<String> = query
            .iter()
            .map(|(key, value)| format!("{key}={}", encoded(value)))
            .collect();
        self.call(Method::Get, &format!("{name}?{}", query.join("&")), &Value::Null)
    }

    /// The experiment of this name, made if it is not there.
    pub(super) fn experiment(&self, name: &str) -> Result<String, MlflowError> {
        let id = |answer: &Value, pointer: &str| {
            answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
        };
        match self.get("experiments/get-by-name", &[("experiment_name", name)]) {
            Ok(found) => {
                return id(&found, "/experiment/experiment_id")
                    .ok_or_else(|| strange("experiments/get-by-name", "an id"));
            }
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
        let made = self.post("experiments/create", &json!({"name": name}))?;
        id(&made, "/experiment_id").ok_or_else(|| strange("experiments/create", "an id"))
    }

    /// The run of this identity, made if it is not there.
    pub(super) fn run(&self, experiment: &str, content: &RunContent) -> Result<Run, MlflowError> {
        let (tag, value) = &content.identity;
        let filter = format!("tags.`{tag}` = {}", quoted(value));
        let found = self.post(
            "runs/search",
            &json!({"experiment_ids": [experiment], "filter": filter, "max_results": 1}),
        )?;
        if let Some(run) = found.pointer("/runs/0") {
            return run_of("runs/search", run);
        }
        let made = self.post(
            "runs/create",
            &json!({
                "experiment_id": experiment,
                "run_name": content.name,
                "start_time": content.at_ms,
                "tags": [{"key": tag, "value": value}],
            }),
        )?;
        run_of("runs/create", made.get("run").unwrap_or(&Value::Null))
    }

    /// Fills a run with what it does not have yet, and ends it.
    pub(super) fn fill(&self, run: &Run, content: &RunContent) -> Result<(), MlflowError> {
        let present = self.get("runs/get", &[("run_id", &run.id)])?;
        let known: Vec<&str> = present
            .pointer("/run/data/metrics")
            .and_then(Value::as_array)
            .map(|metrics| {
                metrics
                    .iter()
                    .filter_map(|metric| metric.get("key")?.as_str())
                    .collect()
            })
            .unwrap_or_default();
        let metrics: Vec<Value> = content
            .metrics
            .iter()
            .map(|(name, value)| (key(name), *value))
            .filter(|(name, value)| value.is_finite() && !known.contains(&name.as_str()))
            .map(|(key, value)| json!({"key": key, "value": value, "timestamp": content.at_ms, "step": 0}))
            .collect();
        // A parameter that is sent again with the same value is accepted.
        for params in pairs(&content.params, PARAM_LENGTH).chunks(PARAMS) {
            self.post("runs/log-batch", &json!({"run_id": run.id, "params": params}))?;
        }
        for metrics in metrics.chunks(METRICS) {
            self.post("runs/log-batch", &json!({"run_id": run.id, "metrics": metrics}))?;
        }
        self.tag(run, &content.tags)?;
        self.post(
            "runs/update",
            &json!({"run_id": run.id, "status": "FINISHED", "end_time": content.at_ms}),
        )?;
        Ok(())
    }

    /// Sets tags, whatever they were.
    pub(super) fn tag(&self, run: &Run, tags: &BTreeMap<String, String>) -> Result<(), MlflowError> {
        let tags = pairs(tags, TAG_LENGTH);
        self.post("runs/log-batch", &json!({"run_id": run.id, "tags": tags}))
            .map(drop)
    }

    /// The registered model's version of this run, made if it is not there.
    pub(super) fn model_version(
        &self,
        model: &str,
        run: &Run,
        tags: &BTreeMap<String, String>,
    ) -> Result<String, MlflowError> {
        match self.post("registered-models/create", &json!({"name": model})) {
            Ok(_) => {}
            Err(error) if error.is_present() => {}
            Err(error) => return Err(error),
        }
        let version = |value: &Value| value.get("version").and_then(Value::as_str).map(str::to_owned);
        let filter = format!("run_id = {}", quoted(&run.id));
        let found = self.get(
            "model-versions/search",
            &[("filter", &filter), ("max_results", "100")],
        )?;
        let ours = found
            .get("model_versions")
            .and_then(Value::as_array)
            .and_then(|all| {
                all.iter()
                    .find(|one| one.get("name").and_then(Value::as_str) == Some(model))
            });
        if let Some(found) = ours {
            return version(found).ok_or_else(|| strange("model-versions/search", "a version"));
        }
        let source = format!("{}/bundle", run.artifact_uri);
        let made = self.post(
            "model-versions/create",
            &json!({"name": model, "source": source, "run_id": run.id, "tags": pairs(tags, PARAM_LENGTH)}),
        )?;
        made.get("model_version")
            .and_then(version)
            .ok_or_else(|| strange("model-versions/create", "a version"))
    }

    /// Points an alias at a version, or removes it.
    pub(super) fn alias(&self, model: &str, alias: &str, version: Option<&str>) -> Result<(), MlflowError> {
        let name = "registered-models/alias";
        let outcome = match version {
            Some(version) => self.post(name, &json!({"name": model, "alias": alias, "version": version})),
            None => self.call(Method::Delete, name, &json!({"name": model, "alias": alias})),
        };
        match outcome {
            Err(error) if version.is_none() && error.is_absent() => Ok(()),
            other => other.map(drop),
        }
    }
}

fn run_of(call: &str, run: &Value) -> Result<Run, MlflowError> {
    let text = |name: &str| {
        run.pointer(&format!("/info/{name}"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Ok(Run {
        id: text("run_id").ok_or_else(|| strange(call, "a run id"))?,
        artifact_uri: text("artifact_uri").ok_or_else(|| strange(call, "an artifact location"))?,
    })
}

fn strange(call: &str, what: &'static str) -> MlflowError {
    MlflowError::Strange {
        call: call.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_use_only_characters_that_the_server_takes() {
        assert_eq!(key("prequential_ndcg@10"), "prequential_ndcg_at_10");
        assert_eq!(key("a:b|c/d.e-f g"), "a_b_c/d.e-f g");
    }

    #[test]
    fn values_cannot_leave_their_quotes_or_their_query() {
        assert_eq!(quoted("v1' or 1=1"), "'v1 or 1=1'");
        assert_eq!(encoded("run_id = 'a&b'"), "run_id%20%3D%20%27a%26b%27");
    }
}
