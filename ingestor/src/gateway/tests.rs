use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Request, StatusCode};
use futures::FutureExt;
use marquee_runtime::{BusError, ManualClock};
use marquee_schemas::{Reason, Topic};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::sink::fake::FakeSink;

const NOW_MS: i64 = 1_700_000_000_000;
const JSON: &str = "application/json";

struct Door {
    sink: FakeSink,
    gateway: Gateway,
}

struct Reply {
    status: StatusCode,
    content_type: String,
    retry_after: Option<String>,
    body: Value,
}

fn door(config: GatewayConfig) -> Door {
    let sink = FakeSink::default();
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let gateway = Gateway::new(sink.clone(), clock, Arc::new(IdSource::seeded(1)), config);
    Door { sink, gateway }
}

impl Door {
    async fn post(&self, content_type: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post("/events").header(CONTENT_TYPE, content_type);
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = router(self.gateway.clone()).oneshot(request).await.unwrap();
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (status, content_type, retry_after) = (
            response.status(),
            header(CONTENT_TYPE).unwrap_or_default(),
            header(RETRY_AFTER),
        );
        let bytes: Bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        Reply {
            status,
            content_type,
            retry_after,
            body: serde_json::from_slice(&bytes).unwrap(),
        }
    }

    fn reconciled(&self) -> GatewayStats {
        let stats = self.gateway.stats();
        assert_eq!(stats.received, stats.accepted + stats.rejected + stats.failed);
        assert_eq!(stats.accepted, self.sink.events().len() as u64);
        assert_eq!(
            stats.rejected - stats.dead_letters_lost,
            self.sink.letters().len() as u64
        );
        stats
    }
}

fn rating(id: &str) -> Value {
    json!({
        "schema_version": 1, "event_id": id, "user_id": 7, "movie_id": 50, "kind": "rating", "rating": 4.5,
        "timestamp": NOW_MS - 5
    })
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\r\n")).collect()
}

#[tokio::test]
async fn one_event_is_published_and_answered_with_its_id() {
    let door = door(GatewayConfig::default());
    let reply = door
        .post("application/json; charset=utf-8", rating("a").to_string())
        .await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!(
        reply.body,
        json!({ "accepted": [{ "index": 0, "event_id": "a" }], "rejected": [] })
    );
    let records = door.sink.records();
    assert_eq!(
        (records.len(), records[0].topic, records[0].key.as_slice()),
        (1, Topic::Interactions, &b"7"[..])
    );
    assert_eq!(door.reconciled().accepted, 1);
}

#[tokio::test]
async fn what_a_producer_leaves_out_is_filled_in() {
    let door = door(GatewayConfig::default());
    let event = json!({ "user_id": 7, "movie_id": 50, "kind": "like" });
    for _ in 0..2 {
        let reply = door.post(JSON, event.to_string()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.body);
    }
    let events = door.sink.events();
    assert_eq!(events[0].timestamp, NOW_MS);
    assert_ne!(events[0].event_id, events[1].event_id);
    // 48 bits of time and the version come first in a UUIDv7.
    assert!(
        events[0].event_id.starts_with("018bcfe5-6800-7"),
        "{}",
        events[0].event_id
    );
}

#[tokio::test]
async fn a_batch_and_lines_are_taken_and_each_event_is_judged_alone() {
    let mut bad = rating("bad");
    bad["rating"] = json!(7);
    let events = [rating("a"), bad, rating("b")];
    for (content_type, body) in [
        (JSON, json!(events).to_string()),
        ("application/x-ndjson", format!("\n{}\n", lines(&events))),
    ] {
        let door = door(GatewayConfig::default());
        let reply = door.post(content_type, body).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        let accepted = json!([{ "index": 0, "event_id": "a" }, { "index": 2, "event_id": "b" }]);
        assert_eq!(reply.body["accepted"], accepted);
        assert_eq!(reply.body["rejected"][0]["index"], 1);
        assert_eq!(reply.body["rejected"][0]["reason"], "out_of_range");
        assert!(
            reply.body["rejected"][0]["detail"]
                .as_str()
                .unwrap()
                .contains("rating")
        );
        let letters = door.sink.letters();
        assert_eq!(
            (letters[0].topic.as_str(), letters[0].reason),
            ("http", Reason::OutOfRange)
        );
        assert_eq!(
            serde_json::from_slice::<Value>(&letters[0].payload.0).unwrap(),
            events[1]
        );
        let stats = door.reconciled();
        assert_eq!((stats.received, stats.accepted, stats.rejected), (3, 2, 1));
    }
}

