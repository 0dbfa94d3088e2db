//! kill -9 of the process that trains and mirrors, in the middle of a training and in the middle of its report to a real
//! MLflow server: after the restart the server has every version once, with its metrics, artifacts and aliases.

use std::collections::BTreeMap;
use std::path::Path;

use marquee_schemas::{ModelEvent, ModelEventKind};
use marquee_testkit::{Foreign, MlflowServer, required};
use marquee_trainer::registry;
use marquee_trainer::run::Stage;
use serde_json::{Value, json};

use crate::harness::{
    Marquee, ask_for_training, beginning_of_ml_100k, data_dir, eventually, get, post, records,
};

const NAME: &str = "marquee";

/// The server's REST API, as anybody's client sees it.
struct Mlflow(String);

impl Mlflow {
    fn get(&self, path: &str) -> Option<Value> {
        let (status, answer) = get(&format!("{}/api/2.0/mlflow/{path}", self.0));
        (status == 200).then_some(answer)
    }

    /// The runs of the trainings, by the version that their tag names.
    fn runs(&self) -> Vec<(String, Value)> {
        let Some(found) = self.get(&format!("experiments/get-by-name?experiment_name={NAME}")) else {
            return Vec::new();
        };
        let experiment = &found["experiment"]["experiment_id"];
        let url = format!("{}/api/2.0/mlflow/runs/search", self.0);
        let (status, answer) = post(&url, json!({ "experiment_ids": [experiment] }).to_string());
        assert_eq!(status, 200, "{answer}");
        let runs = answer["runs"].as_array().cloned().unwrap_or_default();
        runs.into_iter()
            .map(|run| (tag(&run["data"]["tags"], "marquee.version"), run))
            .collect()
    }

    fn has_run_of(&self, version: &str) -> bool {
        self.runs().iter().any(|(of, _)| of == version)
    }

    /// The version that an alias names, if it is there.
    fn alias(&self, alias: &str) -> Option<String> {
        let found = self.get(&format!("registered-models/alias?name={NAME}&alias={alias}"))?;
        Some(tag(&found["model_version"]["tags"], "marquee.version"))
    }

    /// Everything about a version is there, once.
    fn holds(&self, version: &str, run: &Value) {
        assert_eq!(run["info"]["status"], "FINISHED", "{version}");
        let id = run["info"]["run_id"].as_str().unwrap();
        let metrics = run["data"]["metrics"].as_array().unwrap();
        let names: Vec<&str> = metrics
            .iter()
            .filter_map(|metric| metric["key"].as_str())
            .collect();
        assert!(names.contains(&"ndcg_at_10"), "{names:?}");
        for name in names {
            let path = format!("metrics/get-history?run_id={id}&metric_key={name}");
            let history = self.get(&path).unwrap();
            assert_eq!(
                history["metrics"].as_array().unwrap().len(),
                1,
                "{version}: {name}"
            );
        }
        let listed = self
            .get(&format!("artifacts/list?run_id={id}&path=bundle"))
            .unwrap();
        let sizes: BTreeMap<&str, i64> = listed["files"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|file| Some((file["path"].as_str()?, file["file_size"].as_i64()?)))
            .collect();
        for file in ["bundle/manifest.json", "bundle/model.safetensors"] {
            assert!(
                sizes.get(file).is_some_and(|&size| size > 0),
                "{version}: {sizes:?}"
            );
        }
    }
}

fn tag(tags: &Value, key: &str) -> String {
    let mut tags = tags.as_array().into_iter().flatten();
    let found = tags.find(|tag| tag["key"] == key);
    found
        .and_then(|tag| tag["value"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn versions(state: &Path) -> Vec<String> {
    let entries = registry::list(&state.join("models")).unwrap_or_default();
    entries.into_iter().map(|entry| entry.version.0).collect()
}

#[test]
fn a_killed_trainer_leaves_mlflow_whole_after_its_restart() {
    let Some(data) = data_dir() else { return };
    let Some(mut server) = required(MlflowServer::prepare(), Foreign::REQUIRE) else {
        return;
    };
    if required(server.start(), Foreign::REQUIRE).is_none() {
        return;
    }
    let mlflow = Mlflow(server.uri());
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = folder.path().join("marquee.toml");
    let settings = format!(
        "[trainer.mlflow]\ntracking_uri = {:?}\nevery_ms = 100\n",
        server.uri()
    );
    std::fs::write(&config, settings).unwrap();
    let mut args = beginning_of_ml_100k(&data, "1/s").to_vec();
    args.extend(["--config", config.to_str().unwrap()]);
    let mut marquee = Marquee::up(&state, None, &args);
    marquee.wait_model();

    // In the middle of a training.
    let bus = marquee.bus();
    let request = ask_for_training(&bus, "to be killed while it is judged");
    let judging = Stage::ALL[Stage::ALL.len() / 2].name();
    eventually("the training is half-way", || {
        let begun = |event: &ModelEvent| {
            event.kind == ModelEventKind::TrainingStage
                && event.reason == judging
                && event.retrain_event_id.as_deref() == Some(&request.event_id)
        };
        records::<ModelEvent>(&bus).iter().any(begun).then_some(())
    });
    marquee.kill_9();

    // In the middle of the report: the run is there, its files may be, the version is not finished.
    let marquee = Marquee::up(&state, None, &args);
    let reported = eventually("MLflow hears of the second version", || {
        let second = versions(&state).get(1).cloned()?;
        mlflow.has_run_of(&second).then_some(second)
    });
    marquee.kill_9();

    let _marquee = Marquee::up(&state, None, &args);
    eventually("MLflow has all versions and the registry's aliases", || {
        let runs = mlflow.runs();
        let finished = runs.iter().all(|(_, run)| run["info"]["status"] == "FINISHED");
        let reader = registry::open_read_only(&state.join("models")).ok()?;
        let champion = reader.champion().map(|version| version.0.clone());
        let previous = reader.previous().map(|version| version.0.clone());
        let aliases = mlflow.alias("champion") == champion && mlflow.alias("previous") == previous;
        (finished && aliases && runs.len() == versions(&state).len()).then_some(())
    });
    let runs = mlflow.runs();
    let of: BTreeMap<&str, &Value> = runs
        .iter()
        .map(|(version, run)| (version.as_str(), run))
        .collect();
    assert_eq!(of.len(), runs.len(), "one run per version");
    assert!(of.contains_key(reported.as_str()));
    for (version, run) in of {
        mlflow.holds(version, run);
    }
    let registered = mlflow
        .get(&format!("model-versions/search?filter=name%3D%27{NAME}%27"))
        .unwrap();
    assert_eq!(registered["model_versions"].as_array().unwrap().len(), runs.len());
}
