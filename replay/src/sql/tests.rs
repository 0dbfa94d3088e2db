//! The lake read back through SQL, against what was put in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use marquee_runtime::bus::{Handler, RawRecord};
use marquee_runtime::{BusError, ManualClock};
use marquee_schemas::{
    DeadLetter, Endpoint, Filters, Interaction, Kind, LoggedItem, ModelVersion, Movie, MovieId,
    QualityMetric, Record, RequestLog, SchemaVersion, StageLatency, UserId, encode,
};

use super::*;
use crate::config::{CompactionConfig, FlushConfig, RetentionConfig};
use crate::disk::OsDisk;
use crate::lake::Lake;
use crate::sink::{Context, DeadLetters, Sink};
use crate::table::Table;

mod erasures;

const DAY: i64 = 24 * 60 * 60 * 1000;
/// 2024-05-01.
pub(super) const MAY: i64 = 1_714_521_600_000;

struct NoLetters;

impl DeadLetters for NoLetters {
    fn publish(&self, letters: &[DeadLetter]) -> Result<(), BusError> {
        panic!("refused: {letters:?}");
    }
}

/// A sink that flushes after `max_rows` and refuses nothing.
fn sink_of(dir: &Path, max_rows: usize) -> Sink {
    let context = Context {
        flush: FlushConfig {
            max_rows,
            ..FlushConfig::default()
        },
        compaction: CompactionConfig::default(),
        retention: RetentionConfig::default(),
        keep_replaced_ms: 0,
        clock: Arc::new(ManualClock::at(0)),
        dead_letters: Box::new(NoLetters),
        counts: Arc::default(),
    };
    Sink::new(Lake::open(dir, OsDisk::shared()).unwrap(), context)
}

/// Writes `records` as one partition's log of their topic, `per_flush` at a time.
pub(super) fn store(dir: &Path, records: &[Vec<u8>], table: Table, per_flush: usize) {
    let mut sink = sink_of(dir, per_flush);
    let batch: Vec<RawRecord> = (0..)
        .zip(records)
        .map(|(offset, value)| RawRecord {
            topic: table.topic(),
            partition: 0,
            offset,
            timestamp_ms: -1,
            key: None,
            value: Some(value.clone()),
        })
        .collect();
    for delivery in batch.chunks(per_flush) {
        sink.handle(delivery.to_vec()).unwrap();
        // Replaced files are kept for no time at all here.
        sink.tick().unwrap();
    }
    sink.flush_all().unwrap();
}

fn request(n: u32) -> RequestLog {
    RequestLog {
        schema_version: SchemaVersion,
        request_id: format!("r{n}"),
        timestamp: MAY + i64::from(n) * DAY / 10,
        endpoint: [Endpoint::Recommend, Endpoint::Similar, Endpoint::Popular][n as usize % 3],
        status: 200,
        user_id: (!n.is_multiple_of(4)).then_some(UserId(u64::from(n))),
        surface: n.is_multiple_of(2).then(|| "home \"page\", é".into()),
        model_version: (n > 3).then(|| ModelVersion::from_ordinal(1)),
        policy: "ranked".into(),
        experiment: None,
        arm: None,
        assignment_hash: Some(u32::MAX - n),
        feature_version: Some(u64::from(n)),
        k: 10,
        candidates: 100,
        seeds: (0..n % 3).map(MovieId).collect(),
        filters: Filters {
            genres_any: vec!["Drama".into()],
            ..Filters::default()
        },
        items: (0..n % 5)
            .map(|rank| LoggedItem {
                movie_id: MovieId(100 + rank),
                rank,
                score: 1.0 / (1.0 + rank as f32),
                source: "als".into(),
                propensity: 0.5,
                explored: rank == 1,
            })
            .collect(),
        fallback_reason: None,
        left_out: Vec::new(),
        latency_ms: f64::from(n),
        stages: vec![StageLatency {
            stage: "rank".into(),
            us: 7,
        }],
    }
}

