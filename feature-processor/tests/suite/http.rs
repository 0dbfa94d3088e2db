//! Features over HTTP, beside the fold.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use marquee_feature_processor::http::router;
use marquee_runtime::ManualClock;
use marquee_runtime::bus::Handler;
use marquee_schemas::{Kind, Topic};
use serde_json::Value;
use tower::ServiceExt;

use crate::harness::{Log, NOW_MS, TestProcessor, catalogue, config, rating, undisturbed, view};

const DAY_MS: i64 = 86_400_000;

fn ask(processor: &TestProcessor, path: &str) -> (StatusCode, Value) {
    let router = router(processor.shelf(), Arc::new(ManualClock::at(NOW_MS)));
    let request = Request::get(path).body(Body::empty()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    })
}

fn folded(folder: &std::path::Path) -> TestProcessor {
    let now = NOW_MS - 1_000;
    let mut log = Log::default();
    // Users 3 and 4 lie in different partitions.
    for (n, (user, age_ms)) in [(3, 40 * DAY_MS), (3, 3 * DAY_MS), (4, 600_000), (3, 0)]
        .into_iter()
        .enumerate()
    {
        log.event(2, &rating(&format!("e{n}"), user, 5, 4.0, now - age_ms));
    }
    log.event(2, &view("w", 4, 6, now));
    let mut wish = view("x", 9, 6, now);
    wish.kind = Kind::WatchlistAdd;
    log.event(2, &wish);
    undisturbed(&config(folder), &catalogue(30), &log, 100).0
}

#[test]
fn a_users_features_come_with_their_age_and_with_what_follows_from_them() {
    let folder = tempfile::tempdir().unwrap();
    let processor = folded(folder.path());
    let (status, user) = ask(&processor, "/features/users/3");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&user["as_of_ms"], &user["age_ms"]),
        (&(NOW_MS - 1_000).into(), &1_000.into())
    );
    assert_eq!(
        user["windows"],
        serde_json::json!({"1h": 1, "1d": 1, "7d": 2, "30d": 2})
    );
    assert_eq!(
        (&user["cold_start"], &user["mean_rating"]),
        (&"warming".into(), &4.0.into())
    );
    assert_eq!(user["parts"]["1"]["history_len"], 3);
    assert_eq!(ask(&processor, "/features/users/9").1["cold_start"], "cold");
}

#[test]
fn a_movie_adds_its_partitions_up() {
    let folder = tempfile::tempdir().unwrap();
    let processor = folded(folder.path());
    let (status, movie) = ask(&processor, "/features/movies/5");
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&movie["count"], &movie["mean_rating"]), (&4.into(), &4.0.into()));
    assert_eq!(
        movie["windows"],
        serde_json::json!({"1h": 2, "1d": 2, "7d": 3, "30d": 3})
    );
}

#[test]
fn what_is_unknown_or_malformed_is_a_problem_document_and_a_partition_given_back_is_no_longer_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut processor = folded(folder.path());
    for (path, expected) in [
        ("/features/users/77", StatusCode::NOT_FOUND),
        ("/features/movies/77", StatusCode::NOT_FOUND),
        ("/features/users/me", StatusCode::BAD_REQUEST),
        ("/features/movies/-1", StatusCode::BAD_REQUEST),
    ] {
        let (status, problem) = ask(&processor, path);
        assert_eq!(
            (status, &problem["status"]),
            (expected, &expected.as_u16().into()),
            "{path}"
        );
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    processor.revoked(Topic::Interactions, &[1]);
    assert_eq!(ask(&processor, "/features/users/3").0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&processor, "/features/users/4").0, StatusCode::OK);
    processor.assigned(Topic::Interactions, &[1]).unwrap();
    assert_eq!(ask(&processor, "/features/users/3").0, StatusCode::OK);
}
