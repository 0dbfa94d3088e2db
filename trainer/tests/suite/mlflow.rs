//! The mirror against a real MLflow server (PyPI's), checked through that server's REST API.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use marquee_runtime::ManualClock;
use marquee_runtime::bus::Outgoing;
use marquee_testkit::{Foreign, MlflowServer, eventually, required};
use marquee_trainer::mlflow::{Call, HttpTransport, Method, Mirror, MlflowConfig, MlflowError, Transport};
use marquee_trainer::{Config, manual_retrain_event, registry};
use serde_json::{Value, json};

use crate::stage::stage;

const PATIENCE: Duration = Duration::from_secs(120);

/// A transport that dies: some calls pass, then one reaches the server and its answer is lost, or is never made.
struct Dying {
    http: HttpTransport,
    left: Cell<usize>,
    last_arrives: bool,
}

impl Transport for Dying {
    fn call(&self, call: &Call<'_>) -> Result<Value, MlflowError> {
        if self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            return self.http.call(call);
        }
        if self.last_arrives {
            drop(self.http.call(call));
        }
        Err(MlflowError::Away("killed".into()))
    }
}

/// The server as somebody else sees it.
struct Client(HttpTransport);

impl Client {
    fn get(&self, path: &str) -> Option<Value> {
        let call = Call {
            method: Method::Get,
            path: format!("api/2.0/mlflow/{path}"),
            body: &[],
        };
        self.0.call(&call).ok()
    }

    fn runs(&self, experiment: &str) -> Vec<Value> {
        let Some(found) = self.get(&format!("experiments/get-by-name?experiment_name={experiment}")) else {
            return Vec::new();
        };
        let body = json!({"experiment_ids": [found["experiment"]["experiment_id"]]}).to_string();
        let call = Call {
            method: Method::Post,
            path: "api/2.0/mlflow/runs/search".into(),
            body: body.as_bytes(),
        };
        let runs = self.0.call(&call).unwrap();
        runs["runs"].as_array().cloned().unwrap_or_default()
    }

    fn alias(&self, model: &str, alias: &str) -> Option<Value> {
        let found = self.get(&format!("registered-models/alias?name={model}&alias={alias}"))?;
        Some(found["model_version"].clone())
    }
}

fn pairs(list: &Value) -> BTreeMap<String, Value> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.into_iter()
        .map(|pair| (pair["key"].as_str().unwrap().to_owned(), pair["value"].clone()))
        .collect()
}

fn config_of(config: Config, server: &MlflowServer) -> Config {
    Config {
        mlflow: MlflowConfig {
            tracking_uri: server.uri(),
            every_ms: 200,
            ..MlflowConfig::default()
        },
        ..config
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mlflow_catches_up_after_it_was_away_and_a_mirror_that_dies_doubles_nothing() {
    let Some(mut server) = required(MlflowServer::prepare(), Foreign::REQUIRE) else {
        return;
    };
    let stage = stage();
    stage.publish_movies().await;
    stage.publish_ratings(0, 900).await;
    let clock = ManualClock::at(7);
    let ask = |reason: &str| Outgoing::of(&manual_retrain_event(reason, &clock));
    let config = config_of(stage.config(), &server);

    // Nobody listens there yet: training goes on.
    let (service, token) = stage.start_with(config.clone());
    stage.publish(vec![ask("while MLflow is away")]).await;
    stage.events(|events| events.len() >= 2).await;
    let (server, started) = tokio::task::spawn_blocking(move || {
        let started = server.start();
        (server, started)
    })
    .await
    .unwrap();
    if required(started, Foreign::REQUIRE).is_none() {
        return;
    }
    let uri = server.uri();
    let client = || Client(HttpTransport::new(&uri, Duration::from_secs(60)));
    tokio::task::block_in_place(|| {
        let version = eventually("the champion is known to MLflow", PATIENCE, || {
            client().alias("marquee", "champion")
        });
        let runs = client().runs("marquee");
        assert_eq!(runs.len(), 1);
        assert_eq!(version["run_id"], runs[0]["info"]["run_id"]);
        assert_eq!(runs[0]["info"]["status"], "FINISHED");
        let (metrics, params, tags) = (
            pairs(&runs[0]["data"]["metrics"]),
            pairs(&runs[0]["data"]["params"]),
            pairs(&runs[0]["data"]["tags"]),
        );
        assert!(metrics.contains_key("ndcg_at_10") && metrics.contains_key("prequential_ndcg_at_10"));
        assert_eq!(params["seed"], "42");
        assert_eq!(tags["marquee.version"], "v000001");
        let run = runs[0]["info"]["run_id"].as_str().unwrap();
        let artifacts = client()
            .get(&format!("artifacts/list?run_id={run}&path=bundle"))
            .unwrap();
        let files: Vec<&str> = artifacts["files"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|file| file["path"].as_str())
            .collect();
        assert!(files.contains(&"bundle/model.safetensors") && files.contains(&"bundle/manifest.json"));
    });

    // A second version, of which only a mirror that dies after each call tells.
    token.cancel();
    service.await.unwrap().unwrap();
    let (service, token) = stage.start();
    stage.publish_ratings(900, 1500).await;
    stage.publish(vec![ask("the second")]).await;
    stage.events(|events| events.len() >= 4).await;
    token.cancel();
    service.await.unwrap().unwrap();
    tokio::task::block_in_place(|| {
        let own = MlflowConfig {
            experiment: "dying".into(),
            registered_model: "dying".into(),
            ..config.mlflow.clone()
        };
        let folder = &config.registry_dir;
        std::fs::remove_file(folder.join("mlflow.json")).unwrap();
        let mut deaths = 0;
        loop {
            let transport = Dying {
                http: HttpTransport::new(&uri, Duration::from_secs(60)),
                left: Cell::new(deaths / 2),
                last_arrives: deaths % 2 == 0,
            };
            let mut mirror = Mirror::open(own.clone(), folder, transport).unwrap();
            match mirror.pass() {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, MlflowError::Away(_)), "{error}"),
            }
            deaths += 1;
            assert!(deaths < 400, "the mirror never ends");
        }
        println!("the mirror died {deaths} times");
        assert!(deaths > 20);
        let runs = client().runs("dying");
        assert_eq!(runs.len(), 2, "one run per version");
        for run in &runs {
            let id = run["info"]["run_id"].as_str().unwrap();
            for name in pairs(&run["data"]["metrics"]).keys() {
                let history = client().get(&format!("metrics/get-history?run_id={id}&metric_key={name}"));
                assert_eq!(history.unwrap()["metrics"].as_array().unwrap().len(), 1, "{name}");
            }
        }
        let versions = client()
            .get("model-versions/search?filter=name%3D%27dying%27")
            .unwrap();
        assert_eq!(versions["model_versions"].as_array().unwrap().len(), 2);
        let reader = registry::open_read_only(folder).unwrap();
        for (alias, version) in [("champion", reader.champion()), ("previous", reader.previous())] {
            let tags = client().alias("dying", alias).map(|found| pairs(&found["tags"]));
            let on_server = tags.map(|tags| tags["marquee.version"].as_str().unwrap().to_owned());
            assert_eq!(on_server, version.map(|version| version.0.clone()), "{alias}");
        }
        // Another pass finds nothing to do.
        let transport = HttpTransport::new(&uri, Duration::from_secs(60));
        let again = Mirror::open(own, folder, transport).unwrap().pass().unwrap();
        assert_eq!(again, marquee_trainer::mlflow::Mirrored::default());
    });
}