fn requests(dir: &Path, n: u32) -> Vec<RequestLog> {
    let logs: Vec<RequestLog> = (0..n).map(request).collect();
    let bytes: Vec<Vec<u8>> = logs.iter().map(encode).collect();
    store(dir, &bytes, Table::RequestLogs, 7);
    logs
}

fn engine(dir: &Path) -> SqlEngine {
    SqlEngine::new(dir, SqlOptions::default()).unwrap()
}

async fn csv(dir: &Path, query: &str) -> String {
    engine(dir).run(query).await.unwrap().render(Format::Csv).unwrap()
}

async fn json(dir: &Path, query: &str) -> Vec<serde_json::Value> {
    let text = engine(dir)
        .run(query)
        .await
        .unwrap()
        .render(Format::Json)
        .unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn every_table_is_there_before_the_first_record() {
    let dir = tempfile::tempdir().unwrap();
    for table in documentation() {
        let result = engine(&dir.path().join("none"))
            .run(&format!("SELECT * FROM {}", table.name))
            .await
            .unwrap();
        assert_eq!(result.num_rows(), 0, "{}", table.name);
    }
}

#[tokio::test]
async fn every_column_is_documented_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    for table in documentation() {
        let result = engine(dir.path())
            .run(&format!("SELECT * FROM {}", table.name))
            .await
            .unwrap();
        let columns: Vec<&str> = result.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let documented: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        assert_eq!(columns, documented, "{}", table.name);
    }
}

#[tokio::test]
async fn request_logs_read_back_equal_what_was_logged() {
    let dir = tempfile::tempdir().unwrap();
    let logs = requests(dir.path(), 60);
    let rows = json(dir.path(), "SELECT * FROM request_logs ORDER BY kafka_offset").await;
    assert_eq!(rows.len(), logs.len());
    for (offset, (row, log)) in rows.iter().zip(&logs).enumerate() {
        // By way of its bytes: a value made directly would show the scores in double precision.
        let mut want: serde_json::Value = serde_json::from_slice(&encode(log)).unwrap();
        let object = want.as_object_mut().unwrap();
        object.remove("schema_version");
        object.insert("kafka_partition".into(), 0.into());
        object.insert("kafka_offset".into(), offset.into());
        for list in ["seeds", "left_out"] {
            object.entry(list).or_insert_with(|| serde_json::json!([]));
        }
        for nested in ["filters", "stages"] {
            let text = object[nested].to_string();
            object.insert(nested.into(), text.into());
        }
        let mut got = row.clone();
        let object = got.as_object_mut().unwrap();
        let date = object.remove("date").unwrap();
        let timestamp = object.remove("timestamp").unwrap();
        assert!(timestamp.as_str().unwrap().starts_with(date.as_str().unwrap()));
        want.as_object_mut().unwrap().remove("timestamp");
        // JSON knows one kind of number, 7 and 7.0 are the same; all of these are exact in double precision.
        let plain = |value: serde_json::Value| -> BTreeMap<String, String> {
            let text =
                |value: &serde_json::Value| value.as_f64().map_or(value.to_string(), |n| n.to_string());
            let object = value.as_object().unwrap();
            object
                .iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect()
        };
        assert_eq!(plain(got), plain(want));
    }
    let times = json(
        dir.path(),
        "SELECT arrow_cast(\"timestamp\", 'Int64') AS ms FROM request_logs ORDER BY kafka_offset",
    )
    .await;
    for (row, log) in times.iter().zip(&logs) {
        assert_eq!(row["ms"].as_i64(), Some(log.timestamp));
    }
}

