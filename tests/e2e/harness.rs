//! Starts `marquee` as a user would and talks to it from outside.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use marquee_runtime::SystemClock;
use marquee_runtime::bus::{Bus, BusConfig};
use marquee_schemas::{FeatureRecord, HistoryEntry, RetrainEvent, Topic, UserFeatures, UserId, decode};
use serde_json::Value;

/// Generous: the condition decides, not the clock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_marquee")
}

/// The folder of data sets, or a plain word on why the test does nothing.
pub(crate) fn data_dir() -> Option<PathBuf> {
    let found = std::env::var_os("MARQUEE_DATA_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.join("ml-100k").is_dir());
    if found.is_none() {
        eprintln!("skipped: MARQUEE_DATA_DIR names no folder that holds ml-100k");
    }
    found.map(|dir| std::fs::canonicalize(&dir).unwrap_or(dir))
}

/// What makes [`Marquee::up`] replay the oldest fifth of ml-100k and let the rest come in at `live_speed`.
pub(crate) fn beginning_of_ml_100k<'a>(data: &'a Path, live_speed: &'a str) -> [&'a str; 8] {
    [
        "--dataset",
        "ml-100k",
        "--data-dir",
        data.to_str().unwrap(),
        "--history-share",
        "0.2",
        "--live-speed",
        live_speed,
    ]
}

/// Polls until `condition` gives a value.
pub(crate) fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    marquee_testkit::eventually(what, PATIENCE, condition)
}

/// A running `marquee up`.
pub(crate) struct Marquee {
    child: Child,
    state: PathBuf,
    log: PathBuf,
}

impl Marquee {
    /// `marquee up` on free ports with its state in `state`, and whatever else is wanted.
    pub(crate) fn up(state: &Path, brokers: Option<&str>, extra: &[&str]) -> Self {
        Self::up_in(&[], state, brokers, extra)
    }

    /// [`Marquee::up`] with further variables in its environment.
    pub(crate) fn up_in(
        environment: &[(&str, &str)],
        state: &Path,
        brokers: Option<&str>,
        extra: &[&str],
    ) -> Self {
        let log = state.with_extension("log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = Command::new(binary());
        command
            .args(["up", "--listen", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(state)
            .args(extra)
            // What is tested is the way of a model, not its quality: a short replay trains the ranker in seconds.
            .env("MARQUEE_TRAINER__MODEL__FIT__WINDOW", "4000")
            // Scenarios share the machine with each other and with compilers: that every request waits says nothing of
            // this process.
            .env("MARQUEE_RECOMMENDER__SHED_DELAY_MS", "0")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        if let Some(brokers) = brokers {
            command.args(["--brokers", brokers]);
        }
        let child = command.spawn().unwrap();
        Self {
            child,
            state: state.to_owned(),
            log,
        }
    }

    fn note(&mut self) -> Value {
        let path = self.state.join("instance.json");
        let pid = self.child.id();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let note = std::fs::read_to_string(&path)
                .ok()
                .and_then(|text| serde_json::from_str::<Value>(&text).ok())
                .filter(|note| note["pid"] == pid && note["http"].is_string());
            if let Some(note) = note {
                return note;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("marquee ended with {status} before it listened:\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "marquee does not listen:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn url(&mut self) -> String {
        format!("http://{}", self.note()["http"].as_str().unwrap())
    }

    pub(crate) fn bus(&mut self) -> Bus {
        Bus::new(BusConfig::for_brokers(self.note()["brokers"].as_str().unwrap()))
    }

    /// Everything it has printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap()
    }

    pub(crate) fn wait_ready(&mut self) {
        let url = self.url();
        eventually("GET /ready answers 200", || {
            (get(&format!("{url}/ready")).0 == 200).then_some(())
        });
    }

    pub(crate) fn wait_model(&mut self) -> String {
        let url = self.url();
        eventually("a model serves", || {
            get(&format!("{url}/health")).1["model_version"]
                .as_str()
                .map(str::to_owned)
        })
    }
}

impl Drop for Marquee {
    fn drop(&mut self) {
        // Already gone after `kill_9` and `interrupt`.
        if self.child.try_wait().ok().flatten().is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), tail(&self.log(), 60));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    match response {
        Ok(mut response) => {
            let status = response.status().as_u16();
            let text = response.body_mut().read_to_string().unwrap_or_default();
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        }
        Err(error) => (0, Value::String(error.to_string())),
    }
}

/// Status (0: no answer) and JSON body (or text).
pub(crate) fn get(url: &str) -> (u16, Value) {
    answer(agent().get(url).call())
}

pub(crate) fn post(url: &str, body: impl AsRef<[u8]>) -> (u16, Value) {
    answer(
        agent()
            .post(url)
            .header("content-type", "application/json")
            .send(body.as_ref()),
    )
}

pub(crate) fn delete(url: &str) -> (u16, Value) {
    answer(agent().delete(url).call())
}

/// Publishes a retrain event.
pub(crate) fn ask_for_training(bus: &Bus, reason: &str) -> RetrainEvent {
    let event = marquee_trainer::manual_retrain_event(reason, &SystemClock);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let publisher = bus.publisher("marquee-test").unwrap();
    runtime.block_on(publisher.publish(&event)).unwrap();
    event
}

/// Runs a `marquee` tool on a state directory.
pub(crate) fn tool(state: &Path, args: &[&str]) -> Output {
    tool_in(&[], state, args)
}

/// [`tool`] with further variables in its environment.
pub(crate) fn tool_in(environment: &[(&str, &str)], state: &Path, args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .envs(environment.iter().copied())
        .arg("--state-dir")
        .arg(state)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What the changelog says of every user, as any consumer would materialise it.
#[derive(Debug, Default)]
pub(crate) struct Materialised {
    pub(crate) users: BTreeMap<UserId, UserFeatures>,
    pub(crate) chunks: BTreeMap<(UserId, u32), Vec<HistoryEntry>>,
}

impl Materialised {
    pub(crate) fn read(bus: &Bus) -> Self {
        let mut state = Self::default();
        bus.read_range(Topic::Features, &BTreeMap::new(), &BTreeMap::new(), |record| {
            let value = record.value.expect("no user was erased");
            match decode::<FeatureRecord>(&value).unwrap() {
                FeatureRecord::User(user) => drop(state.users.insert(user.user_id, user)),
                FeatureRecord::History(chunk) => {
                    drop(state.chunks.insert((chunk.user_id, chunk.chunk), chunk.entries));
                }
                FeatureRecord::Movie(_) => {}
            }
            Ok::<_, Infallible>(())
        })
        .unwrap();
        state
    }

    pub(crate) fn applied(&self) -> u64 {
        self.users.values().map(|user| user.seq).sum()
    }

    pub(crate) fn histories(&self) -> BTreeMap<UserId, Vec<HistoryEntry>> {
        let mut histories: BTreeMap<UserId, Vec<HistoryEntry>> = BTreeMap::new();
        for (&(user, _), entries) in &self.chunks {
            histories.entry(user).or_default().extend(entries);
        }
        histories
    }
}

/// Decodes all records of a topic.
pub(crate) fn records<T: marquee_schemas::Record>(bus: &Bus) -> Vec<T> {
    let mut records = Vec::new();
    bus.read_range(T::TOPIC, &BTreeMap::new(), &BTreeMap::new(), |record| {
        records.extend(record.value.as_deref().map(|value| decode::<T>(value).unwrap()));
        Ok::<_, Infallible>(())
    })
    .unwrap();
    records
}
