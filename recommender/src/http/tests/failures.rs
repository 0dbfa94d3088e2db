use std::time::{Duration, Instant};

use axum::Extension;
use marquee_schemas::{Endpoint, RequestLog, UserId};

use super::*;
use crate::overload::Place;
use crate::testing::{version, without_exploration};

const LIMIT_MS: u64 = 300;

fn impatient() -> World {
    World::with_model(Config {
        request_timeout_ms: LIMIT_MS,
        shed_delay_ms: 0,
        ..without_exploration()
    })
}

fn logged(world: &mut World) -> Vec<RequestLog> {
    std::iter::from_fn(|| world.logs.try_recv().ok()).collect()
}

fn ask() -> RecommendBody {
    RecommendBody {
        user_id: Some(UserId(1)),
        k: Some(3),
        ..RecommendBody::default()
    }
}

/// Nobody is served while these are held.
async fn all_places(world: &World) -> Vec<Place> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let mut places = Vec::new();
    for _ in 0..cores {
        places.push(world.state.queue.place().await.unwrap());
    }
    places
}

#[track_caller]
fn assert_failure(logs: &[RequestLog], status: u16) {
    assert_eq!(logs.len(), 1, "{logs:?}");
    let log = &logs[0];
    assert_eq!((log.status, log.endpoint), (status, Endpoint::Recommend));
    assert_eq!(log.model_version, Some(version(1)));
    assert_eq!((log.user_id, log.k), (Some(UserId(1)), 3));
    assert!(log.items.is_empty() && RequestLog::is_failure(log.status));
}

#[tokio::test]
async fn a_panic_while_a_list_is_made_is_logged_as_its_models_failure() {
    for length in [Work::Short, Work::Long] {
        let mut world = World::new();
        let state = world.state.clone();
        let handler = move |Extension(meta): Extension<RequestMeta>| async move {
            let prepared = ask().prepare(&state, &meta)?;
            let work = move |_: &AppState| {
                let _prepared = prepared;
                if true {
                    panic!("planted")
                }
            };
            state.compute(length, work).await
        };
        let router = router_with(world.state.clone(), Router::new().route("/events", get(handler)));
        let reply = get_(&router, "/events").await;
        assert_problem(&reply, 500, "internal", None);
        let logs = logged(&mut world);
        assert_failure(&logs, 500);
        assert_eq!(logs[0].request_id, reply.headers["x-request-id"]);
    }
}

#[tokio::test]
async fn a_list_that_waits_beyond_the_time_limit_is_logged_as_a_failure() {
    let mut world = impatient();
    let places = all_places(&world).await;
    let reply = post_(&world.router(), "/recommend", &json!({"user_id": 1, "k": 3})).await;
    assert_problem(&reply, 408, "timeout", None);
    let logs = logged(&mut world);
    assert_failure(&logs, 408);
    assert!(logs[0].latency_ms >= LIMIT_MS as f64);
    drop(places);
    post_(&world.router(), "/recommend", &json!({"user_id": 1})).await;
    assert_eq!(logged(&mut world)[0].status, 200);
}

#[tokio::test]
async fn a_list_that_comes_after_the_time_limit_is_a_failure_and_not_a_served_list() {
    let mut world = impatient();
    let meta = RequestMeta {
        id: world.state.ids.next(0),
        received_ms: 0,
        started: Instant::now() - Duration::from_millis(LIMIT_MS),
    };
    let prepared = ask().prepare(&world.state, &meta).unwrap();
    assert_eq!(world.state.serve(prepared).unwrap().items.len(), 3);
    assert_failure(&logged(&mut world), 408);
}

#[tokio::test]
async fn who_goes_away_is_refused_or_shed_is_no_models_failure() {
    let mut world = impatient();
    let router = world.router();
    let places = all_places(&world).await;
    let left = Duration::from_millis(LIMIT_MS / 5);
    let body = json!({"user_id": 1});
    let gone = tokio::time::timeout(left, post_(&router, "/recommend", &body)).await;
    assert!(gone.is_err());
    drop(places);
    let refused = post_(&router, "/recommend", &json!({"context": {"seeds": [1]}})).await;
    assert_eq!(refused.status, 404);
    assert!(logged(&mut world).is_empty());

    let mut world = World::with_model(Config {
        max_concurrent_requests: 0,
        ..without_exploration()
    });
    assert_eq!(post_(&world.router(), "/recommend", &body).await.status, 503);
    assert!(logged(&mut world).is_empty());
}