#[tokio::test]
async fn interactions_movies_and_metrics_read_back_equal_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let preference = Interaction {
        schema_version: SchemaVersion,
        event_id: "p".into(),
        user_id: UserId(UserId::MAX.0),
        movie_id: None,
        kind: Kind::Preference,
        rating: None,
        genres: vec!["War".into(), "Drama".into()],
        timestamp: MAY,
        session_id: None,
        request_id: Some("r".into()),
        source: Some("web".into()),
    };
    let rating = Interaction {
        event_id: "q".into(),
        movie_id: Some(MovieId(u32::MAX)),
        kind: Kind::Rating,
        rating: Some(0.5),
        genres: vec![],
        ..preference.clone()
    };
    store(
        dir.path(),
        &[encode(&preference), encode(&rating)],
        Table::Interactions,
        10,
    );
    assert_eq!(
        csv(
            dir.path(),
            "SELECT event_id, user_id, movie_id, kind, rating, genres, request_id, source, date FROM interactions"
        )
        .await,
        "event_id,user_id,movie_id,kind,rating,genres,request_id,source,date\n\
         p,9007199254740991,,preference,,\"[War, Drama]\",r,web,2024-05-01\n\
         q,9007199254740991,4294967295,rating,0.5,[],r,web,2024-05-01\n"
    );

    let movie = Movie {
        schema_version: SchemaVersion,
        movie_id: MovieId(1),
        title: "Été, \"l'\"".into(),
        year: Some(1995),
        genres: vec![],
        imdb_id: Some("0114709".into()),
        tmdb_id: None,
    };
    store(dir.path(), &[encode(&movie)], Table::Movies, 10);
    assert_eq!(
        json(dir.path(), "SELECT * FROM movies").await,
        [serde_json::json!({
            "movie_id": 1, "title": "Été, \"l'\"", "year": 1995, "genres": [], "imdb_id": "0114709"
        })]
    );

    let metric = QualityMetric {
        schema_version: SchemaVersion,
        metric_id: "m".into(),
        name: "ctr".into(),
        scope: "model".into(),
        population: "all".into(),
        model_version: None,
        value: 0.25,
        lo: Some(0.1),
        hi: None,
        n: 4,
        window_start_ms: MAY - DAY,
        window_end_ms: MAY,
    };
    assert_eq!(QualityMetric::TOPIC, Table::QualityMetrics.topic());
    store(dir.path(), &[encode(&metric)], Table::QualityMetrics, 10);
    assert_eq!(
        csv(
            dir.path(),
            "SELECT metric_id, value, lo, hi, n, date FROM quality_metrics"
        )
        .await,
        "metric_id,value,lo,hi,n,date\nm,0.25,0.1,,4,2024-05-01\n"
    );
}

#[tokio::test]
async fn the_daily_latency_question_is_answered_in_its_usual_form() {
    let dir = tempfile::tempdir().unwrap();
    requests(dir.path(), 300);
    let query = "SELECT endpoint, count(*), approx_percentile_cont(latency_ms, 0.95) \
                 FROM request_logs GROUP BY endpoint";
    let rows = engine(dir.path()).run(query).await.unwrap();
    assert_eq!((rows.num_rows(), rows.schema.fields().len()), (3, 3));
    let rows = json(
        dir.path(),
        "SELECT endpoint, count(*) AS n, approx_percentile_cont(latency_ms, 0.95) AS p95 \
         FROM request_logs GROUP BY endpoint ORDER BY endpoint",
    )
    .await;
    for row in rows {
        assert_eq!(row["n"], 100);
        let p95 = row["p95"].as_f64().unwrap();
        assert!((280.0..=290.0).contains(&p95), "{row}");
    }
}

#[tokio::test]
async fn impressions_hold_one_row_per_item_and_position() {
    let dir = tempfile::tempdir().unwrap();
    let logs = requests(dir.path(), 60);
    let items: usize = logs.iter().map(|log| log.items.len()).sum();
    assert_eq!(
        json(dir.path(), "SELECT count(*) AS n FROM impressions").await,
        [serde_json::json!({ "n": items })]
    );
    assert_eq!(
        csv(
            dir.path(),
            "SELECT request_id, rank, movie_id, source, explored FROM impressions WHERE request_id = 'r4' ORDER BY rank"
        )
        .await,
        "request_id,rank,movie_id,source,explored\n\
         r4,0,100,als,false\nr4,1,101,als,true\nr4,2,102,als,false\nr4,3,103,als,false\n"
    );
}

