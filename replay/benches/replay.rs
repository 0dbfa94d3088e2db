//! `cargo bench --bench replay`: logged requests into the lake, then five analysts' questions to it, beside DuckDB on
//! the same files.
//!
//! The requests are ten million unless `MARQUEE_BENCH_REQUESTS` says otherwise; they are made and encoded on a thread of
//! their own and take the way of the service: JSON bytes, decoded, checked, written by the sink, compacted. The questions
//! are asked at a tenth of the requests and at the end, so that the growth shows. Peak memory is that of the whole
//! process since the previous stage. The last line is JSON.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use marquee_replay::{CompactionConfig, FlushConfig, LakeWriter, SqlEngine, SqlOptions};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{
    Endpoint, Filters, LoggedItem, ModelVersion, MovieId, RequestLog, SchemaVersion, StageLatency, Topic,
    UserId, encode,
};
use marquee_testkit::python_with;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// 2024-05-01.
const MAY: i64 = 1_714_521_600_000;
const DAYS: i64 = 7;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const MOVIES: u32 = 10_000;
const USERS: u64 = 200_000;
const PER_BATCH: i64 = 5_000;
/// Batches that are ready while one is written.
const AHEAD: usize = 4;
const PARTITIONS: i64 = 2;
/// Each question is asked so often; the median counts.
const TIMES: usize = 5;

/// Name, question to marquee, question to DuckDB over `{request_logs}`.
const QUESTIONS: [(&str, &str, &str); 5] = [
    (
        "latency_by_day_and_endpoint",
        "SELECT date, endpoint, count(*), hdr_percentile(latency_ms, 0.95) FROM request_logs GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT date, endpoint, count(*), approx_quantile(latency_ms, 0.95) FROM {request_logs} GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "traffic_by_hour_of_a_day",
        "SELECT date_trunc('hour', \"timestamp\") AS hour, count(*), approx_distinct(user_id) FROM request_logs WHERE date = '2024-05-03' GROUP BY 1 ORDER BY 1",
        "SELECT date_trunc('hour', \"timestamp\") AS hour, count(*), approx_count_distinct(user_id) FROM {request_logs} WHERE date = '2024-05-03' GROUP BY 1 ORDER BY 1",
    ),
    (
        "fallback_share_by_model",
        "SELECT model_version, count(*), avg(CASE WHEN fallback_reason IS NULL THEN 0 ELSE 1 END) FROM request_logs GROUP BY 1 ORDER BY 1",
        "SELECT model_version, count(*), avg(CASE WHEN fallback_reason IS NULL THEN 0 ELSE 1 END) FROM {request_logs} GROUP BY 1 ORDER BY 1",
    ),
    (
        "most_shown_movies_of_an_hour",
        "SELECT movie_id, count(*) AS shown FROM impressions WHERE \"timestamp\" >= '2024-05-03T12:00:00Z' AND \"timestamp\" < '2024-05-03T13:00:00Z' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20",
        "SELECT item.movie_id AS movie_id, count(*) AS shown FROM (SELECT unnest(items) AS item FROM {request_logs} WHERE date = '2024-05-03' AND \"timestamp\" >= '2024-05-03T12:00:00Z' AND \"timestamp\" < '2024-05-03T13:00:00Z') GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20",
    ),
    (
        "lists_of_a_user",
        "SELECT request_id, \"timestamp\", model_version FROM request_logs WHERE user_id = 4242 ORDER BY 2",
        "SELECT request_id, \"timestamp\", model_version FROM {request_logs} WHERE user_id = 4242 ORDER BY 2",
    ),
];

/// Skewed towards the small ones, as popularity is.
fn skewed(rng: &mut ChaCha8Rng, most: u32) -> u32 {
    let share: f64 = rng.random::<f64>().powi(3);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below `most`"
    )]
    let value = (share * f64::from(most)) as u32;
    value.min(most - 1)
}

