use marquee_schemas::{RetrainEvent, Topic, Trigger, decode};

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
        for (method, path) in [(Method::GET, "/admin/models"), (Method::POST, "/admin/retrain")] {
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
