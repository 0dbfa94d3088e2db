//! `cargo bench --bench retraining [-- --dataset ml-1m --threads 2]`: from a retrain event to the model that serves, on
//! the whole product as one process (`marquee up`, embedded broker), with the peak of its memory. Without `--dataset`
//! it is ml-100k where `MARQUEE_DATA_DIR` has it, the synthetic data set otherwise; ml-1m's pairs get simulated times.
//!
//! The whole data set is history. A first model serves; then a person asks for a training of the whole recipe. The gate is
//! held open, because a model that it keeps out is never served. The clock runs from the publication of the event until
//! `GET /health` names the new version.
//!
//! The peer in the same run is the training alone, without the log, the snapshot, the registry and the loading of the
//! bundle: what lies between the two is the way of a model through the system. Ends with one JSON line.

mod ml1m;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use marquee_runtime::SystemClock;
use marquee_runtime::bus::{Bus, BusConfig};
use marquee_schemas::{ModelEvent, ModelEventKind, Topic};
use marquee_trainer::run::Stage;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(1_800);
const GLANCE: Duration = Duration::from_millis(20);

struct Up {
    child: Child,
    log: PathBuf,
}

impl Up {
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Looks until there is something, for as long as the process lives.
    fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            if let Some(status) = self.child.try_wait().expect("its status") {
                panic!("marquee ended with {status} before: {what}\n{}", self.said());
            }
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.said());
            std::thread::sleep(GLANCE);
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Settings {
    dataset: String,
    threads: usize,
}

impl Settings {
    fn from_args() -> Self {
        let has_data =
            std::env::var_os("MARQUEE_DATA_DIR").is_some_and(|dir| Path::new(&dir).join("ml-100k").is_dir());
        let mut settings = Self {
            dataset: if has_data { "ml-100k" } else { "synthetic" }.into(),
            threads: std::thread::available_parallelism().map_or(1, Into::into),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--dataset" => settings.dataset = args.next().expect("a data set"),
                "--threads" => {
                    settings.threads = args.next().and_then(|n| n.parse().ok()).expect("a number");
                }
                // What cargo itself passes.
                _ => {}
            }
        }
        settings
    }
}

fn get(url: &str) -> Option<Value> {
    let mut response = ureq::get(url).call().ok()?;
    serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
}

fn model_events(bus: &Bus) -> Vec<ModelEvent> {
    let mut events = Vec::new();
    let all = BTreeMap::new();
    // A broker that is still starting has none.
    bus.read_range(Topic::ModelEvents, &all, &all, |record| {
        events.extend(
            record
                .value
                .as_deref()
                .and_then(|value| marquee_schemas::decode(value).ok()),
        );
        Ok::<_, std::convert::Infallible>(())
    })
    .map_or_else(|_| Vec::new(), |_| events)
}

fn number(event: &ModelEvent, name: &str) -> f64 {
    event.numbers.get(name).copied().unwrap_or(f64::NAN)
}

