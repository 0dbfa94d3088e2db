//! `cargo bench --bench serving [-- --dataset ml-100k --rate 2000 --seconds 20 --events 1000]`: how fast lists are
//! served while events flow in and every list is logged, on the whole product as one process (`marquee up`, embedded
//! broker, ml-1m where `MARQUEE_DATA_DIR` has it).
//!
//! The load is *open-loop*: request n is due at n / rate whatever became of the others, and its latency counts from
//! then, so that a server that stalls is charged for everybody who would have waited (no coordinated omission). It is
//! sent from this process over keep-alive connections; the server is another process.
//!
//! The peer in the same run is `GET /health`, the server without any list: what lies above it is the list's own cost.
//! Ends with one JSON line.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use marquee_runtime::bus::{Bus, BusConfig, Outgoing};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{Interaction, Kind, MovieId, SchemaVersion, UserId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keep-alive connections; a request that finds its own busy waits, and its wait counts.
const CONNECTIONS: usize = 48;
/// Background users rate; those who ask are others.
const BACKGROUND: u64 = 1 << 41;
/// Rates tried in search of the knee, requests per second.
const KNEE_RATES: [u32; 7] = [500, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000];
/// Beyond this 99th percentile, or below this share of the rate, the server is over its knee.
const KNEE_P99_MS: f64 = 50.0;
const KNEE_SHARE: f64 = 0.98;

struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Settings {
    dataset: String,
    rate: u32,
    seconds: u32,
    events: u32,
}

impl Settings {
    fn from_args() -> Self {
        let has_data =
            std::env::var_os("MARQUEE_DATA_DIR").is_some_and(|dir| Path::new(&dir).join("ml-1m").is_dir());
        let mut settings = Self {
            dataset: if has_data { "ml-1m" } else { "synthetic" }.into(),
            rate: 2_000,
            seconds: 20,
            events: 1_000,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("a value");
            match arg.as_str() {
                "--dataset" => settings.dataset = value(),
                "--rate" => settings.rate = value().parse().expect("requests per second"),
                "--seconds" => settings.seconds = value().parse().expect("seconds"),
                "--events" => settings.events = value().parse().expect("events per second"),
                // What cargo itself passes.
                _ => {}
            }
        }
        settings
    }
}

/// Sends one request over an open connection and reads its answer; `None` where the connection ended.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Option<u16> {
    stream.write_all(request).await.ok()?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head]).ok()?;
        let length: usize = text.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        })?;
        let status = text.split(' ').nth(1)?.parse().ok();
        while buffer.len() < head + 4 + length {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        return status;
    }
}

struct Load {
    latency_us: Histogram<u64>,
    answered: u64,
    failed: u64,
    elapsed: Duration,
}

impl Load {
    fn ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }

    fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

/// `rate` requests per second for `seconds`; request n is `request(n)`.
async fn load(
    address: &str,
    rate: u32,
    seconds: u32,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Load {
    let request = Arc::new(request);
    let begun = Instant::now();
    let total = u64::from(rate) * u64::from(seconds);
    let workers: Vec<_> = (0..CONNECTIONS as u64)
        .map(|worker| {
            let (address, request) = (address.to_owned(), Arc::clone(&request));
            tokio::spawn(async move {
                let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a histogram");
                let (mut failed, mut stream, mut buffer) = (0, None, Vec::with_capacity(16 << 10));
                for n in (worker..total).step_by(CONNECTIONS) {
                    let due = begun + Duration::from_secs_f64(n as f64 / f64::from(rate));
                    tokio::time::sleep_until(due.into()).await;
                    if stream.is_none() {
                        stream = TcpStream::connect(&address).await.ok();
                        if let Some(stream) = &stream {
                            stream.set_nodelay(true).expect("no delay");
                        }
                    }
                    let status = match &mut stream {
                        Some(open) => exchange(open, &request(n), &mut buffer).await,
                        None => None,
                    };
                    match status {
                        Some(200) => latency.saturating_record(due.elapsed().as_micros() as u64),
                        Some(_) => failed += 1,
                        None => {
                            failed += 1;
                            stream = None;
                        }
                    }
                }
                (latency, failed)
            })
        })
        .collect();
    let mut all = Load {
        latency_us: Histogram::new_with_bounds(1, 60_000_000, 3).expect("a histogram"),
        answered: 0,
        failed: 0,
        elapsed: Duration::ZERO,
    };
    for worker in workers {
        let (latency, failed) = worker.await.expect("a worker");
        all.latency_us.add(latency).expect("the same bounds");
        all.failed += failed;
    }
    all.answered = all.latency_us.len();
    all.elapsed = begun.elapsed();
    all
}

fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
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
            // A full queue means that the broker is the limit: the rate that was reached is told at the end.
            drop(publisher.try_send(&Outgoing::of(&event)));
            n += 1;
        }
    }
}

