//! The description of the interface, held against what the interface does.

use std::collections::BTreeMap;

use jsonschema::Validator;

use super::*;
use crate::http::openapi::document;

/// Validators of every answer that the description promises.
pub(super) struct Described {
    validators: BTreeMap<(String, String, u16), Validator>,
}

impl Described {
    pub(super) fn new() -> Self {
        let api = document();
        let mut validators = BTreeMap::new();
        for (path, methods) in api["paths"].as_object().unwrap() {
            for (method, call) in methods.as_object().unwrap() {
                for (status, response) in call["responses"].as_object().unwrap() {
                    for content in response["content"].as_object().unwrap().values() {
                        let Some(mut schema) = content.get("schema").cloned() else {
                            continue;
                        };
                        schema["components"] = api["components"].clone();
                        let key = (method.clone(), path.clone(), status.parse().unwrap());
                        validators.insert(key, jsonschema::validator_for(&schema).unwrap());
                    }
                }
            }
        }
        Self { validators }
    }

    /// The answer must be one that is described, in the shape that is described.
    #[track_caller]
    pub(super) fn check(&self, method: &str, path: &str, reply: &Reply) {
        let key = (method.to_owned(), path.to_owned(), reply.status.as_u16());
        let validator = self
            .validators
            .get(&key)
            .unwrap_or_else(|| panic!("{key:?} is not described"));
        let json = reply.json();
        if let Err(error) = validator.validate(&json) {
            panic!("{key:?}: {error}\n{json:#}");
        }
    }
}

#[tokio::test]
async fn the_description_is_served_and_every_call_in_it_exists() {
    let world = World::new();
    let router = world.router();
    let served = get_(&router, "/openapi.json").await;
    assert_eq!(served.json(), document());
    assert_eq!(served.json()["openapi"], "3.1.0");
    for (path, methods) in document()["paths"].as_object().unwrap() {
        // `/events` is another service's, merged in beside these.
        if path == "/events" {
            continue;
        }
        for method in methods.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let reply = send(
                &router,
                method.clone(),
                &path.replace("{id}", "103"),
                None,
                Vec::new(),
            )
            .await;
            assert!(
                ![StatusCode::METHOD_NOT_ALLOWED].contains(&reply.status)
                    && !String::from_utf8_lossy(&reply.body).contains("unknown-path"),
                "{method} {path}: {}",
                reply.status
            );
        }
    }
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    fn walk(value: &Value, visit: &mut impl FnMut(&str)) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(path)) = fields.get("$ref") {
                    visit(path);
                }
                fields.values().for_each(|value| walk(value, visit));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
            _ => {}
        }
    }
    let api = document();
    let mut seen = 0;
    walk(&api, &mut |path| {
        seen += 1;
        let pointer = path.strip_prefix('#').unwrap();
        assert!(api.pointer(pointer).is_some(), "{path}");
    });
    assert!(seen > 20, "{seen}");
}

#[tokio::test]
async fn answers_and_refusals_have_the_described_shape() {
    let world = World::new();
    let router = world.router();
    let described = Described::new();
    for body in [
        json!({"user_id": 1, "explain": true, "numbers": true, "diversity": 0.5, "recency": 0.2}),
        json!({"user_id": 4711, "explore": true, "explain": true}),
        json!({"context": {"seeds": [103], "genres": ["Comedy"]}}),
        json!({"k": 0}),
        json!({"context": {"seeds": [1]}}),
    ] {
        let reply = post_(&router, "/recommend", &body).await;
        described.check("post", "/recommend", &reply);
    }
    for (path, template) in [
        ("/popular?k=3", "/popular"),
        ("/popular?k=0", "/popular"),
        ("/movies?query=movie", "/movies"),
        ("/movies?query=", "/movies"),
        ("/movies/103", "/movies/{id}"),
        ("/movies/1", "/movies/{id}"),
        ("/users/1", "/users/{id}"),
        ("/users/99", "/users/{id}"),
        ("/health", "/health"),
        ("/ready", "/ready"),
    ] {
        described.check("get", template, &get_(&router, path).await);
    }
    described.check(
        "post",
        "/similar",
        &post_(&router, "/similar", &json!({"movie_ids": [103, 104]})).await,
    );
}

#[tokio::test]
async fn the_docs_page_shows_every_call() {
    let world = World::new();
    let reply = get_(&world.router(), "/docs").await;
    assert_eq!(reply.status, 200);
    let page = String::from_utf8(reply.body).unwrap();
    for path in document()["paths"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
    }
    assert!(!page.contains("https://"), "nothing is fetched from elsewhere");
}
