//! The bytes on the wire, pinned: what an older build wrote must be read for ever, and what this build writes must not
//! drift by accident. `MARQUEE_UPDATE_GOLDEN=1 cargo test -p marquee-schemas` rewrites the files after a change that
//! is meant.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use marquee_schemas::*;

fn check<T: Record + PartialEq + Debug>(name: &str, record: &T) {
    // Asked when it runs: a target directory may be shared by checkouts.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let path = PathBuf::from(package).join("golden").join(format!("{name}.json"));
    let bytes = encode(record);
    if std::env::var_os("MARQUEE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        String::from_utf8_lossy(&golden),
        "{name}: written bytes"
    );
    assert_eq!(&decode::<T>(&golden).unwrap(), record, "{name}: read back");

    let value: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let schema = json_schema::of(T::TOPIC);
    let validator = jsonschema::validator_for(schema.as_value()).unwrap();
    if let Err(error) = validator.validate(&value) {
        panic!("{name} breaks its own JSON Schema: {error}");
    }
}

fn offsets() -> Vec<PartitionOffset> {
    vec![PartitionOffset {
        topic: "interactions".into(),
        partition: 3,
        offset: Offset(1_000),
    }]
}

fn numbers() -> BTreeMap<String, f64> {
    BTreeMap::from([("ndcg@10".into(), 0.25), ("users".into(), 943.0)])
}

fn interaction(kind: Kind) -> Interaction {
    Interaction {
        schema_version: SchemaVersion,
        event_id: "web/7/42".into(),
        user_id: UserId(7),
        movie_id: (kind != Kind::Preference).then_some(MovieId(50)),
        kind,
        rating: (kind == Kind::Rating).then_some(4.5),
        genres: if kind == Kind::Preference {
            vec!["Sci-Fi".into()]
        } else {
            vec![]
        },
        timestamp: 881_250_949_000,
        session_id: Some("s-1".into()),
        request_id: None,
        source: Some("web".into()),
    }
}

#[test]
fn interactions_of_every_kind_keep_their_bytes() {
    for kind in Kind::ALL {
        check(&format!("interaction-{}", kind.as_str()), &interaction(kind));
    }
}

#[test]
fn movies_keep_their_bytes() {
    check(
        "movie",
        &Movie {
            schema_version: SchemaVersion,
            movie_id: MovieId(1),
            title: "Misérables, Les".into(),
            year: Some(1995),
            genres: vec!["Drama".into(), "Musical".into()],
            imdb_id: Some("0114709".into()),
            tmdb_id: Some(862),
        },
    );
}

#[test]
fn features_keep_their_bytes() {
    let user = UserFeatures {
        schema_version: SchemaVersion,
        user_id: UserId(7),
        seq: 3,
        history_len: 2,
        counts: BTreeMap::from([(Kind::Rating, 2), (Kind::WatchlistAdd, 1)]),
        rating_sum: 8.5,
        rating_count: 2,
        watchlist: vec![MovieId(9)],
        genre_affinity: BTreeMap::from([("Drama".into(), 1.5)]),
        preferred_genres: vec![],
        sessions: 1,
        first_seen_ms: 881_250_949_000,
        last_seen_ms: 881_250_951_000,
        source_offset: 12,
        epoch: None,
    };
    check("feature-user", &FeatureRecord::User(user.clone()));
    check(
        "feature-user-returned",
        &FeatureRecord::User(UserFeatures {
            epoch: Some(9),
            ..user
        }),
    );
    let chunk = HistoryChunk {
        schema_version: SchemaVersion,
        user_id: UserId(7),
        chunk: 0,
        seq: 3,
        entries: vec![
            HistoryEntry {
                movie_id: MovieId(50),
                kind: Kind::Rating,
                rating: Some(4.5),
                timestamp: 881_250_949_000,
            },
            HistoryEntry {
                movie_id: MovieId(51),
                kind: Kind::Like,
                rating: None,
                timestamp: 881_250_950_000,
            },
        ],
        epoch: None,
    };
    check("feature-history", &FeatureRecord::History(chunk.clone()));
    check(
        "feature-history-returned",
        &FeatureRecord::History(HistoryChunk {
            epoch: Some(9),
            ..chunk
        }),
    );
    check(
        "feature-movie",
        &FeatureRecord::Movie(MovieFeatures {
            schema_version: SchemaVersion,
            movie_id: MovieId(50),
            count: 2,
            rating_sum: 8.5,
            rating_count: 2,
            popularity: BTreeMap::from([("1".into(), 0.5), ("30".into(), 1.75), ("7".into(), 1.25)]),
            first_seen_ms: 881_250_949_000,
            last_seen_ms: 881_250_951_000,
        }),
    );
}