fn main() {
    let settings = Settings::from_args();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let log = folder.path().join("up.log");
    let quiet = "1000000000";
    let mut command = Command::new(env!("CARGO_BIN_EXE_marquee"));
    command.args(["up", "--listen", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0"]);
    if settings.dataset == "ml-1m" {
        command.arg("--data-dir").arg(ml1m::folder(folder.path()));
    }
    let child = command
        .args(["--history-share", "1.0", "--log", "warn"])
        .args(["--dataset", &settings.dataset])
        .arg("--state-dir")
        .arg(&state)
        .env("MARQUEE_TRAINER__THREADS", settings.threads.to_string())
        .env("MARQUEE_TRAINER__GATE__MIN_RELATIVE_GAIN", "-0.99")
        .env("MARQUEE_TRAINER__GATE__MAX_SECONDARY_LOSS", "1.0")
        .env("MARQUEE_TRAINER__GATE__MIN_USERS", "1")
        // Nobody else asks for a training.
        .env("MARQUEE_FEATURE_PROCESSOR__TRIGGERS__VOLUME_INTERACTIONS", quiet)
        .env("MARQUEE_FEATURE_PROCESSOR__TRIGGERS__INTERACTION_GROWTH", quiet)
        .env("MARQUEE_FEATURE_PROCESSOR__TRIGGERS__USER_GROWTH", quiet)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log).expect("a log file"))
        .spawn()
        .expect("starting marquee");
    let mut up = Up {
        child,
        log: log.clone(),
    };
    let note = up.wait_for("the instance", || {
        let text = std::fs::read_to_string(state.join("instance.json")).ok()?;
        let note: Value = serde_json::from_str(&text).ok()?;
        note["http"].is_string().then_some(note)
    });
    let url = format!("http://{}", note["http"].as_str().expect("an address"));
    let bus = Bus::new(BusConfig::for_brokers(
        note["brokers"].as_str().expect("the brokers"),
    ));
    up.wait_for("the history is replayed and a first model serves", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let served = get(&format!("{url}/health"))?["model_version"].is_string();
        (served && text.contains("ready  ")).then_some(())
    });
    let interactions = bus
        .watermarks_blocking(Topic::Interactions)
        .expect("the log's length")
        .len();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let request = marquee_trainer::manual_retrain_event("a benchmark of the whole recipe", &SystemClock);
    let publisher = bus.publisher("marquee-bench-retraining").expect("a publisher");
    let asked = Instant::now();
    runtime
        .block_on(publisher.publish(&request))
        .expect("the event is published");
    let ours = |event: &&ModelEvent| event.retrain_event_id.as_deref() == Some(&request.event_id);
    let version = up.wait_for("the verdict", || {
        let events = model_events(&bus);
        let verdict = events.iter().filter(ours).find(|event| {
            matches!(
                event.kind,
                ModelEventKind::Promoted | ModelEventKind::Rejected | ModelEventKind::Failed
            )
        })?;
        assert_eq!(verdict.kind, ModelEventKind::Promoted, "{}", verdict.reason);
        Some(verdict.version.clone())
    });
    up.wait_for("the new version serves", || {
        (get(&format!("{url}/health"))?["model_version"] == version.0.as_str()).then_some(())
    });
    let event_to_served_s = asked.elapsed().as_secs_f64();

    let events = model_events(&bus);
    let stages: Vec<&ModelEvent> = events
        .iter()
        .filter(ours)
        .filter(|event| event.kind == ModelEventKind::TrainingStage)
        .collect();
    let at = |name: &str| {
        let stage = stages.iter().find(|event| event.reason == name);
        stage.map_or(f64::NAN, |event| number(event, "elapsed_ms") / 1_000.0)
    };
    let names: Vec<&str> = Stage::ALL.map(Stage::name).into_iter().chain(["done"]).collect();
    let seconds: BTreeMap<String, f64> = names
        .windows(2)
        .map(|pair| (format!("{}_s", pair[0]), at(pair[1]) - at(pair[0])))
        .collect();
    let peak = stages
        .iter()
        .map(|event| number(event, "peak_memory_bytes"))
        .fold(0.0, f64::max);
    let training_alone_s = at("done") - at(Stage::Validate.name());
    for (name, seconds) in &seconds {
        println!("{name:<22} {seconds:>8.1}");
    }
    println!(
        "event to served        {event_to_served_s:>8.1} s, peak memory {:.0} MiB",
        peak / 1_048_576.0
    );
    println!(
        "{}",
        json!({
            "bench": "retraining",
            "dataset": settings.dataset,
            "interactions": interactions,
            "threads": settings.threads,
            "event_to_served_s": event_to_served_s,
            "peer_training_alone_s": training_alone_s,
            "overhead_ratio": event_to_served_s / training_alone_s,
            "peak_memory_mib": peak / 1_048_576.0,
            "stages": seconds,
        })
    );
}
