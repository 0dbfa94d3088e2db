use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::testing::{World, rated};

mod admin;
mod batch;
mod described;
mod experiments;
mod failures;
mod fuzz;
mod pages;
mod users;

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn movies(&self) -> Vec<u64> {
        self.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["movie_id"].as_u64().unwrap())
            .collect()
    }
}

async fn send(
    router: &Router,
    method: Method,
    path: &str,
    content_type: Option<&str>,
    body: Vec<u8>,
) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    receive(router, request.body(Body::from(body)).unwrap()).await
}

async fn receive(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec();
    Reply {
        status,
        headers,
        body,
    }
}

async fn send_owned(router: &Router, method: Method, path: String) -> Reply {
    send(router, method, &path, None, Vec::new()).await
}

async fn get_(router: &Router, path: &str) -> Reply {
    send(router, Method::GET, path, None, Vec::new()).await
}

async fn post_(router: &Router, path: &str, body: &Value) -> Reply {
    let body = serde_json::to_vec(body).unwrap();
    send(router, Method::POST, path, Some("application/json"), body).await
}

/// The answer must be a problem document of this status and type, with this field where one is named.
#[track_caller]
fn assert_problem(reply: &Reply, status: u16, code: &str, field: Option<&str>) {
    let json = reply.json();
    assert_eq!(reply.status.as_u16(), status, "{json}");
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    assert_eq!(json["type"], format!("urn:marquee:problem:{code}"), "{json}");
    assert_eq!(json["status"], status);
    assert!(json["title"].is_string() && json["detail"].is_string());
    assert_eq!(json["field"].as_str(), field, "{json}");
    assert!(reply.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn recommend_answers_with_a_list_and_logs_it() {
    let mut world = World::new();
    let router = world.router();
    let reply = post_(
        &router,
        "/recommend",
        &json!({
            "user_id": 1, "k": 3, "filters": {"genres_none": ["Western"]},
            "context": {"surface": "home", "session_id": "s", "seeds": [111]}
        }),
    )
    .await;
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!(answer["user_id"], 1);
    assert_eq!(answer["model_version"], "v000001");
    assert_eq!(answer["is_fallback"], false);
    assert_eq!(answer["fallback_reason"], Value::Null);
    assert_eq!(answer["feature_version"], 8);
    assert_eq!(answer["as_of_ms"], 12_007_000);
    let first = &answer["items"][0];
    for field in ["movie_id", "title", "year", "genres", "rank", "score", "source"] {
        assert!(first.get(field).is_some(), "{field} in {first}");
    }
    assert!(first.get("reasons").is_none());
    assert_eq!(
        reply.headers["x-request-id"],
        answer["request_id"].as_str().unwrap()
    );
    assert_eq!(answer["request_id"].as_str().unwrap().as_bytes()[14], b'7');

    let log = world.logs.try_recv().unwrap();
    assert_eq!(log.request_id, answer["request_id"].as_str().unwrap());
    assert_eq!(log.endpoint, marquee_schemas::Endpoint::Recommend);
    assert_eq!((log.k, log.status, log.policy.as_str()), (3, 200, "ranked"));
    assert_eq!(log.surface.as_deref(), Some("home"));
    assert_eq!(log.feature_version, Some(8));
    assert_eq!(log.filters.genres_none, ["Western"]);
    assert_eq!(log.timestamp, 1_700_000_000_000);
    assert_eq!(log.items.len(), answer["items"].as_array().unwrap().len());
    assert!(
        log.items
            .iter()
            .enumerate()
            .all(|(place, item)| item.propensity == 1.0 && item.rank as usize == place)
    );
    assert!(log.latency_ms > 0.0 && log.stages.len() >= 3);
}

#[tokio::test]
async fn one_event_turns_the_fallback_into_a_personal_list() {
    let world = World::new();
    let router = world.router();
    let ask = json!({"user_id": 4711});
    let before = post_(&router, "/recommend", &ask).await.json();
    assert_eq!(before["is_fallback"], true);
    assert_eq!(before["fallback_reason"], "unknown_user");
    assert_eq!(before["feature_version"], Value::Null);
    world.observe(4711, &[rated(103, 5.0, 13_000_000)]);
    let reply = post_(&router, "/recommend", &ask).await;
    assert_eq!(reply.json()["is_fallback"], false);
    assert!(!reply.movies().contains(&103));
    assert_eq!(reply.movies()[0], 104);
    let all = post_(
        &router,
        "/recommend",
        &json!({"user_id": 4711, "include_seen": true, "k": 100}),
    )
    .await;
    assert!(all.movies().contains(&103));
}

#[tokio::test]
async fn explanations_come_when_asked() {
    let world = World::new();
    let reply = post_(
        &world.router(),
        "/recommend",
        &json!({"context": {"seeds": [103]}, "explain": true, "k": 2}),
    )
    .await;
    let answer = reply.json();
    let because = &answer["items"][0]["reasons"][0];
    assert_eq!(because["kind"], "because", "{answer}");
    assert_eq!(because["text"], "because you chose Movie 103");
}

#[tokio::test]
async fn similar_and_popular_answer_and_are_logged() {
    let mut world = World::new();
    let router = world.router();
    let one = post_(&router, "/similar", &json!({"movie_id": 103, "k": 3})).await;
    assert_eq!(one.status, 200);
    assert_eq!(one.movies().len(), 3);
    let several = post_(&router, "/similar", &json!({"movie_ids": [103, 104]})).await;
    assert!(several.movies().iter().all(|id| ![103, 104].contains(id)));
    let popular = get_(&router, "/popular?k=2&genre=Western&window=all").await;
    assert_eq!(popular.json()["items"][0]["genres"], json!(["Western"]));
    assert_eq!(popular.movies().len(), 2);
    let endpoints: Vec<_> = std::iter::from_fn(|| world.logs.try_recv().ok())
        .map(|log| log.endpoint.as_str())
        .collect();
    assert_eq!(endpoints, ["similar", "similar", "popular"]);
}

#[tokio::test]
async fn a_movie_is_described_with_what_is_known_of_it() {
    let world = World::new();
    let reply = get_(&world.router(), "/movies/103").await;
    let movie = reply.json();
    assert_eq!(movie["title"], "Movie 103");
    assert_eq!(movie["year"], 1993);
    assert_eq!(
        (&movie["interactions"], &movie["likes"]),
        (&json!(12), &json!(12))
    );
    assert_eq!(movie["mean_rating"], 4.5);
}

#[tokio::test]
async fn readiness_says_what_is_missing_and_health_does_not_care() {
    let empty = World::empty(Config::default());
    let router = empty.router();
    let reply = get_(&router, "/ready").await;
    assert_problem(&reply, 503, "not-ready", None);
    assert_eq!(reply.json()["reasons"].as_array().unwrap().len(), 2);
    assert_eq!(reply.headers["retry-after"], "1");
    let health = get_(&router, "/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["model_version"], Value::Null);

    let ready = get_(&World::without_model().router(), "/ready").await;
    assert_eq!(ready.status, 200);
    assert!(
        ready.json()["serving"]
            .as_str()
            .unwrap()
            .starts_with("popularity")
    );
    let ready = get_(&World::new().router(), "/ready").await;
    assert_eq!(ready.json()["serving"], "model");
    assert_eq!(ready.json()["movies"], 12);
}

#[tokio::test]
async fn every_mistake_has_its_problem_document() {
    let world = World::new();
    let router = world.router();
    let recommend = |body: Value| {
        let router = router.clone();
        async move { post_(&router, "/recommend", &body).await }
    };
    let invalid = "invalid-request";
    assert_problem(&recommend(json!({"k": "ten"})).await, 422, invalid, Some("k"));
    assert_problem(
        &recommend(json!({"frobnicate": 1})).await,
        422,
        invalid,
        Some("frobnicate"),
    );
    assert_problem(
        &recommend(json!({"filters": {"genre": ["Drama"]}})).await,
        422,
        invalid,
        Some("filters.genre"),
    );
    assert_problem(
        &recommend(json!({"filters": {"year_from": "old"}})).await,
        422,
        invalid,
        Some("filters.year_from"),
    );
    assert_problem(
        &recommend(json!({"context": {"seeds": [100, -1]}})).await,
        422,
        invalid,
        Some("context.seeds[1]"),
    );
    assert_problem(&recommend(json!("text")).await, 422, invalid, None);
    assert_problem(&recommend(json!([1, 2])).await, 422, invalid, None);
    let parameter = "invalid-parameter";
    assert_problem(&recommend(json!({"k": 0})).await, 422, parameter, Some("k"));
    assert_problem(&recommend(json!({"k": 101})).await, 422, parameter, Some("k"));
    assert_problem(
        &recommend(json!({"user_id": 1_u64 << 53})).await,
        422,
        parameter,
        Some("user_id"),
    );
    assert_problem(
        &recommend(json!({"context": {"seeds": vec![100; 51]}})).await,
        422,
        parameter,
        Some("context.seeds"),
    );
    assert_problem(
        &recommend(json!({"context": {"surface": "x".repeat(129)}})).await,
        422,
        parameter,
        Some("context.surface"),
    );
    assert_problem(
        &recommend(json!({"filters": {"exclude": vec![1; 10_001]}})).await,
        422,
        parameter,
        Some("filters.exclude"),
    );
    assert_problem(
        &recommend(json!({"filters": {"genres_all": ["Kaiju"]}})).await,
        422,
        "invalid-filter",
        Some("filters.genres_all"),
    );
    assert_problem(
        &recommend(json!({"filters": {"year_from": 2001, "year_to": 2000}})).await,
        422,
        "invalid-filter",
        Some("filters.year_from"),
    );
    assert_problem(
        &recommend(json!({"context": {"seeds": [1]}})).await,
        404,
        "unknown-movie",
        Some("context.seeds"),
    );
    assert_problem(
        &post_(&router, "/similar", &json!({"movie_id": 1})).await,
        404,
        "unknown-movie",
        Some("movie_id"),
    );
    assert_problem(
        &post_(&router, "/similar", &json!({"movie_ids": [103, 1]})).await,
        404,
        "unknown-movie",
        Some("movie_ids"),
    );
    assert_problem(
        &post_(
            &router,
            "/similar",
            &json!({"movie_id": 103, "filters": {"genres_any": ["Kaiju"]}}),
        )
        .await,
        422,
        "invalid-filter",
        Some("filters.genres_any"),
    );
    assert_problem(
        &post_(&router, "/similar", &json!({})).await,
        422,
        parameter,
        Some("movie_id"),
    );
    assert_problem(
        &post_(&router, "/similar", &json!({"movie_id": 103, "movie_ids": [104]})).await,
        422,
        parameter,
        Some("movie_id"),
    );
    assert_problem(
        &get_(&router, "/movies/1").await,
        404,
        "unknown-movie",
        Some("id"),
    );
    assert_problem(&get_(&router, "/movies/x").await, 422, parameter, Some("id"));
    assert_problem(&get_(&router, "/movies/%ff").await, 400, "unreadable", None);
    assert_problem(
        &get_(&router, "/popular?genre=Kaiju").await,
        422,
        "invalid-filter",
        Some("genre"),
    );
    assert_problem(&get_(&router, "/popular?k=ten").await, 422, invalid, Some("k"));
    assert_problem(
        &get_(&router, "/popular?window=2h").await,
        422,
        invalid,
        Some("window"),
    );
    assert_problem(&get_(&router, "/popular?q=1").await, 422, invalid, Some("q"));
    assert_problem(&get_(&router, "/nowhere").await, 404, "unknown-path", None);
    assert_problem(
        &get_(&router, "/recommend").await,
        405,
        "method-not-allowed",
        None,
    );
    assert_problem(
        &post_(&router, "/popular", &json!({})).await,
        405,
        "method-not-allowed",
        None,
    );
}

#[tokio::test]
async fn bodies_are_refused_by_syntax_type_and_size() {
    let world = World::new();
    let router = world.router();
    let post = |content_type: Option<&'static str>, body: Vec<u8>| {
        let router = router.clone();
        async move { send(&router, Method::POST, "/recommend", content_type, body).await }
    };
    let json = Some("application/json");
    for broken in [
        &b""[..],
        b"{",
        b"{\"k\": 1",
        b"{\"k\": 1} x",
        b"\xff\xfe",
        b"nul",
        b"{\"k\":01}",
    ] {
        assert_problem(&post(json, broken.to_vec()).await, 400, "malformed-json", None);
    }
    assert_problem(
        &post(json, b"[".repeat(10_000)).await,
        400,
        "malformed-json",
        None,
    );
    assert_problem(
        &post(None, b"{}".to_vec()).await,
        415,
        "unsupported-media-type",
        None,
    );
    assert_problem(
        &post(Some("text/plain"), b"{}".to_vec()).await,
        415,
        "unsupported-media-type",
        None,
    );
    assert_eq!(
        post(Some("Application/JSON; charset=utf-8"), b"{}".to_vec())
            .await
            .status,
        200
    );
    let large = vec![b' '; 256 * 1024 + 1];
    assert_problem(&post(json, large).await, 413, "too-large", None);
}

#[tokio::test]
async fn where_an_object_is_described_a_list_of_its_values_is_refused() {
    let world = World::new();
    let router = world.router();
    for (path, body, field) in [
        ("/recommend", json!({"context": ["home", "s1"]}), "context"),
        ("/recommend", json!({"filters": []}), "filters"),
        (
            "/similar",
            json!({"movie_id": 103, "filters": [["Drama"]]}),
            "filters",
        ),
        ("/recommend/batch", json!({"requests": [[1, 5]]}), "requests[0]"),
        (
            "/recommend/batch",
            json!({"requests": [{}, {"filters": []}]}),
            "requests[1].filters",
        ),
    ] {
        let reply = post_(&router, path, &body).await;
        assert_problem(&reply, 422, "invalid-request", Some(field));
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_are_shed_and_health_still_answers() {
    let world = World::empty(Config {
        max_concurrent_requests: 0,
        ..Config::default()
    });
    let router = world.router();
    let reply = get_(&router, "/popular").await;
    assert_problem(&reply, 503, "overloaded", None);
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(get_(&router, "/health").await.status, 200);
    let metrics = get_(&router, "/metrics").await;
    assert!(
        String::from_utf8(metrics.body)
            .unwrap()
            .contains("marquee_http_shed_total 1")
    );
}

#[tokio::test]
async fn a_panicking_handler_is_an_internal_problem() {
    let world = World::new();
    let extra = Router::new().route(
        "/events",
        get(|| async {
            if true {
                panic!("told in the log only")
            }
        }),
    );
    let router = router_with(world.state.clone(), extra);
    let reply = get_(&router, "/events").await;
    assert_problem(&reply, 500, "internal", None);
    assert!(!String::from_utf8(reply.body).unwrap().contains("told in the log"));
    let wrong = send(&router, Method::DELETE, "/events", None, Vec::new()).await;
    assert_problem(&wrong, 405, "method-not-allowed", None);
}

#[tokio::test]
async fn metrics_tell_requests_logs_view_and_model() {
    let world = World::new();
    let router = world.router();
    post_(&router, "/recommend", &json!({"user_id": 1})).await;
    post_(&router, "/recommend", &json!({"k": 0})).await;
    get_(&router, "/movies/103").await;
    let reply = get_(&router, "/metrics").await;
    assert!(
        reply.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let text = String::from_utf8(reply.body).unwrap();
    for line in [
        "marquee_http_requests_total{endpoint=\"/recommend\",status=\"200\"} 1",
        "marquee_http_requests_total{endpoint=\"/recommend\",status=\"422\"} 1",
        "marquee_http_requests_total{endpoint=\"/movies/{id}\",status=\"200\"} 1",
        "marquee_request_log_queue_depth 1",
        "marquee_request_logs_dropped_total{reason=\"queue_full\"} 0",
        "marquee_view_movies 12",
        "marquee_view_users 12",
        "marquee_model_info{role=\"champion\",version=\"v000001\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