#[test]
fn rows_of_the_feature_store_keep_their_bytes() {
    check(
        "feature-row",
        &FeatureRow {
            schema_version: SchemaVersion,
            row: "u/7".into(),
            next_offset: Offset(1_000),
            bytes: Bytes64(vec![1, 2, 3]),
        },
    );
}

#[test]
fn retrain_and_model_events_keep_their_bytes() {
    check(
        "retrain-event",
        &RetrainEvent {
            schema_version: SchemaVersion,
            event_id: "volume/10000".into(),
            trigger: Trigger::Volume,
            reason: "10000 new interactions since v000001".into(),
            numbers: numbers(),
            offsets: offsets(),
            champion: Some(ModelVersion::from_ordinal(1)),
            decided_at_ms: 881_250_949_000,
        },
    );
    check(
        "trigger-decision",
        &TriggerDecision {
            schema_version: SchemaVersion,
            decision_id: "p0.1.2.3-17".into(),
            occasion: "interactions".into(),
            verdicts: vec![
                TriggerVerdict {
                    trigger: Trigger::Volume,
                    outcome: TriggerOutcome::Asked,
                    reason: "10000 interactions since the last request, one is made per 10000".into(),
                    numbers: numbers(),
                },
                TriggerVerdict {
                    trigger: Trigger::Drift,
                    outcome: TriggerOutcome::NotDue,
                    reason: "no lasting change in 12 windows".into(),
                    numbers: BTreeMap::new(),
                },
            ],
            retrain_event_id: Some("volume/10000".into()),
            champion: Some(ModelVersion::from_ordinal(1)),
            offsets: offsets(),
            decided_at_ms: 881_250_949_000,
        },
    );
    check(
        "model-event",
        &ModelEvent {
            schema_version: SchemaVersion,
            event_id: "v000002/promoted".into(),
            version: ModelVersion::from_ordinal(2),
            kind: ModelEventKind::Promoted,
            reason: "ndcg@10 rose by 3%".into(),
            bundle_uri: Some("models/v000002".into()),
            bundle_sha256: Some("ab".repeat(32)),
            offsets: offsets(),
            numbers: numbers(),
            retrain_event_id: Some("volume/10000".into()),
            joined_retrain_event_ids: vec![],
            previous: Some(ModelVersion::from_ordinal(1)),
            checks: vec![],
            command_id: None,
            at_ms: 881_250_949_000,
        },
    );
    check(
        "model-event-rejected",
        &ModelEvent {
            schema_version: SchemaVersion,
            event_id: "v000003/rejected".into(),
            version: ModelVersion::from_ordinal(3),
            kind: ModelEventKind::Rejected,
            reason: "ndcg@10 fell".into(),
            bundle_uri: None,
            bundle_sha256: None,
            offsets: vec![],
            numbers: BTreeMap::new(),
            retrain_event_id: None,
            joined_retrain_event_ids: vec!["manual/7".into()],
            previous: Some(ModelVersion::from_ordinal(2)),
            checks: vec![GateCheck {
                check: "secondary".into(),
                metric: "static/recall@20".into(),
                passed: false,
                challenger: Some(0.25),
                champion: Some(0.5),
                relative_change: Some(-0.5),
                lo: None,
                hi: None,
                required: Some(-0.05),
                detail: "recall@20 fell by 50%".into(),
            }],
            command_id: Some("cli/1".into()),
            at_ms: 881_250_949_000,
        },
    );
    check(
        "model-command",
        &ModelCommand {
            schema_version: SchemaVersion,
            command_id: "cli/1".into(),
            action: ModelAction::Promote,
            version: Some(ModelVersion::from_ordinal(2)),
            reason: "the gate was too strict".into(),
            issued_by: Some("on call".into()),
            issued_at_ms: 881_250_949_000,
        },
    );
}