#[tokio::test]
async fn a_filter_on_the_date_opens_only_files_of_that_date_and_counts_need_no_files() {
    let dir = tempfile::tempdir().unwrap();
    requests(dir.path(), 100);
    let count = |query: &'static str| async { json(dir.path(), query).await[0]["n"].as_i64().unwrap() };
    assert_eq!(count("SELECT count(*) AS n FROM request_logs").await, 100);
    assert_eq!(
        count("SELECT count(*) AS n FROM request_logs WHERE date = '2024-05-03'").await,
        10
    );
    assert_eq!(
        count("SELECT count(*) AS n FROM request_logs WHERE date >= '2024-05-02' AND k = 10").await,
        90
    );
    assert_eq!(
        count("SELECT count(*) AS n FROM request_logs WHERE \"timestamp\" < '2024-05-02T12:00:00Z'").await,
        15
    );
    let plan = csv(
        dir.path(),
        "EXPLAIN SELECT k FROM request_logs WHERE date = '2024-05-03'",
    )
    .await;
    assert!(plan.contains("date=2024-05-03"), "{plan}");
    assert!(!plan.contains("date=2024-05-04"), "{plan}");
    let plan = csv(dir.path(), "EXPLAIN SELECT count(*) FROM request_logs").await;
    assert!(!plan.contains("DataSourceExec"), "{plan}");
}

#[tokio::test]
async fn only_committed_files_are_visible() {
    let dir = tempfile::tempdir().unwrap();
    requests(dir.path(), 10);
    let day = dir.path().join("request_logs/date=2024-05-01");
    let some = std::fs::read_dir(&day).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(some, day.join("0-900-910.parquet")).unwrap();
    assert_eq!(
        csv(
            dir.path(),
            "SELECT count(DISTINCT kafka_offset) AS d, count(kafka_offset) AS n FROM request_logs"
        )
        .await,
        "d,n\n10,10\n"
    );
}

#[tokio::test]
async fn whatever_would_change_something_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    requests(dir.path(), 3);
    let out = dir.path().join("out.csv");
    for query in [
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "DROP TABLE request_logs".to_owned(),
        "INSERT INTO movies SELECT * FROM movies".to_owned(),
        "DELETE FROM movies".to_owned(),
        "UPDATE movies SET title = 'x'".to_owned(),
        format!("COPY (SELECT 1) TO '{}'", out.display()),
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "EXPLAIN ANALYZE INSERT INTO movies SELECT * FROM movies".to_owned(),
    ] {
        let error = engine(dir.path()).run(&query).await.unwrap_err();
        assert!(
            matches!(error, SqlError::NotReadOnly(_) | SqlError::Meaning { .. }),
            "{query}: {error:?}"
        );
    }
    assert!(!out.exists());
    let error = engine(dir.path())
        .run("SELECT * FROM '/etc/passwd'")
        .await
        .unwrap_err();
    assert!(matches!(error, SqlError::Meaning { .. }), "{error:?}");
}

