use marquee_schemas::{ModelAction, ModelCommand, ModelVersion, RetrainEvent, Topic, Trigger, decode};

use super::*;
use crate::testing::without_exploration;

/// SHA-256 of `secret`.
const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

async fn call(router: &Router, method: Method, path: &str, key: Option<&str>, body: &Value) -> Reply {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request
        .body(Body::from(serde_json::to_vec(body).unwrap()))
        .unwrap();
    receive(router, request).await
}

#[tokio::test]
async fn admin_calls_need_the_configured_key() {
    let off = World::new();
    let reply = call(
        &off.router(),
        Method::GET,
        "/admin/models",
        Some("secret"),
        &json!({}),
    )
    .await;
    assert_problem(&reply, 403, "admin-off", None);

    let folder = tempfile::tempdir().unwrap();
    let on = World::empty(Config {
        admin_key_sha256: DIGEST.into(),
        registry_dir: folder.path().to_owned(),
        ..without_exploration()
    });
    let router = on.router();
    for key in [None, Some("wrong"), Some(DIGEST)] {
        for (method, path) in [
            (Method::GET, "/admin/models"),
            (Method::GET, "/admin/unknown-movies"),
            (Method::POST, "/admin/retrain"),
            (Method::POST, "/admin/models/promote"),
            (Method::POST, "/admin/models/rollback"),
            (Method::POST, "/admin/models/advance"),
        ] {
            let reply = call(&router, method, path, key, &json!({"reason": "because"})).await;
            assert_problem(&reply, 401, "unauthorised", None);
            assert_eq!(reply.headers["www-authenticate"], "Bearer");
        }
    }
    assert!(on.events.records.lock().unwrap().is_empty());
    let reply = call(&router, Method::GET, "/admin/models", Some("secret"), &json!({})).await;
    assert_eq!(reply.json(), json!({"serving": null, "models": []}));
    described::Described::new().check("get", "/admin/models", &reply);
}

#[tokio::test]
async fn a_retraining_is_asked_for_by_an_event_with_its_reason() {
    let on = World::empty(Config {
        admin_key_sha256: DIGEST.into(),
        ..without_exploration()
    });
    let router = on.router();
    let retrain = |reason: String| {
        let router = router.clone();
        async move {
            let body = json!({ "reason": reason });
            call(&router, Method::POST, "/admin/retrain", Some("secret"), &body).await
        }
    };
    let reply = retrain("new films".into()).await;
    assert_eq!(reply.status, 202);
    described::Described::new().check("post", "/admin/retrain", &reply);
    let records = on.events.records.lock().unwrap().clone();
    assert_eq!(records[0].topic, Topic::RetrainEvents);
    let event: RetrainEvent = decode(records[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(
        (event.trigger, event.reason.as_str()),
        (Trigger::Manual, "new films")
    );
    assert_eq!(reply.json()["event_id"], event.event_id);
    for reason in [String::new(), " ".into(), "x".repeat(1001)] {
        assert_problem(&retrain(reason).await, 422, "invalid-parameter", Some("reason"));
    }
}

#[tokio::test]
async fn models_are_moved_by_commands_to_the_trainer() {
    let on = World::empty(Config {
        admin_key_sha256: DIGEST.into(),
        ..without_exploration()
    });
    let router = on.router();
    let described = described::Described::new();
    for (path, body, action, version) in [
        (
            "/admin/models/promote",
            json!({"version": " v000002 ", "reason": "it is better"}),
            ModelAction::Promote,
            Some("v000002"),
        ),
        (
            "/admin/models/rollback",
            json!({"reason": "it is better"}),
            ModelAction::Rollback,
            None,
        ),
        (
            "/admin/models/advance",
            json!({"reason": "it is better"}),
            ModelAction::AdvanceRollout,
            None,
        ),
    ] {
        let reply = call(&router, Method::POST, path, Some("secret"), &body).await;
        assert_eq!(reply.status, 202, "{path}");
        described.check("post", path, &reply);
        let record = on.events.records.lock().unwrap().pop().unwrap();
        assert_eq!(record.topic, Topic::ModelCommands);
        let command: ModelCommand = decode(record.value.as_deref().unwrap()).unwrap();
        assert_eq!(
            (command.action, command.reason.as_str()),
            (action, "it is better")
        );
        assert_eq!(
            command.version,
            version.map(|version| ModelVersion(version.into()))
        );
        assert_eq!(reply.json()["command_id"], command.command_id);
    }
    for (path, body, field) in [
        (
            "/admin/models/promote",
            json!({"version": "", "reason": "x"}),
            "version",
        ),
        (
            "/admin/models/promote",
            json!({"version": "v1", "reason": " "}),
            "reason",
        ),
        (
            "/admin/models/rollback",
            json!({"reason": "x".repeat(1001)}),
            "reason",
        ),
    ] {
        let reply = call(&router, Method::POST, path, Some("secret"), &body).await;
        assert_problem(&reply, 422, "invalid-parameter", Some(field));
    }
    on.events.away.store(true, std::sync::atomic::Ordering::SeqCst);
    let body = json!({"reason": "clicks fell"});
    let reply = call(
        &router,
        Method::POST,
        "/admin/models/rollback",
        Some("secret"),
        &body,
    )
    .await;
    assert_problem(&reply, 503, "not-published", None);
}

#[tokio::test]
async fn movies_that_are_asked_for_in_vain_are_noted() {
    let world = World::with_model(Config {
        admin_key_sha256: DIGEST.into(),
        ..without_exploration()
    });
    let router = world.router();
    for _ in 0..2 {
        assert_eq!(get_(&router, "/movies/77").await.status, 404);
    }
    let similar = post_(&router, "/similar", &json!({"movie_id": 55})).await;
    assert_problem(&similar, 404, "unknown-movie", Some("movie_id"));
    let seeded = json!({"context": {"seeds": [55]}});
    assert_eq!(post_(&router, "/recommend", &seeded).await.status, 404);
    let batch = json!({"requests": [{"context": {"seeds": [55]}}]});
    assert_eq!(post_(&router, "/recommend/batch", &batch).await.status, 200);
    let path = "/admin/unknown-movies";
    let reply = call(&router, Method::GET, path, Some("secret"), &json!({})).await;
    described::Described::new().check("get", path, &reply);
    let told = reply.json();
    assert_eq!(told["requests"], 5);
    assert_eq!(
        (&told["movies"][0]["movie_id"], &told["movies"][0]["requests"]),
        (&json!(55), &json!(3))
    );
    assert_eq!(
        (&told["movies"][1]["movie_id"], &told["movies"][1]["requests"]),
        (&json!(77), &json!(2))
    );
}
