//! The golden files of `replay/tests/slt`, over a lake that is small enough to be joined by hand.

use std::path::{Path, PathBuf};

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use marquee_schemas::{
    Endpoint, Filters, Interaction, Kind, LoggedItem, ModelEvent, ModelEventKind, ModelVersion, Movie,
    MovieId, RequestLog, SchemaVersion, StageLatency, UserId, encode,
};

use super::tests::{MAY, store};
use super::*;
use crate::table::Table;

const MINUTE: i64 = 60 * 1000;
const HOUR: i64 = 60 * MINUTE;

fn list(
    n: u32,
    user: Option<u64>,
    time: i64,
    version: Option<u64>,
    features: Option<u64>,
    movies: &[u32],
) -> Vec<u8> {
    encode(&RequestLog {
        schema_version: SchemaVersion,
        request_id: format!("r{n}"),
        timestamp: time,
        endpoint: if user.is_some() {
            Endpoint::Recommend
        } else {
            Endpoint::Popular
        },
        status: 200,
        user_id: user.map(UserId),
        surface: (n < 3).then(|| "home".into()),
        model_version: version.map(ModelVersion::from_ordinal),
        policy: "ranked".into(),
        experiment: None,
        arm: None,
        assignment_hash: None,
        feature_version: features,
        k: 3,
        candidates: 5,
        seeds: vec![],
        filters: Filters::default(),
        items: (0..)
            .zip(movies)
            .map(|(rank, &movie)| LoggedItem {
                movie_id: MovieId(movie),
                rank,
                score: 1.0,
                source: "blend".into(),
                propensity: 1.0,
                explored: false,
            })
            .collect(),
        fallback_reason: None,
        left_out: Vec::new(),
        latency_ms: f64::from(n),
        stages: vec![StageLatency {
            stage: "rank".into(),
            us: 70,
        }],
    })
}

fn act(
    event: &str,
    user: u64,
    movie: u32,
    kind: Kind,
    rating: Option<f32>,
    time: i64,
    answers: Option<&str>,
) -> Vec<u8> {
    encode(&Interaction {
        schema_version: SchemaVersion,
        event_id: event.into(),
        user_id: UserId(user),
        movie_id: Some(MovieId(movie)),
        kind,
        rating,
        genres: vec![],
        timestamp: time,
        session_id: None,
        request_id: answers.map(Into::into),
        source: None,
    })
}

fn step(version: u64, kind: ModelEventKind, name: &str) -> Vec<u8> {
    let version = ModelVersion::from_ordinal(version);
    encode(&ModelEvent {
        schema_version: SchemaVersion,
        event_id: format!("{version}/{name}"),
        version,
        kind,
        reason: "because".into(),
        bundle_uri: None,
        bundle_sha256: None,
        offsets: vec![],
        numbers: Default::default(),
        retrain_event_id: None,
        joined_retrain_event_ids: Vec::new(),
        previous: None,
        checks: Vec::new(),
        command_id: None,
        at_ms: MAY,
    })
}

fn lake(dir: &Path) {
    let movies: Vec<Vec<u8>> = [10, 20, 30, 40, 50]
        .map(|id| {
            encode(&Movie {
                schema_version: SchemaVersion,
                movie_id: MovieId(id),
                title: format!("Movie {id}"),
                year: Some(if id < 30 { 1995 } else { 2001 }),
                genres: vec!["Drama".into()],
                imdb_id: None,
                tmdb_id: None,
            })
        })
        .into();
    store(dir, &movies, Table::Movies, 10);
    let lists = [
        list(1, Some(1), MAY, Some(1), Some(2), &[10, 20, 30]),
        list(2, Some(1), MAY + 10 * MINUTE, Some(1), Some(4), &[20, 40, 50]),
        list(3, Some(2), MAY + HOUR, Some(2), None, &[10, 40, 20]),
        list(4, None, MAY + 2 * HOUR, None, None, &[10]),
    ];
    store(dir, &lists, Table::RequestLogs, 3);
    let late = act("e5", 1, 40, Kind::Rating, Some(4.5), MAY + 12 * MINUTE, None);
    let acts = [
        act("e1", 1, 30, Kind::View, None, MAY - 24 * HOUR, None),
        act("e2", 1, 50, Kind::Rating, Some(4.0), MAY - HOUR, None),
        act("e3", 1, 20, Kind::Click, None, MAY + MINUTE, Some("r1")),
        act("e4", 1, 20, Kind::View, None, MAY + 2 * MINUTE, None),
        late.clone(),
        act("e6", 2, 30, Kind::View, None, MAY + HOUR + 5 * MINUTE, None),
        late,
        act("e7", 3, 10, Kind::Click, None, MAY + 2 * HOUR + 1_000, Some("r4")),
        act("unknown", 9, 999, Kind::View, None, MAY, None),
    ];
    store(dir, &acts, Table::Interactions, 4);
    let steps = [
        step(1, ModelEventKind::Trained, "trained"),
        step(1, ModelEventKind::Promoted, "promoted"),
        step(2, ModelEventKind::Trained, "trained"),
        // Published again after a crash.
        step(2, ModelEventKind::Trained, "trained"),
        step(2, ModelEventKind::Rejected, "rejected"),
    ];
    store(dir, &steps, Table::ModelEvents, 2);
}