/// Request `n` of `stage`, whose requests run through the whole week: it is the number of rows that grows from stage to
/// stage, not the number of days.
fn request(n: i64, stage: &Range<i64>, rng: &mut ChaCha8Rng) -> RequestLog {
    let (nth, of) = (n - stage.start, stage.end - stage.start);
    let timestamp = MAY + DAYS * DAY_MS * nth / of;
    let endpoint = match rng.random_range(0..20) {
        0 => Endpoint::Popular,
        1 | 2 => Endpoint::Similar,
        _ => Endpoint::Recommend,
    };
    let rank_us: u32 = rng.random_range(80..400);
    RequestLog {
        schema_version: SchemaVersion,
        request_id: format!(
            "{timestamp:012x}-{:08x}-{:016x}",
            rng.random::<u32>(),
            rng.random::<u64>()
        ),
        timestamp,
        endpoint,
        status: 200,
        user_id: Some(UserId(rng.random_range(0..USERS))),
        surface: Some(if rng.random::<bool>() { "home" } else { "detail" }.into()),
        model_version: Some(ModelVersion::from_ordinal(
            1 + u64::try_from(4 * nth / of).unwrap(),
        )),
        policy: "ranked".into(),
        experiment: None,
        arm: None,
        assignment_hash: None,
        feature_version: Some(rng.random_range(1..500)),
        k: 10,
        candidates: 9_000,
        seeds: vec![],
        filters: Filters::default(),
        items: (0..10)
            .map(|rank| LoggedItem {
                movie_id: MovieId(skewed(rng, MOVIES)),
                rank,
                score: 20.0 / (1.0 + rank as f32) + rng.random::<f32>(),
                source: "blend".into(),
                propensity: 1.0,
                explored: false,
            })
            .collect(),
        fallback_reason: rng.random_ratio(1, 30).then(|| "unknown_user".into()),
        left_out: Vec::new(),
        latency_ms: f64::from(rank_us) / 1_000.0 + 0.05,
        stages: vec![StageLatency {
            stage: "rank".into(),
            us: rank_us.into(),
        }],
    }
}

fn batch(numbers: Range<i64>, stage: &Range<i64>, rng: &mut ChaCha8Rng) -> Vec<RawRecord> {
    numbers
        .map(|n| RawRecord {
            topic: Topic::RequestLogs,
            partition: i32::try_from(n % PARTITIONS).unwrap(),
            offset: n / PARTITIONS,
            timestamp_ms: -1,
            key: None,
            value: Some(encode(&request(n, stage, rng))),
        })
        .collect()
}

fn bytes_below(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                bytes_below(&path)
            } else {
                path.metadata().unwrap().len()
            }
        })
        .sum()
}

/// The most memory this process has held since the last call, MiB.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let peak = line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024;
    // Sets the mark back to what is held now; where that is not allowed, later peaks include earlier ones.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
    Some(peak)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Median times, ms, and the number of rows of each answer.