#[tokio::test]
async fn a_mistake_is_answered_with_its_place_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let error = engine(dir.path())
        .run("SELECT endpoint\nFRM request_logs")
        .await
        .unwrap_err();
    assert!(
        matches!(error, SqlError::Syntax { .. }) || error.position().is_some(),
        "{error:?}"
    );
    let error = engine(dir.path()).run("SELECT (1 FROM movies").await.unwrap_err();
    assert!(matches!(error, SqlError::Syntax { .. }), "{error:?}");
    assert_eq!(error.position(), Some((1, 11)), "{error}");
    assert!(error.to_string().contains("\n            ^"), "{error}");

    let error = engine(dir.path())
        .run("SELECT * FROM request_log")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("request_logs, impressions, attributions, interactions"),
        "{error}"
    );

    let error = engine(dir.path())
        .run("SELECT endpoint,\n  latency FROM request_logs")
        .await
        .unwrap_err();
    assert_eq!(error.position(), Some((2, 3)), "{error}");
    assert!(error.to_string().contains("latency_ms"), "{error}");

    for query in [
        "",
        ";",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT '",
        "\u{0}",
        "SELECT 1/0",
    ] {
        engine(dir.path()).run(query).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runaway_query_is_stopped_and_a_huge_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limited = |options: SqlOptions| SqlEngine::new(dir.path(), options).unwrap();
    let endless = "SELECT count(*) FROM generate_series(1, 100000000000) a WHERE a.value % 7 = 3";
    let error = limited(SqlOptions {
        timeout_ms: 200,
        ..SqlOptions::default()
    })
    .run(endless)
    .await
    .unwrap_err();
    assert!(matches!(error, SqlError::Timeout(200)), "{error:?}");

    let error = limited(SqlOptions {
        max_result_rows: 10_000,
        ..SqlOptions::default()
    })
    .run("SELECT * FROM generate_series(1, 1000000)")
    .await
    .unwrap_err();
    assert!(matches!(error, SqlError::TooManyRows(10_000)), "{error:?}");

    let error = limited(SqlOptions {
        memory_limit_bytes: 1 << 20,
        ..SqlOptions::default()
    })
    .run("SELECT value, count(*) FROM generate_series(1, 3000000) GROUP BY value ORDER BY 2")
    .await
    .unwrap_err();
    assert!(matches!(error, SqlError::Memory(_)), "{error:?}");
}

/// Queries that would be deep, `n` levels each.
pub(crate) fn deep_queries(n: usize) -> Vec<(&'static str, String)> {
    let chain = |first: &str, more: &str| format!("SELECT {first}{}", more.repeat(n));
    let unions = vec!["SELECT 1"; n].join(" UNION ALL ");
    let steps: Vec<String> = (1..n)
        .map(|at| format!("c{at} AS (SELECT a FROM c{})", at - 1))
        .collect();
    vec![
        ("sum", chain("1", "+1")),
        (
            "difference of columns",
            format!("SELECT movie_id{} FROM movies", "-movie_id".repeat(n)),
        ),
        (
            "and",
            format!(
                "SELECT 1 FROM movies WHERE movie_id > 0{}",
                " AND movie_id > 0".repeat(n)
            ),
        ),
        (
            "or",
            format!(
                "SELECT 1 FROM movies WHERE movie_id = 0{}",
                " OR year = 1".repeat(n)
            ),
        ),
        ("concatenation", chain("'a'", "||'a'")),
        ("casts", chain("1", "::BIGINT")),
        ("subscripts", chain("make_array(1)", "[1]")),
        (
            "fields",
            format!("SELECT item{} FROM impressions", ".a".repeat(n)),
        ),
        ("tests", chain("1", " IS NULL")),
        ("union", unions),
        (
            "joins",
            format!("SELECT 1 FROM movies{}", " CROSS JOIN movies".repeat(n)),
        ),
        ("tables", format!("SELECT 1 FROM movies{}", ", movies".repeat(n))),
        (
            "steps",
            format!(
                "WITH c0 AS (SELECT 1 AS a), {} SELECT a FROM c{}",
                steps.join(", "),
                n - 1
            ),
        ),
        (
            "parentheses",
            format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        ),
        (
            "subqueries",
            format!(
                "SELECT * FROM {}movies{}",
                "(SELECT * FROM ".repeat(n),
                ")".repeat(n)
            ),
        ),
        (
            "case",
            format!(
                "SELECT {}0{}",
                "CASE WHEN 1 = 2 THEN 1 ELSE ".repeat(n),
                " END".repeat(n)
            ),
        ),
        (
            "branches",
            format!(
                "SELECT CASE {} END FROM movies",
                "WHEN movie_id = 1 THEN 2 ".repeat(n)
            ),
        ),
        (
            "types",
            format!("SELECT CAST(NULL AS {}INT{})", "ARRAY<".repeat(n), ">".repeat(n)),
        ),
        (
            "types in a text",
            format!(
                "SELECT arrow_cast(NULL, '{}Int8{}')",
                "List(".repeat(n),
                ")".repeat(n)
            ),
        ),
        ("explanations", format!("{}SELECT 1", "EXPLAIN ".repeat(n))),
        ("signs", chain("", "- ")),
        ("negations", format!("SELECT {} true", "NOT ".repeat(n))),
    ]
}

