use std::sync::atomic::Ordering;

use marquee_schemas::{MovieId, Topic};

use super::*;

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
