//! The lake read by an implementation of Parquet that is not ours.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use marquee_replay::{CompactionConfig, FlushConfig, LakeWriter};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{
    Endpoint, Filters, LoggedItem, MovieId, RequestLog, SchemaVersion, Topic, UserId, encode,
};
use marquee_testkit::{Foreign, python_with, required};

/// 2024-05-01.
const MAY: i64 = 1_714_521_600_000;
const HOUR: i64 = 60 * 60 * 1000;

fn log(n: i64) -> RawRecord {
    let user = u64::try_from(n).unwrap();
    let log = RequestLog {
        schema_version: SchemaVersion,
        request_id: format!("r{n}"),
        timestamp: MAY + n * HOUR,
        endpoint: Endpoint::Recommend,
        status: 200,
        user_id: Some(UserId(user)),
        surface: None,
        model_version: None,
        policy: "plackett_luce".into(),
        experiment: None,
        arm: None,
        assignment_hash: None,
        feature_version: Some(3),
        k: 2,
        candidates: 100,
        seeds: vec![],
        filters: Filters::default(),
        items: [7, 9]
            .map(|movie| LoggedItem {
                movie_id: MovieId(movie),
                rank: u32::from(movie == 9),
                score: 1.5,
                source: "blend".into(),
                propensity: 0.25,
                explored: true,
            })
            .into(),
        fallback_reason: None,
        left_out: Vec::new(),
        latency_ms: 1.25,
        stages: vec![],
    };
    RawRecord {
        topic: Topic::RequestLogs,
        partition: i32::try_from(n % 2).unwrap(),
        offset: n / 2,
        timestamp_ms: -1,
        key: None,
        value: Some(encode(&log)),
    }
}

#[test]
fn pyarrow_reads_the_rows_that_the_manifests_name() {
    let Some(python) = required(python_with("pyarrow==22.0.0"), Foreign::REQUIRE) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let flush = FlushConfig {
        max_rows: 7,
        ..FlushConfig::default()
    };
    let compaction = CompactionConfig {
        min_files: 3,
        ..CompactionConfig::default()
    };
    let clock = Arc::new(ManualClock::at(MAY));
    let mut writer = LakeWriter::open(dir.path(), flush, compaction, clock).unwrap();
    let mut records: Vec<RawRecord> = (0..60).map(log).collect();
    records[11].value = Some(b"not JSON".to_vec());
    writer.write(records).unwrap();
    assert_eq!(writer.close().unwrap().count, 1);
    // Left behind by a commit that was never finished.
    std::fs::write(
        dir.path().join("request_logs/date=2024-05-01/0-900-901.parquet"),
        b"half",
    )
    .unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_lake.py");
    let output = Command::new(python)
        .arg(script)
        .arg(dir.path())
        .arg("request_logs")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["rows"], &found["identities"]), (&59.into(), &59.into()));
    assert_eq!(
        found["dates"],
        serde_json::json!(["2024-05-01", "2024-05-02", "2024-05-03"])
    );
    assert_eq!(found["movies"], serde_json::json!([7, 9]));
    assert_eq!(found["propensity_sum"], serde_json::json!(59.0 * 2.0 * 0.25));
}
