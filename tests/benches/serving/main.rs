//! `cargo bench --bench serving [-- --parts lists,knee,growth --dataset ml-1m --rate 2000 --seconds 20 --events 1000
//! --state-dir FOLDER]`: how fast lists are served while events flow in and every list is logged.
//!
//! `lists` and `knee` ask the whole product as one process (`marquee up`, embedded broker) over HTTP; the load comes
//! from this process, open-loop ([`load`]). The data set is ml-1m where `MARQUEE_DATA_DIR` has it (its pairs are enough,
//! see [`ml1m`]), the synthetic one otherwise; 85% of it is history, on which one model with its ranker is trained
//! before anything is measured. No further training runs meanwhile. A state directory that is named is kept, and used
//! again as it is. `growth` asks the engine alone, see [`growth`].
//!
//! The peer in the same run is `GET /health`, the same server without any list: what lies above it is the list's own
//! cost. Ends with one JSON line.

mod growth;
mod load;
#[path = "../ml1m.rs"]
mod ml1m;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use marquee_runtime::bus::{Bus, BusConfig, Outgoing};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{Interaction, Kind, MovieId, SchemaVersion, UserId};
use serde_json::{Map, Value, json};

use load::{CROWD, get, get_json, load, load_over, post};

/// Background users rate; those who ask are others.
const BACKGROUND: u64 = 1 << 41;
/// Rates tried in search of the knee, requests per second.
const KNEE_RATES: [u32; 7] = [500, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000];
/// Beyond this 99th percentile, or below this share of the rate, the server is over its knee.
const KNEE_P99_MS: f64 = 50.0;
const KNEE_SHARE: f64 = 0.98;
/// How long history and training may take.
const PATIENCE: Duration = Duration::from_secs(3_600);

struct Settings {
    parts: Vec<String>,
    dataset: String,
    rate: u32,
    seconds: u32,
    events: u32,
    state: Option<PathBuf>,
}

impl Settings {
    fn from_args() -> Self {
        let has_data =
            std::env::var_os("MARQUEE_DATA_DIR").is_some_and(|dir| Path::new(&dir).join("ml-1m").is_dir());
        let mut settings = Self {
            parts: ["lists", "knee", "growth"].map(str::to_owned).to_vec(),
            dataset: if has_data { "ml-1m" } else { "synthetic" }.into(),
            rate: 2_000,
            seconds: 20,
            events: 1_000,
            state: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("a value");
            match arg.as_str() {
                "--parts" => settings.parts = value().split(',').map(str::to_owned).collect(),
                "--dataset" => settings.dataset = value(),
                "--rate" => settings.rate = value().parse().expect("requests per second"),
                "--seconds" => settings.seconds = value().parse().expect("seconds"),
                "--events" => settings.events = value().parse().expect("events per second"),
                "--state-dir" => settings.state = Some(value().into()),
                // What cargo itself passes.
                _ => {}
            }
        }
        settings
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|wanted| wanted == part)
    }
}

/// A running `marquee up`.
struct Up {
    child: Child,
    http: String,
    brokers: String,
}