#[tokio::test]
async fn a_query_that_would_exhaust_the_stack_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for (name, query) in deep_queries(20_000) {
        let error = engine(dir.path()).run(&query).await.unwrap_err();
        assert!(
            matches!(error, SqlError::TooComplex(_)),
            "{name}: {}",
            error.to_string().chars().take(200).collect::<String>()
        );
        assert!(error.to_string().contains("hint: "), "{error}");
    }
}

/// The longest query of each kind that is not refused by its text.
fn deepest_queries() -> Vec<(&'static str, String)> {
    let kinds = deep_queries(1).len();
    (0..kinds)
        .map(|kind| {
            let of = |n: usize| deep_queries(n).swap_remove(kind);
            let (mut allowed, mut refused) = (2, 2_000);
            while refused - allowed > 1 {
                let middle = usize::midpoint(allowed, refused);
                if super::text::Text::read(&of(middle).1).is_ok() {
                    allowed = middle;
                } else {
                    refused = middle;
                }
            }
            of(allowed)
        })
        .collect()
}

/// Whatever is not refused as too complex must leave room on a stack: these run on half of what marquee's threads have.
#[test]
fn the_deepest_query_that_is_allowed_needs_less_than_half_a_threads_stack() {
    let dir = tempfile::tempdir().unwrap();
    requests(dir.path(), 20);
    let path = dir.path().to_owned();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for (name, query) in deepest_queries() {
            let started = std::time::Instant::now();
            drop(runtime.block_on(engine(&path).run(&query)));
            let took = started.elapsed();
            assert!(took.as_secs() < 20, "{name}: {took:?}");
        }
    };
    std::thread::Builder::new()
        .stack_size(marquee_runtime::aside::STACK_BYTES / 2)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[tokio::test]
async fn queries_of_a_realistic_size_and_long_lists_of_values_work() {
    let dir = tempfile::tempdir().unwrap();
    requests(dir.path(), 20);
    let count = async |query: String| csv(dir.path(), &query).await;
    let sum = count(format!("SELECT 1{} AS n", " + 1".repeat(200))).await;
    assert_eq!(sum, "n\n201\n");
    let or = (0..100)
        .map(|n| format!("kafka_offset = {n}"))
        .collect::<Vec<_>>();
    let or = format!("SELECT count(*) AS n FROM request_logs WHERE {}", or.join(" OR "));
    assert_eq!(count(or).await, "n\n20\n");
    let values = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let values = format!("SELECT count(*) AS n FROM request_logs WHERE kafka_offset IN ({values})");
    assert_eq!(count(values).await, "n\n20\n");
    let union = vec!["SELECT 1 AS n"; 40].join(" UNION ALL ");
    assert_eq!(
        count(format!("SELECT sum(n) AS n FROM ({union})")).await,
        "n\n40\n"
    );
    let nested = format!("SELECT {}7{} AS n", "(".repeat(20), ")".repeat(20));
    assert_eq!(count(nested).await, "n\n7\n");
}