/// One record of a golden file.
struct Record {
    line: usize,
    /// `query <types>`, `statement ok` or `statement error <part of the message>`.
    header: String,
    sql: String,
    /// Rows, values parted by single spaces.
    expected: Vec<String>,
}

/// The records of a file in SQLite's sqllogictest format: blocks parted by empty lines, `#` for comments. Only what
/// these files use of it; the crate of that name would rebuild half of the dependencies with other features.
fn records(text: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let mut block: Vec<(usize, &str)> = Vec::new();
    for (at, line) in text.lines().enumerate().chain([(0, "")]) {
        if line.starts_with('#') {
            continue;
        }
        if !line.is_empty() {
            block.push((at + 1, line));
            continue;
        }
        let block = std::mem::take(&mut block);
        let Some(((line, header), body)) = block.split_first() else {
            continue;
        };
        let mut parts = body.split(|(_, line)| *line == "----");
        let text = |part: &[(usize, &str)]| {
            part.iter()
                .map(|(_, line)| (*line).to_owned())
                .collect::<Vec<_>>()
        };
        records.push(Record {
            line: *line,
            header: (*header).to_owned(),
            sql: text(parts.next().unwrap_or_default()).join("\n"),
            expected: text(parts.next().unwrap_or_default()),
        });
    }
    records
}

fn rows(result: &QueryResult) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &result.batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| {
            let values: Vec<String> = columns
                .iter()
                .map(|column| column.value(row).to_string())
                .collect();
            values.join(" ")
        }));
    }
    rows
}

/// What is wrong with the answer to a record, if anything.
async fn difference(engine: &SqlEngine, record: &Record) -> Option<String> {
    let outcome = engine.run(&record.sql).await;
    let mut words = record.header.splitn(3, ' ');
    match (words.next(), words.next(), words.next(), outcome) {
        (Some("query"), Some(types), None, Ok(result)) => {
            let got = rows(&result);
            let columns = result.schema.fields().len();
            if columns != types.len() {
                return Some(format!("{columns} columns where {types} are expected"));
            }
            (got != record.expected).then(|| {
                format!(
                    "expected\n{}\ngot\n{}",
                    record.expected.join("\n"),
                    got.join("\n")
                )
            })
        }
        (Some("statement"), Some("ok"), None, Ok(_)) => None,
        (Some("statement"), Some("error"), part, Err(error)) => {
            let (error, part) = (error.to_string(), part.unwrap_or_default());
            (!error.contains(part)).then(|| format!("an error with {part:?} was expected, not {error}"))
        }
        (_, _, _, Ok(_)) => Some("no error, or a header that is not understood".to_owned()),
        (_, _, _, Err(error)) => Some(error.to_string()),
    }
}

#[tokio::test]
async fn the_golden_files_hold() {
    let dir = tempfile::tempdir().unwrap();
    lake(dir.path());
    let engine = SqlEngine::new(dir.path(), SqlOptions::default()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let (mut checked, mut wrong) = (0, Vec::new());
    for file in files {
        for record in records(&std::fs::read_to_string(&file).unwrap()) {
            checked += 1;
            if let Some(why) = difference(&engine, &record).await {
                wrong.push(format!(
                    "{}:{}: {}\n{why}",
                    file.display(),
                    record.line,
                    record.sql
                ));
            }
        }
    }
    assert!(checked > 35, "only {checked} records");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