#[test]
fn request_logs_keep_their_bytes() {
    check(
        "request-log",
        &RequestLog {
            schema_version: SchemaVersion,
            request_id: "01932e5c-7a10-7cc3-98a5-2f0f3a4b5c6d".into(),
            timestamp: 881_250_949_000,
            endpoint: Endpoint::Recommend,
            status: 200,
            user_id: Some(UserId(7)),
            surface: Some("home".into()),
            model_version: Some(ModelVersion::from_ordinal(2)),
            policy: "ranked".into(),
            experiment: None,
            arm: None,
            assignment_hash: None,
            feature_version: Some(3),
            k: 1,
            candidates: 1682,
            seeds: vec![MovieId(1)],
            filters: Filters {
                genres_any: vec!["Drama".into()],
                year_from: Some(1990),
                ..Filters::default()
            },
            items: vec![LoggedItem {
                movie_id: MovieId(181),
                rank: 0,
                score: 1.5,
                source: "blend".into(),
                propensity: 1.0,
                explored: false,
            }],
            fallback_reason: None,
            left_out: Vec::new(),
            latency_ms: 0.75,
            stages: vec![StageLatency {
                stage: "rank".into(),
                us: 410,
            }],
        },
    );
}

#[test]
fn quality_metrics_dead_letters_and_alerts_keep_their_bytes() {
    check(
        "quality-metric",
        &QualityMetric {
            schema_version: SchemaVersion,
            metric_id: "hit_rate@10/v000002/881250900000".into(),
            name: "hit_rate@10".into(),
            scope: "model".into(),
            population: "all".into(),
            model_version: Some(ModelVersion::from_ordinal(2)),
            value: 0.125,
            lo: Some(0.0625),
            hi: Some(0.25),
            n: 400,
            window_start_ms: 881_250_900_000,
            window_end_ms: 881_250_960_000,
        },
    );
    check(
        "dead-letter",
        &DeadLetter {
            schema_version: SchemaVersion,
            topic: "interactions".into(),
            partition: 3,
            offset: 17,
            stage: "feature-processor".into(),
            reason: Reason::MalformedJson,
            detail: "expected value at line 1 column 1".into(),
            key: Some(Bytes64(b"7".to_vec())),
            payload: Bytes64(vec![0xff, 0x00]),
            truncated: false,
            payload_bytes: None,
            payload_sha256: None,
            at_ms: 881_250_949_000,
        },
    );
    check(
        "dead-letter-truncated",
        &DeadLetter {
            schema_version: SchemaVersion,
            topic: "interactions".into(),
            partition: 3,
            offset: 18,
            stage: "feature-processor".into(),
            reason: Reason::TooLarge,
            detail: "3500000 bytes, at most 131072".into(),
            key: Some(Bytes64(b"7".to_vec())),
            payload: Bytes64(vec![0xff, 0x00]),
            truncated: true,
            payload_bytes: Some(3_500_000),
            payload_sha256: Some("ab".repeat(32)),
            at_ms: 881_250_949_000,
        },
    );
    check(
        "alert",
        &Alert {
            schema_version: SchemaVersion,
            alert_id: "request_log_overflow/881250900000".into(),
            severity: Severity::Critical,
            source: "recommender".into(),
            condition: "request_log_overflow".into(),
            message: "12 request logs were dropped".into(),
            numbers: BTreeMap::from([("dropped".into(), 12.0)]),
            at_ms: 881_250_949_000,
        },
    );
}