impl Drop for Up {
    fn drop(&mut self) {
        // As a person would end it, so that a state that is kept is one to resume from. It may have ended by itself.
        let interrupt = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        if !interrupt.is_ok_and(|status| status.success()) {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

impl Up {
    /// Starts it and waits until a model serves.
    async fn start(settings: &Settings, folder: &Path, data: Option<&Path>) -> Self {
        let state = settings.state.clone().unwrap_or_else(|| folder.join("state"));
        let log = folder.join("up.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_marquee"));
        command
            .args(["up", "--listen", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0"])
            .args([
                "--live-speed",
                "1/s",
                "--log",
                "warn",
                "--dataset",
                &settings.dataset,
            ])
            .arg("--state-dir")
            .arg(&state)
            // One training, on all of the history, with its ranker.
            .env(
                "MARQUEE_FEATURE_PROCESSOR__TRIGGERS__VOLUME_INTERACTIONS",
                "1000000000",
            )
            .env("MARQUEE_FEATURE_PROCESSOR__TRIGGERS__INTERACTION_GROWTH", "1000")
            .env("MARQUEE_FEATURE_PROCESSOR__TRIGGERS__USER_GROWTH", "1000")
            .env("MARQUEE_TRAINER__QUICK_BOOTSTRAP", "false")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).expect("a log file"));
        if let Some(data) = data {
            let ratings = std::fs::read_to_string(data.join("ratings.dat")).expect("ratings.dat");
            let history = ratings.lines().count() * 84 / 100;
            command.arg("--data-dir").arg(data).env(
                "MARQUEE_FEATURE_PROCESSOR__TRIGGERS__BOOTSTRAP_MIN_INTERACTIONS",
                history.to_string(),
            );
        }
        let mut child = command.spawn().expect("starting marquee");
        let deadline = Instant::now() + PATIENCE;
        // It says so once the history is replayed.
        let said = loop {
            if let Some(status) = child.try_wait().expect("its status") {
                panic!("marquee ended with {status}");
            }
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("ready  ") {
                break said;
            }
            assert!(Instant::now() < deadline, "no model in time:\n{said}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        };
        print!("{said}");
        let note = std::fs::read(state.join("instance.json")).expect("the instance's note");
        let note: Value = serde_json::from_slice(&note).expect("JSON");
        let named = |key: &str| note[key].as_str().expect("an address").to_owned();
        let up = Self {
            child,
            http: named("http"),
            brokers: named("brokers"),
        };
        // A training may take longer than `up` waits for it.
        while get_json(&up.http, "/health").is_none_or(|health| health["model_version"].is_null()) {
            assert!(Instant::now() < deadline, "no model in time");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        up
    }

    /// Waits until it has little left to do, or a minute: the lake and the exports lag behind the history.
    async fn settle(&self) {
        const IDLE: Duration = Duration::from_millis(250);
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let (before, ..) = self.usage();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (after, ..) = self.usage();
            if after - before < IDLE {
                return;
            }
        }
    }

    /// User and system time so far, resident and peak memory in MiB.
    fn usage(&self) -> (Duration, f64, f64) {
        let pid = self.child.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its statistics");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks: u64 = [11, 12]
            .map(|field: usize| fields[field].parse::<u64>().unwrap_or(0))
            .iter()
            .sum();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let mib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
            kib.unwrap_or(0.0) / 1024.0
        };
        // Linux counts in hundredths of a second.
        (Duration::from_millis(ticks * 10), mib("VmRSS:"), mib("VmHWM:"))
    }
}

/// Ratings of background users, `per_second` of them, until the process ends.
async fn events(bus: Bus, movies: Arc<Vec<u32>>, per_second: u32) {
    let publisher = bus.publisher("marquee-bench-serving").expect("a publisher");
    let begun = Instant::now();
    let run = SystemClock.now_ms();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut n = 0_u64;
    loop {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while n < due {
            let event = Interaction {
                schema_version: SchemaVersion,
                event_id: format!("bench/{run}/{n}"),
                user_id: UserId(BACKGROUND + n % 2_000),
                movie_id: Some(MovieId(movies[(n * 7_919) as usize % movies.len()])),
                kind: Kind::Rating,
                rating: Some(4.0),
                genres: Vec::new(),
                timestamp: SystemClock.now_ms(),
                session_id: None,
                request_id: None,
                source: Some("bench".into()),
            };
            // A full queue means that the broker is the limit: the count of applied events tells the rate reached.
            drop(publisher.try_send(&Outgoing::of(&event)));
            n += 1;
        }
    }
}

/// The sum of a metric's samples.
fn metric(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

async fn over_http(settings: &Settings, figures: &mut Map<String, Value>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = (settings.dataset == "ml-1m").then(|| ml1m::folder(folder.path()));
    let up = Up::start(settings, folder.path(), data.as_deref()).await;
    let address = up.http.clone();
    let ready = get_json(&address, "/ready").expect("ready");
    println!("ready: {ready}");
    let popular = get_json(&address, "/popular?k=100&window=all").expect("popular movies");
    let movies: Arc<Vec<u32>> = Arc::new(
        popular["items"]
            .as_array()
            .expect("items")
            .iter()
            .filter_map(|item| item["movie_id"].as_u64())
            .map(|id| id as u32)
            .collect(),
    );
    let users = ready["users"].as_u64().unwrap_or(1).max(1);
    up.settle().await;
    let bus = Bus::new(BusConfig::for_brokers(&up.brokers));
    let background = tokio::spawn(events(bus, Arc::clone(&movies), settings.events));

    // Known users, a tenth of them strangers; the multiplier only spreads them.
    let recommend = move |n: u64| {
        let user = if n % 10 == 9 {
            (1 << 42) + n
        } else {
            n * 7_919 % users + 1
        };
        post("/recommend", &json!({"user_id": user, "k": 10}))
    };
    let seeds = Arc::clone(&movies);
    let similar = move |n: u64| {
        post(
            "/similar",
            &json!({"movie_id": seeds[n as usize % seeds.len()], "k": 10}),
        )
    };
    let health = |_: u64| b"GET /health HTTP/1.1\r\nhost: bench\r\n\r\n".to_vec();

    let (rate, seconds) = (settings.rate, settings.seconds);
    let mut set = |name: &str, value: Value| drop(figures.insert(name.to_owned(), value));
    set("movies", ready["movies"].clone());
    set("users", json!(users));
    drop(load(&address, rate / 4, 3, recommend).await);
    if settings.wants("lists") {
        let text = get(&address, "/metrics").expect("metrics");
        let applied = metric(&text, "marquee_view_entries_total");
        let (idle, ..) = up.usage();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (events_alone, ..) = up.usage();
        let peer = load(&address, rate, seconds / 2, health).await;
        let (before, ..) = up.usage();
        let lists = load(&address, rate, seconds, recommend).await;
        let (after, rss_mib, peak_mib) = up.usage();
        let alike = load(&address, rate, seconds / 2, similar).await;
        let text = get(&address, "/metrics").expect("metrics");
        println!("{}", peer.told("/health", rate));
        println!("{}", lists.told("/recommend", rate));
        println!("{}", alike.told("/similar", rate));
        let busy = (after - before).as_secs_f64() / lists.elapsed.as_secs_f64();
        let events_busy = (events_alone - idle).as_secs_f64() / 3.0;
        for (name, value) in [
            ("recommend_answered_per_s", lists.rate()),
            ("recommend_p50_ms", lists.ms(0.5)),
            ("recommend_p95_ms", lists.ms(0.95)),
            ("recommend_p99_ms", lists.ms(0.99)),
            ("recommend_max_ms", lists.ms(1.0)),
            ("similar_p50_ms", alike.ms(0.5)),
            ("similar_p99_ms", alike.ms(0.99)),
            ("peer_p99_ms", peer.ms(0.99)),
            ("process_cores_busy_under_recommend", busy),
            ("process_cores_busy_under_events_alone", events_busy),
            (
                "cpu_us_per_recommend",
                (busy - events_busy) * 1e6 / lists.rate().max(1.0),
            ),
            ("rss_mib", rss_mib),
            ("peak_rss_mib", peak_mib),
            (
                "events_applied_per_s",
                (metric(&text, "marquee_view_entries_total") - applied) / (3.0 + f64::from(2 * seconds)),
            ),
        ] {
            set(name, json!(value));
        }
        set("recommend_failed", json!(lists.failed));
        set("recommend_shed", json!(lists.shed));
        set("similar_failed", json!(alike.failed + alike.shed));
        set("peer", json!("GET /health of the same server"));
    }
    if settings.wants("knee") {
        let mut knee = 0;
        for rate in KNEE_RATES {
            let step = load(&address, rate, 5, recommend).await;
            println!("{}", step.told("knee", rate));
            if step.ms(0.99) > KNEE_P99_MS || step.rate() < f64::from(rate) * KNEE_SHARE {
                break;
            }
            knee = rate;
        }
        set("knee_requests_per_s", json!(knee));
        let rate = 2 * knee.max(KNEE_RATES[0]);
        let crowd = load_over(CROWD, &address, rate, 10, recommend).await;
        println!("{}", crowd.told("beyond the knee, over many connections", rate));
        set(
            "beyond_the_knee",
            json!({
                "requests_per_s": rate, "answered_per_s": crowd.rate(), "answered_p50_ms": crowd.ms(0.5),
                "answered_p99_ms": crowd.ms(0.99), "shed": crowd.shed, "failed": crowd.failed,
            }),
        );
    }
    background.abort();
    let text = get(&address, "/metrics").expect("metrics");
    set(
        "request_logs_dropped",
        json!(metric(&text, "marquee_request_logs_dropped_total")),
    );
    set(
        "request_logs_spooled",
        json!(metric(&text, "marquee_request_logs_spooled_total")),
    );
}

#[tokio::main]
async fn main() {
    let settings = Settings::from_args();
    let mut figures = Map::new();
    figures.insert("bench".into(), json!("serving"));
    if settings.wants("lists") || settings.wants("knee") {
        figures.insert("dataset".into(), json!(settings.dataset));
        figures.insert("events_per_s".into(), json!(settings.events));
        figures.insert("requests_per_s".into(), json!(settings.rate));
        over_http(&settings, &mut figures).await;
    }
    if settings.wants("growth") {
        let rows = tokio::task::spawn_blocking(growth::measure)
            .await
            .expect("figures");
        figures.insert("growth".into(), json!(rows));
    }
    println!("{}", Value::Object(figures));
}
