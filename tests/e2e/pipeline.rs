//! From the first rating to a retrained model, over both brokers.

use std::path::Path;

use marquee_schemas::{ModelEvent, ModelEventKind, Topic};
use marquee_testkit::{kafka::KafkaServer, required};
use serde_json::{Value, json};

/// Where it is `1`, a machine without Apache Kafka fails instead of skipping.
const REQUIRE_KAFKA: &str = "MARQUEE_REQUIRE_KAFKA";

use crate::harness::{Marquee, beginning_of_ml_100k, data_dir, eventually, get, post, records, tool};

fn list(body: &Value) -> Vec<u64> {
    body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["movie_id"].as_u64().unwrap())
        .collect()
}

fn whole_story(state: &Path, brokers: Option<&str>, data: &Path) {
    let args = beginning_of_ml_100k(data, "50/s");
    let mut marquee = Marquee::up(state, brokers, &args);
    let first_model = marquee.wait_model();
    marquee.wait_ready();
    let url = marquee.url();

    // A stranger gets an honest fallback; five likes over HTTP change the list.
    let ask = || post(&format!("{url}/recommend"), br#"{"user_id":777777,"k":10}"#).1;
    let fallback = ask();
    assert_eq!(fallback["is_fallback"], true, "{fallback}");
    assert_eq!(list(&fallback).len(), 10);
    let events: Vec<Value> = [50, 181, 172, 174, 210]
        .iter()
        .map(|movie| json!({"user_id": 777_777, "movie_id": movie, "kind": "rating", "rating": 5}))
        .collect();
    let (status, body) = post(&format!("{url}/events"), serde_json::to_vec(&events).unwrap());
    assert_eq!(status, 202, "{body}");
    let personal = eventually("the list becomes personal", || {
        let answer = ask();
        (answer["feature_version"] == 5 && answer["is_fallback"] == false).then_some(answer)
    });
    assert_ne!(list(&personal), list(&fallback));
    for seen in [50, 181, 172, 174, 210] {
        assert!(!list(&personal).contains(&seen), "{seen} was rated already");
    }
    assert_eq!(personal["model_version"], first_model.as_str());

    let (status, similar) = post(&format!("{url}/similar"), br#"{"movie_id":50,"k":5}"#);
    assert_eq!((status, list(&similar).len()), (200, 5), "{similar}");
    let (status, popular) = get(&format!("{url}/popular?k=5"));
    assert_eq!((status, list(&popular).len()), (200, 5), "{popular}");
    let (status, movie) = get(&format!("{url}/movies/50"));
    assert_eq!((status, &movie["title"]), (200, &json!("Star Wars")), "{movie}");

    // A person asks for a new model: trained, judged, and if better swapped in without a pause.
    let outcome = tool(state, &["retrain", "--reason", "checking the whole loop by hand"]);
    assert!(
        outcome.status.success(),
        "{}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    let bus = marquee.bus();
    let verdict = eventually("the manual retraining is judged", || {
        records::<ModelEvent>(&bus).into_iter().find(|event| {
            event
                .retrain_event_id
                .as_deref()
                .is_some_and(|id| id.contains("manual"))
                && matches!(event.kind, ModelEventKind::Promoted | ModelEventKind::Rejected)
        })
    });
    if verdict.kind == ModelEventKind::Promoted {
        eventually("the promoted model serves", || {
            let version = get(&format!("{url}/health")).1["model_version"]
                .as_str()?
                .to_owned();
            (version >= verdict.version.0).then_some(())
        });
    }

    // What was served is evidence, by SQL.
    let query = "SELECT endpoint, count(*) AS n, approx_percentile_cont(latency_ms, 0.95) AS p95 \
                 FROM request_logs GROUP BY endpoint ORDER BY endpoint";
    let rows = eventually("the request logs can be queried", || {
        let outcome = tool(state, &["sql", query, "--output", "json"]);
        assert!(
            outcome.status.success(),
            "{}",
            String::from_utf8_lossy(&outcome.stderr)
        );
        let rows: Vec<Value> = String::from_utf8(outcome.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (rows.len() == 3).then_some(rows)
    });
    assert_eq!(rows[1]["endpoint"], "recommend");
    assert!(rows[1]["n"].as_u64().unwrap() >= 2);
    let refused = tool(state, &["sql", "SELEC 1"]);
    assert_eq!(refused.status.code(), Some(1));

    // A second start resumes where it was.
    let published = bus.watermarks_blocking(Topic::Interactions).unwrap().len();
    assert!(marquee.interrupt().success());
    let mut marquee = Marquee::up(state, brokers, &args);
    marquee.wait_ready();
    assert!(marquee.wait_model() >= first_model);
    let bus = marquee.bus();
    let resumed = bus.watermarks_blocking(Topic::Interactions).unwrap().len();
    assert!(resumed >= published);
    assert!(resumed < published + 20_000, "the history was published again");
    let url = marquee.url();
    let answer = eventually("the user is still known", || {
        let answer = post(&format!("{url}/recommend"), br#"{"user_id":777777,"k":10}"#).1;
        (answer["feature_version"] == 5).then_some(answer)
    });
    assert_eq!(answer["is_fallback"], false);
    assert!(marquee.interrupt().success());
}

#[test]
fn the_whole_story_on_the_embedded_broker() {
    let Some(data) = data_dir() else { return };
    let folder = tempfile::tempdir().unwrap();
    whole_story(&folder.path().join("state"), None, &data);
}

#[test]
fn the_whole_story_on_apache_kafka() {
    let Some(data) = data_dir() else { return };
    let Some(kafka) = required(KafkaServer::start(), REQUIRE_KAFKA) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    whole_story(&folder.path().join("state"), Some(&kafka.brokers()), &data);
}