#[tokio::test]
async fn each_kind_of_nonsense_is_a_problem_document_with_its_reason_and_a_dead_letter() {
    let patched = |field: &str, value: Value| {
        let mut event = rating("x");
        event[field] = value;
        event.to_string().into_bytes()
    };
    let without = |field: &str| {
        let mut event = rating("x");
        event.as_object_mut().unwrap().remove(field);
        event.to_string().into_bytes()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"{\"user_id\": 1,".to_vec(), "malformed_json"),
        (b"[1, 2".to_vec(), "malformed_json"),
        (b"\xff\xfe\x00".to_vec(), "malformed_json"),
        (b"null".to_vec(), "malformed_json"),
        (b"[[]]".to_vec(), "malformed_json"),
        (patched("schema_version", json!(2)), "unknown_schema_version"),
        (patched("kind", json!("stare")), "unknown_kind"),
        (patched("rating", json!(7)), "out_of_range"),
        (without("rating"), "missing_field"),
        (without("user_id"), "missing_field"),
        (without("movie_id"), "missing_field"),
        (patched("user_id", json!("me")), "wrong_type"),
        (patched("event_id", Value::Null), "wrong_type"),
        (
            patched("timestamp", json!(NOW_MS + 25 * 60 * 60 * 1000)),
            "timestamp_out_of_range",
        ),
        (patched("timestamp", json!(0)), "timestamp_out_of_range"),
        (
            patched("source", json!("x".repeat(MAX_INTERACTION_BYTES))),
            "too_large",
        ),
    ];
    let door = door(GatewayConfig::default());
    let expected = cases.len();
    for (body, reason) in cases {
        let text = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let reply = door.post(JSON, body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{text}");
        assert_eq!(reply.content_type, "application/problem+json");
        assert_eq!(reply.body["status"], 400);
        assert_eq!(reply.body["type"], "urn:marquee:problem:invalid-events");
        assert_eq!(
            reply.body["rejected"][0]["reason"], reason,
            "{text}: {}",
            reply.body
        );
    }
    let stats = door.reconciled();
    assert_eq!((stats.rejected, stats.accepted), (expected as u64, 0));
    // Every letter has an origin of its own, so that none passes for a repetition of another.
    let keys: std::collections::HashSet<_> = door
        .sink
        .letters()
        .iter()
        .map(marquee_schemas::Record::key)
        .collect();
    assert_eq!(keys.len(), expected);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413_and_one_without_events_400() {
    let door = door(GatewayConfig {
        max_body_bytes: 2_000,
        max_events_per_request: 3,
        ..Default::default()
    });
    let many = vec![rating("a"); 4];
    for (content_type, body) in [
        (JSON, " ".repeat(2_001)),
        (JSON, json!(many).to_string()),
        ("application/x-ndjson", lines(&many)),
    ] {
        let reply = door.post(content_type, body).await;
        assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(reply.content_type, "application/problem+json");
        assert_eq!(reply.body["type"], "urn:marquee:problem:too-large");
    }
    // Without a length the limit is found while reading.
    let piece = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1_500]));
    let pieces = futures::stream::iter([piece(), piece()]);
    let reply = door.post(JSON, Body::from_stream(pieces)).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    for body in ["", "  \n", "[]"] {
        let reply = door.post(JSON, body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.body["type"], "urn:marquee:problem:no-events");
    }
    assert_eq!(door.reconciled(), GatewayStats::default());
}