async fn ours(lake: &Path) -> Vec<(f64, usize)> {
    let engine = SqlEngine::new(lake, SqlOptions::default()).unwrap();
    let mut medians = Vec::new();
    for (_, question, _) in QUESTIONS {
        let (mut times, mut rows) = (Vec::new(), 0);
        for _ in 0..TIMES {
            let started = Instant::now();
            rows = engine.run(question).await.unwrap().num_rows();
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        medians.push((median(times), rows));
    }
    medians
}

/// The same by DuckDB, where Python and its package are to be had.
fn duckdb(lake: &Path) -> Option<Vec<(f64, usize)>> {
    let python: PathBuf = python_with("duckdb==1.4.2 pytz==2025.2")
        .inspect_err(|error| eprintln!("without DuckDB: {error}"))
        .ok()?;
    let script = "\
import json, statistics, sys, time, duckdb
lake, times, questions = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
duckdb.sql(\"SET TimeZone = 'UTC'\")
source = f\"read_parquet('{lake}/request_logs/*/*.parquet', hive_partitioning = true)\"
medians = []
for question in questions:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        rows = len(duckdb.sql(question.replace('{request_logs}', source)).fetchall())
        taken.append((time.perf_counter() - started) * 1e3)
    medians.append((statistics.median(taken), rows))
print(json.dumps(medians))";
    let questions: Vec<&str> = QUESTIONS.iter().map(|question| question.2).collect();
    let output = Command::new(python)
        .args(["-c", script])
        .arg(lake)
        .arg(TIMES.to_string())
        .arg(serde_json::to_string(&questions).unwrap())
        .output()
        .unwrap();
    if !output.status.success() {
        eprintln!("without DuckDB: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    serde_json::from_slice(&output.stdout).ok()
}

/// Writes the requests that come until there are `target`, and gives the seconds of the writing alone.
fn ingest(lake: &Path, batches: &Receiver<Vec<RawRecord>>, mut written: i64, target: i64) -> f64 {
    let clock = Arc::new(ManualClock::at(MAY));
    let mut writer =
        LakeWriter::open(lake, FlushConfig::default(), CompactionConfig::default(), clock).unwrap();
    let mut seconds = 0.0;
    while written < target {
        let records = batches.recv().unwrap();
        written += i64::try_from(records.len()).unwrap();
        let started = Instant::now();
        writer.write(records).unwrap();
        seconds += started.elapsed().as_secs_f64();
    }
    let started = Instant::now();
    assert_eq!(writer.close().unwrap().count, 0);
    seconds + started.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let total: i64 = std::env::var("MARQUEE_BENCH_REQUESTS").map_or(10_000_000, |n| n.parse().unwrap());
    let stages = [total / 10, total];
    let dir = tempfile::tempdir().unwrap();
    let (sender, batches) = sync_channel(AHEAD);
    let maker = std::thread::spawn(move || {
        let mut rng = ChaCha8Rng::seed_from_u64(42);
        let mut begin = 0;
        for target in stages {
            let stage = begin..target;
            for next in stage.clone().step_by(usize::try_from(PER_BATCH).unwrap()) {
                let end = (next + PER_BATCH).min(target);
                sender.send(batch(next..end, &stage, &mut rng)).unwrap();
            }
            begin = target;
        }
    });
    let (mut seconds, mut written) = (0.0, 0);
    let mut measured = Vec::new();
    let named = |times: &[(f64, usize)]| -> BTreeMap<&str, f64> {
        let times = times.iter().map(|&(ms, _)| ms);
        QUESTIONS.iter().map(|question| question.0).zip(times).collect()
    };
    for target in stages {
        seconds += ingest(dir.path(), &batches, written, target);
        written = target;
        let ingest_memory = peak_memory_mib();
        let ours = ours(dir.path()).await;
        let query_memory = peak_memory_mib();
        let peer = duckdb(dir.path());
        println!("{target} requests:");
        for (at, (name, ..)) in QUESTIONS.iter().enumerate() {
            let (ms, rows) = ours[at];
            // Of a few requests, none may be of the user asked about.
            assert!(rows > 0 || target < 1_000_000, "{name}: no rows");
            let peer = peer.as_ref().map_or("-".to_owned(), |peer| {
                assert_eq!(
                    peer[at].1, rows,
                    "{name}: DuckDB answers with another number of rows"
                );
                format!("{:.0} ms", peer[at].0)
            });
            println!("  {name:<32} {ms:>6.0} ms   DuckDB {peer}");
        }
        measured.push(serde_json::json!({
            "requests": target,
            "ingest_seconds": seconds,
            "ingest_rows_per_second": target as f64 / seconds,
            "bytes_per_row": bytes_below(&dir.path().join("request_logs")) as f64 / target as f64,
            "query_ms": named(&ours),
            "slowest_query_ms": ours.iter().map(|&(ms, _)| ms).fold(0.0, f64::max),
            "duckdb_query_ms": peer.map(|peer| named(&peer)),
            "ingest_peak_memory_mib": ingest_memory,
            "query_peak_memory_mib": query_memory,
        }));
    }
    maker.join().unwrap();
    println!(
        "{}",
        serde_json::json!({ "bench": "replay", "measured": measured })
    );
}
