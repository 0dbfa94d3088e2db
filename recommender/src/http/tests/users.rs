use std::sync::atomic::Ordering;

use marquee_schemas::{Interaction, Kind, MovieId, SchemaVersion, Topic, UserId};

use super::*;
use crate::testing::record;

#[tokio::test]
async fn a_user_is_described_by_what_lists_rest_on() {
    let world = World::new();
    let router = world.router();
    let user = get_(&router, "/users/1").await.json();
    assert_eq!(user["feature_version"], 8);
    assert_eq!(user["history"], json!({"rating": 8}));
    assert_eq!((&user["seen"], &user["mean_rating"]), (&json!(8), &json!(4.5)));
    assert_eq!(user["recent"][0]["title"], "Movie 107", "the newest first");
    let stranger = get_(&router, "/users/99").await;
    assert_problem(&stranger, 404, "unknown-user", Some("id"));
    for bad in ["/users/me", "/users/-1", "/users/9007199254740992"] {
        assert_problem(&get_(&router, bad).await, 422, "invalid-parameter", Some("id"));
    }
}

#[tokio::test]
async fn an_event_that_the_feature_store_has_not_published_yet_is_told_like_the_others() {
    let world = World::new();
    let event = Interaction {
        schema_version: SchemaVersion,
        event_id: "ahead".into(),
        user_id: UserId(1),
        movie_id: Some(MovieId(109)),
        kind: Kind::Rating,
        rating: Some(1.5),
        genres: Vec::new(),
        timestamp: 20_000_000,
        session_id: None,
        request_id: None,
        source: None,
    };
    world
        .view
        .apply(&[record(0, 9, &event)], 20_000_000, |record, error| {
            panic!("{record:?}: {error}")
        });
    let user = get_(&world.router(), "/users/1").await.json();
    assert_eq!((&user["feature_version"], &user["seen"]), (&json!(9), &json!(9)));
    assert_eq!(user["history"], json!({"rating": 9}));
    assert_eq!(user["recent"][0]["movie_id"], 109);
    assert_eq!(user["last_event_ms"], 20_000_000);
    let mean = user["mean_rating"].as_f64().unwrap();
    assert!((mean - (8.0 * 4.5 + 1.5) / 9.0).abs() < 1e-6, "{mean}");
}

#[tokio::test]
async fn an_erasure_is_published_under_the_users_key() {
    let world = World::new();
    let router = world.router();
    let erase = || send(&router, Method::DELETE, "/users/1", None, Vec::new());
    let reply = erase().await;
    assert_eq!(reply.status, 202);
    described::Described::new().check("delete", "/users/{id}", &reply);
    let records = world.events.records.lock().unwrap().clone();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].topic, records[0].key.as_slice()),
        (Topic::Interactions, &b"1"[..])
    );

    world.events.away.store(true, Ordering::SeqCst);
    let reply = erase().await;
    assert_problem(&reply, 503, "not-published", None);
    assert_eq!(reply.headers["retry-after"], "1");
}

#[tokio::test]
async fn the_watchlist_is_that_of_the_feature_store() {
    let world = World::new();
    let features = marquee_schemas::UserFeatures {
        watchlist: vec![MovieId(103), MovieId(109)],
        ..crate::testing::user_features(1, 10, &[])
    };
    world.view.apply_changes(vec![crate::view::Change::User {
        partition: 0,
        features: Box::new(features),
    }]);
    let user = get_(&world.router(), "/users/1").await;
    assert_eq!(user.json()["watchlist"], json!([103, 109]));
    described::Described::new().check("get", "/users/{id}", &user);
}