/// User and system time of a process so far, and its resident and peak memory.
fn usage(pid: u32) -> (Duration, f64, f64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its statistics");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|&field| fields[field].parse::<u64>().unwrap_or(0))
        .sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let mib = |key: &str| {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(key)?
                    .trim()
                    .trim_end_matches(" kB")
                    .parse::<f64>()
                    .ok()
            })
            .unwrap_or(0.0)
            / 1024.0
    };
    // Linux counts in hundredths of a second.
    (Duration::from_millis(ticks * 10), mib("VmRSS:"), mib("VmHWM:"))
}

async fn get(address: &str, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut buffer = Vec::new();
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    (exchange(&mut stream, request.as_bytes(), &mut buffer).await? == 200).then_some(())?;
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
    serde_json::from_slice(&buffer[head + 4..]).ok()
}

#[tokio::main]
async fn main() {
    let settings = Settings::from_args();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let up = Command::new(env!("CARGO_BIN_EXE_marquee"))
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--kafka-listen",
            "127.0.0.1:0",
            "--live-speed",
            "1/s",
        ])
        .args(["--dataset", &settings.dataset, "--log", "warn"])
        .arg("--state-dir")
        .arg(&state)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.path().join("up.log")).expect("a log file"))
        .spawn()
        .expect("starting marquee");
    let mut up = Up(up);
    let pid = up.0.id();
    let deadline = Instant::now() + Duration::from_secs(1_800);
    // It says so once the history is replayed and a model serves.
    loop {
        if let Some(status) = up.0.try_wait().expect("its status") {
            panic!("marquee ended with {status}");
        }
        let log = std::fs::read_to_string(folder.path().join("up.log")).unwrap_or_default();
        if log.contains("ready  ") {
            print!("{log}");
            break;
        }
        assert!(Instant::now() < deadline, "no model in time:\n{log}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let note = std::fs::read(state.join("instance.json")).expect("the instance's note");
    let note: Value = serde_json::from_slice(&note).expect("JSON");
    let address = note["http"].as_str().expect("an address").to_owned();
    let ready = get(&address, "/ready").await.expect("ready");
    println!("ready: {ready}");
    let popular = get(&address, "/popular?k=100&window=all")
        .await
        .expect("popular movies");
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
    let bus = Bus::new(BusConfig::for_brokers(note["brokers"].as_str().expect("brokers")));
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
    drop(load(&address, rate / 4, 3, recommend).await);
    let peer = load(&address, rate, seconds / 2, health).await;
    let (before, ..) = usage(pid);
    let lists = load(&address, rate, seconds, recommend).await;
    let (after, rss_mib, peak_mib) = usage(pid);
    let alike = load(&address, rate, seconds / 2, similar).await;
    for (name, load) in [("/health", &peer), ("/recommend", &lists), ("/similar", &alike)] {
        println!(
            "{name}: {:.0}/s of {rate}/s, p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, max {:.1} ms, {} failed",
            load.rate(),
            load.ms(0.5),
            load.ms(0.95),
            load.ms(0.99),
            load.ms(1.0),
            load.failed
        );
    }
    let mut knee = 0;
    for rate in KNEE_RATES {
        let step = load(&address, rate, 5, recommend).await;
        println!(
            "{rate}/s: {:.0}/s answered, p99 {:.2} ms, {} failed",
            step.rate(),
            step.ms(0.99),
            step.failed
        );
        if step.ms(0.99) > KNEE_P99_MS || step.rate() < f64::from(rate) * KNEE_SHARE {
            break;
        }
        knee = rate;
    }
    background.abort();
    let metrics = {
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        let mut buffer = Vec::new();
        exchange(
            &mut stream,
            b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n",
            &mut buffer,
        )
        .await;
        String::from_utf8_lossy(&buffer).into_owned()
    };
    let dropped: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("marquee_request_logs_dropped_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    println!(
        "{}",
        json!({
            "bench": "serving", "dataset": settings.dataset, "movies": ready["movies"], "users": users,
            "events_per_s": settings.events, "requests_per_s": rate,
            "recommend_answered_per_s": lists.rate(), "recommend_failed": lists.failed,
            "recommend_p50_ms": lists.ms(0.5), "recommend_p95_ms": lists.ms(0.95), "recommend_p99_ms": lists.ms(0.99),
            "similar_p99_ms": alike.ms(0.99), "similar_failed": alike.failed,
            "peer": "GET /health of the same server", "peer_p99_ms": peer.ms(0.99),
            "process_cpu_us_per_recommend": (after - before).as_micros() as f64 / lists.answered.max(1) as f64,
            "knee_requests_per_s": knee, "rss_mib": rss_mib, "peak_rss_mib": peak_mib,
            "request_logs_dropped": dropped,
        })
    );
}
