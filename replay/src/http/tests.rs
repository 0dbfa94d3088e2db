//! The routes, without a network.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use tower::ServiceExt;

use super::*;
use crate::sql::SqlOptions;

/// Runs until it is stopped.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 100000000000) a WHERE a.value % 7 = 3";

struct World {
    _dir: tempfile::TempDir,
    shared: Arc<Shared>,
    router: Router,
}

impl World {
    /// Waits until so many queries run. Asking would take a place itself.
    async fn running(&self, count: usize) {
        while self.shared.running.count() != count {
            tokio::task::yield_now().await;
        }
    }
}

fn world(max_concurrent: usize, timeout_ms: u64) -> World {
    let dir = tempfile::tempdir().unwrap();
    let options = SqlOptions {
        timeout_ms,
        max_result_bytes: 4 << 20,
        ..SqlOptions::default()
    };
    let shared = Arc::new(Shared {
        engine: SqlEngine::new(dir.path(), options).unwrap(),
        running: Running::new(max_concurrent),
        stopping: CancellationToken::new(),
    });
    World {
        _dir: dir,
        router: routes(Arc::clone(&shared)),
        shared,
    }
}

async fn send(router: &Router, method: &str, path: &str, kind: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(world: &World, query: &str) -> (StatusCode, serde_json::Value) {
    let body = serde_json::json!({ "query": query }).to_string();
    let (status, text) = send(&world.router, "POST", "/sql", "application/json", &body).await;
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_query_is_answered_with_columns_and_rows() {
    let world = world(4, 30_000);
    let (status, body) = ask(
        &world,
        "SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL ORDER BY a",
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body["columns"][0],
        serde_json::json!({"name": "a", "type": "Int64"})
    );
    assert_eq!(body["rows"], serde_json::json!([{"a": 1, "b": "x"}, {"a": 2}]));
    let (status, text) = send(
        &world.router,
        "POST",
        "/sql",
        "text/plain",
        "SELECT count(*) AS n FROM movies",
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains(r#""rows":[{"n":0}]"#), "{text}");
    let (status, text) = send(&world.router, "GET", "/sql/tables", "text/plain", "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        text.contains("attributions") && text.contains("hdr_percentile"),
        "{text}"
    );
}

#[tokio::test]
async fn mistakes_are_answered_with_position_and_hint_and_writes_are_forbidden() {
    let world = world(4, 30_000);
    let (status, body) = ask(&world, "SELECT (1 FROM movies").await;
    assert_eq!(
        (status, &body["type"]),
        (StatusCode::BAD_REQUEST, &"sql-syntax".into())
    );
    assert_eq!(body["position"], serde_json::json!({"line": 1, "column": 11}));
    let (status, body) = ask(&world, "SELECT titel FROM movies").await;
    assert_eq!(
        (status, &body["type"]),
        (StatusCode::BAD_REQUEST, &"sql-meaning".into())
    );
    assert!(body["hint"].as_str().unwrap().contains("movies"), "{body}");
    for query in [
        "DROP TABLE movies",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET a.b = 1",
    ] {
        let (status, body) = ask(&world, query).await;
        assert_eq!(
            (status, &body["type"]),
            (StatusCode::FORBIDDEN, &"sql-read-only".into()),
            "{query}"
        );
    }
    for (kind, body) in [
        ("application/json", "{"),
        ("application/json", r#"{"query": 7}"#),
        ("application/json", r#"{"query": "SELECT 1", "drop": true}"#),
        ("application/json", r#"{"query": "SELECT 1", "query_id": ""}"#),
    ] {
        let (status, _) = send(&world.router, "POST", "/sql", kind, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    let large = "x".repeat(MAX_BODY_BYTES + 1);
    let (status, _) = send(&world.router, "POST", "/sql", "text/plain", &large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_query_that_is_too_deep_and_a_result_that_is_too_large_are_answered_as_problems() {
    let world = world(4, 30_000);
    for (name, query) in crate::sql::tests::deep_queries(5_000) {
        let (status, body) = ask(&world, &query).await;
        assert_eq!(
            (status, &body["type"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &"sql-complexity".into()),
            "{name}"
        );
    }
    let large = "SELECT value, repeat(CAST(value AS VARCHAR), 50) FROM generate_series(1, 900000)";
    let (status, body) = ask(&world, large).await;
    assert_eq!(
        (status, &body["type"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &"sql-bytes".into())
    );
    assert_eq!(ask(&world, "SELECT 1").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_stopped_by_its_time_limit_by_its_client_and_by_the_service() {
    let (status, body) = ask(&world(4, 100), ENDLESS).await;
    assert_eq!(
        (status, &body["type"]),
        (StatusCode::REQUEST_TIMEOUT, &"sql-timeout".into())
    );

    let world = world(1, 600_000);
    let start = |id: &str| {
        let body = serde_json::json!({ "query": ENDLESS, "query_id": id }).to_string();
        let router = world.router.clone();
        tokio::spawn(async move { send(&router, "POST", "/sql", "application/json", &body).await })
    };
    let cancel = async |id: &str| {
        let path = format!("/sql/{id}");
        send(&world.router, "DELETE", &path, "text/plain", "").await.0
    };
    assert_eq!(cancel("a").await, StatusCode::NOT_FOUND);
    let first = start("a");
    world.running(1).await;
    assert_eq!(ask(&world, "SELECT 1").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(cancel("a").await, StatusCode::NO_CONTENT);
    assert_eq!(first.await.unwrap().0, StatusCode::CONFLICT);
    assert_eq!(ask(&world, "SELECT 1").await.0, StatusCode::OK);

    // A client that goes away frees its place.
    let gone = start("b");
    world.running(1).await;
    gone.abort();
    assert!(gone.await.is_err());
    world.running(0).await;

    let last = start("c");
    world.running(1).await;
    world.shared.stopping.cancel();
    assert_eq!(last.await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
}