#[tokio::test]
async fn another_content_type_or_none_is_415() {
    let door = door(GatewayConfig::default());
    let reply = door.post("text/plain", rating("a").to_string()).await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(reply.content_type, "application/problem+json");
    let request = Request::post("/events")
        .body(Body::from(rating("a").to_string()))
        .unwrap();
    assert_eq!(
        door.send(request).await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    assert!(door.sink.records().is_empty());
}

#[tokio::test]
async fn a_full_queue_turns_the_request_away_whole() {
    let door = door(GatewayConfig::default());
    door.sink.on_send(|_, _| Err(BusError::QueueFull));
    let reply = door
        .post(JSON, json!([rating("a"), { "kind": 1 }]).to_string())
        .await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.retry_after.as_deref(), Some("1"));
    assert_eq!(reply.content_type, "application/problem+json");
    assert_eq!(door.reconciled(), GatewayStats::default());
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_fills_in_the_middle_is_waited_for() {
    let door = door(GatewayConfig::default());
    door.sink.on_send(|n, _| match n {
        1..=5 => Err(BusError::QueueFull),
        _ => FakeSink::taken(),
    });
    let reply = door
        .post(JSON, json!([rating("a"), rating("b")]).to_string())
        .await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!(door.reconciled().accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn events_that_the_broker_does_not_acknowledge_are_named_for_another_try() {
    let door = door(GatewayConfig::default());
    door.sink.on_send(|n, _| match n {
        0 => FakeSink::taken(),
        1 => Ok(async { Err(BusError::Fatal("no leader".into())) }.boxed()),
        _ => Ok(futures::future::pending().boxed()),
    });
    let reply = door
        .post(JSON, json!([rating("a"), rating("b"), rating("c")]).to_string())
        .await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.retry_after.is_some());
    assert_eq!(reply.body["accepted"], json!([{ "index": 0, "event_id": "a" }]));
    let failed: Vec<_> = reply.body["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["event_id"].clone())
        .collect();
    assert_eq!(failed, ["b", "c"]);
    let stats = door.gateway.stats();
    assert_eq!((stats.received, stats.accepted, stats.failed), (3, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_kept_is_counted() {
    let door = door(GatewayConfig::default());
    door.sink.on_send(|_, record| match record.topic {
        Topic::DeadLetters => Err(BusError::QueueFull),
        _ => FakeSink::taken(),
    });
    let reply = door.post(JSON, json!([rating("a"), {}]).to_string()).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!(door.reconciled().dead_letters_lost, 1);
}

#[tokio::test]
async fn events_on_their_way_are_bounded_over_all_requests() {
    let door = door(GatewayConfig {
        max_in_flight_events: 2,
        acknowledge_timeout_ms: 60_000,
        ..Default::default()
    });
    door.sink.on_send(|_, _| Ok(futures::future::pending().boxed()));
    let gateway = door.gateway.clone();
    let waiting = tokio::spawn(async move {
        let request = Request::post("/events").header(CONTENT_TYPE, JSON);
        let body = json!([rating("a"), rating("b")]).to_string();
        router(gateway)
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
    });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while door.sink.records().len() < 2 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the first request never got through"
        );
        tokio::task::yield_now().await;
    }
    let reply = door.post(JSON, rating("c").to_string()).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    waiting.abort();
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_get_a_client_error_and_the_counts_reconcile(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        as_lines: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let door = door(GatewayConfig::default());
            let content_type = if as_lines { "application/x-ndjson" } else { JSON };
            let reply = door.post(content_type, bytes).await;
            assert!(reply.status.is_client_error(), "{}", reply.status);
            door.reconciled();
        });
    }
}