#[tokio::test]
async fn a_query_whose_steps_double_is_refused_before_it_unfolds() {
    let dir = tempfile::tempdir().unwrap();
    let steps: Vec<String> = (1..30)
        .map(|at| format!("c{at} AS (SELECT x.a FROM c{p} x, c{p} y)", p = at - 1))
        .collect();
    let query = format!(
        "WITH c0 AS (SELECT 1 AS a), {} SELECT count(*) FROM c29",
        steps.join(", ")
    );
    let error = engine(dir.path()).run(&query).await.unwrap_err();
    assert!(matches!(error, SqlError::TooComplex(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_too_many_bytes_is_refused_and_so_is_what_would_make_them_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqlOptions {
        max_result_bytes: 4 << 20,
        ..SqlOptions::default()
    };
    let engine = SqlEngine::new(dir.path(), options).unwrap();
    let long = "x".repeat(5_000);
    for query in [
        "SELECT a.value, b.value FROM generate_series(1, 1000) a, generate_series(1, 1000) b".to_owned(),
        "SELECT repeat(CAST(value AS VARCHAR), 50) FROM generate_series(1, 50000)".to_owned(),
        format!("SELECT '{long}', value FROM generate_series(1, 50000)"),
    ] {
        let error = engine.run(&query).await.unwrap_err();
        assert!(matches!(error, SqlError::TooManyBytes(_)), "{error:?}");
    }
    for query in [
        "SELECT repeat('x', 1000000) FROM generate_series(1, 99000)",
        "SELECT length(repeat(CAST(value AS VARCHAR), 1000000)) FROM generate_series(1, 99000)",
        "SELECT repeat('x', value) FROM generate_series(1, 99000)",
        "SELECT length(lpad('x', 1000000)) FROM generate_series(1, 99000)",
        "SELECT length(rpad('x', value, 'yz')) FROM generate_series(99000, 1, -1)",
    ] {
        let error = engine.run(query).await.unwrap_err();
        assert!(matches!(error, SqlError::Memory(_)), "{query}: {error:?}");
    }
    for name in [
        "array_repeat(1, 9)",
        "range(1, 9)",
        "generate_series(1, 9)",
        "array_resize([1], 9)",
    ] {
        let error = engine.run(&format!("SELECT {name}")).await.unwrap_err();
        assert!(matches!(error, SqlError::Meaning { .. }), "{error:?}");
    }
    // What is shared between batches counts once, and what is only passed through not at all.
    let result = engine
        .run("SELECT rpad(repeat('ab', 3), 8, '.') AS t, count(*) AS n FROM generate_series(1, 300000)")
        .await
        .unwrap();
    assert_eq!(result.render(Format::Csv).unwrap(), "t,n\nababab..,300000\n");
}

#[tokio::test]
async fn a_query_that_loses_a_file_to_compaction_is_answered_from_the_merged_one() {
    let dir = tempfile::tempdir().unwrap();
    requests(dir.path(), 40);
    let snapshot = super::session::Snapshot::take(dir.path()).unwrap();
    assert_eq!(snapshot.positions(Table::RequestLogs), BTreeMap::from([(0, 40)]));
    // Enough further flushes for the first files to be merged away while queries run.
    let path = dir.path().to_owned();
    let writer = std::thread::spawn(move || {
        let bytes: Vec<Vec<u8>> = (0..400).map(|n| encode(&request(n % 10))).collect();
        store(&path, &bytes, Table::RequestLogs, 3);
    });
    let engine = engine(dir.path());
    let mut last = 0;
    loop {
        let ended = writer.is_finished();
        let result = engine
            .run("SELECT count(request_id) AS n, count(DISTINCT kafka_offset) AS d FROM request_logs")
            .await
            .unwrap();
        let row: serde_json::Value =
            serde_json::from_str(result.render(Format::Json).unwrap().trim()).unwrap();
        assert_eq!(row["n"], row["d"]);
        let n = row["n"].as_i64().unwrap();
        assert!(n >= last, "{n} after {last}");
        last = n;
        if ended {
            break;
        }
    }
    writer.join().unwrap();
    assert_eq!(last, 400);
}
