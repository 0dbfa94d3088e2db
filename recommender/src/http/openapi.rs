//! The description of the interface: OpenAPI 3.1, whose schemas are JSON Schema 2020-12 and come from the very types
//! that requests are read into and answers are written from.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use marquee_schemas::Interaction;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Problem;
use super::admin::{
    CommandAnswer, CommandBody, ModelsAnswer, PromoteBody, RetrainAnswer, RetrainBody, UnknownMoviesAnswer,
};
use super::health::{Health, Ready};
use super::list::ListAnswer;
use super::movies::{MovieAnswer, SearchAnswer, SearchQuery};
use super::popular::PopularQuery;
use super::recommend::{BatchAnswer, BatchBody, RecommendBody};
use super::similar::SimilarBody;
use super::users::{ErasureAnswer, UserAnswer};

static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));

pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

/// The whole description.
#[must_use]
pub fn document() -> Value {
    let mut api = Api::new();
    api.post("/recommend", "lists", "A list for a user")
        .about(
            "From the user's history and the seeds, as of the newest event; what is popular where there is neither. \
             Entries the user has seen are left out. Send `request_id` back with what the user does about the list.",
        )
        .body::<RecommendBody>(json!({"user_id": 1, "k": 10, "diversity": 0.3, "explain": true}))
        .answer::<ListAnswer>(200, "The list, best first")
        .problems(&[400, 404, 413, 415, 422]);
    api.post("/recommend/batch", "lists", "Several lists at once")
        .about("Each list is logged under an id of its own; one that is refused does not touch the others.")
        .body::<BatchBody>(json!({"requests": [{"user_id": 1}, {"user_id": 2, "k": 5}]}))
        .answer::<BatchAnswer>(200, "A list or a problem for each request, in their order")
        .problems(&[400, 413, 415, 422]);
    api.post("/similar", "lists", "Movies like one or several others")
        .about("By what people do; where that connects too few, movies of the same genres follow and say so.")
        .body::<SimilarBody>(json!({"movie_id": 1, "k": 10}))
        .answer::<ListAnswer>(200, "The list, most similar first")
        .problems(&[400, 404, 413, 415, 422]);
    api.get("/popular", "lists", "What is popular")
        .query::<PopularQuery>()
        .answer::<ListAnswer>(200, "The list, most popular first")
        .problems(&[422]);
    api.get("/movies", "catalogue", "Movies by title, typing errors and all")
        .query::<SearchQuery>()
        .answer::<SearchAnswer>(200, "Movies whose titles resemble the query, best first")
        .problems(&[422]);
    api.get("/movies/{id}", "catalogue", "One movie")
        .id("Id of the movie")
        .answer::<MovieAnswer>(200, "The movie, with what is known of it")
        .problems(&[404, 422]);
    api.get("/users/{id}", "users", "What is known of a user")
        .id("Id of the user")
        .answer::<UserAnswer>(200, "What recommendations rest on")
        .problems(&[404, 422]);
    api.delete("/users/{id}", "users", "Forget a user")
        .about(
            "Publishes an erasure event. Lists, features and SQL forget the user as they read it, the lake's files \
             within the hour, models with the next training; ARCHITECTURE.md says what is kept. Whoever acts again \
             begins anew.",
        )
        .id("Id of the user")
        .answer::<ErasureAnswer>(202, "The erasure is in the log")
        .problems(&[422]);
    api.post("/events", "events", "What users did")
        .about(
            "One interaction, an array of them, or one per line (`application/x-ndjson`). `schema_version`, `event_id` \
             and `timestamp` are filled in where absent. Answers when the broker has them.",
        )
        .events_body(json!({"user_id": 1, "movie_id": 1, "kind": "rating", "rating": 4.5}))
        .plain_answer(202, "Which events were accepted, and which refused and why", "application/json")
        .problems(&[400, 413, 415]);
    api.get("/admin/models", "admin", "The models of the registry")
        .key()
        .answer::<ModelsAnswer>(200, "Oldest first")
        .problems(&[401, 403]);
    for (path, summary, example) in [
        (
            "/admin/models/rollback",
            "End the rollout under way, or let the previous champion serve again",
            json!({"reason": "clicks fell"}),
        ),
        (
            "/admin/models/advance",
            "Take the rollout's next step now",
            json!({"reason": "seen enough"}),
        ),
    ] {
        api.post(path, "admin", summary)
            .key()
            .body::<CommandBody>(example)
            .answer::<CommandAnswer>(202, "The command is in the log")
            .problems(&[400, 401, 403, 413, 415, 422]);
    }
    api.post(
        "/admin/models/promote",
        "admin",
        "Let a version serve, whatever the gate said",
    )
    .about("The trainer obeys; a `model-events` record with the `command_id` tells the outcome.")
    .key()
    .body::<PromoteBody>(json!({"version": "v000002", "reason": "it is better for us"}))
    .answer::<CommandAnswer>(202, "The command is in the log")
    .problems(&[400, 401, 403, 413, 415, 422]);
    api.get(
        "/admin/unknown-movies",
        "admin",
        "Movies that were asked for and are not in the catalogue",
    )
    .key()
    .answer::<UnknownMoviesAnswer>(200, "Those asked for most often first")
    .problems(&[401, 403]);
    api.post("/admin/retrain", "admin", "Ask for a training")
        .key()
        .body::<RetrainBody>(json!({"reason": "the catalogue grew"}))
        .answer::<RetrainAnswer>(202, "The request is in the log")
        .problems(&[400, 401, 403, 413, 415, 422]);
    api.get("/health", "operation", "Whether the process is alive")
        .answer::<Health>(200, "It is");
    api.get("/ready", "operation", "Whether answers rest on complete data")
        .answer::<Ready>(200, "They do")
        .problems(&[503]);
    api.get("/metrics", "operation", "Metrics for Prometheus")
        .plain_answer(200, "Text exposition format 0.0.4", "text/plain");
    api.get("/openapi.json", "operation", "This description")
        .plain_answer(200, "OpenAPI 3.1", "application/json");
    api.get("/docs", "operation", "This description, to be read and tried")
        .plain_answer(200, "A page", "text/html");
    api.finish()
}

struct Api {
    /// What is read and what is written differ in which fields must be there.
    reads: SchemaGenerator,
    writes: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Api {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            reads: settings().for_deserialize().into_generator(),
            writes: settings().for_serialize().into_generator(),
            paths: Map::new(),
        }
    }

    fn get(&mut self, path: &str, tag: &str, summary: &str) -> Call<'_> {
        self.call("get", path, tag, summary)
    }

    fn post(&mut self, path: &str, tag: &str, summary: &str) -> Call<'_> {
        self.call("post", path, tag, summary)
    }

    fn delete(&mut self, path: &str, tag: &str, summary: &str) -> Call<'_> {
        self.call("delete", path, tag, summary)
    }

    fn call(&mut self, method: &str, path: &str, tag: &str, summary: &str) -> Call<'_> {
        let operation = self
            .paths
            .entry(path)
            .or_insert_with(|| json!({}))
            .as_object_mut()
            .map(|methods| methods.entry(method).or_insert(Value::Null));
        let mut words = path.split(|letter: char| !letter.is_alphanumeric());
        let id = words
            .by_ref()
            .filter(|word| !word.is_empty())
            .fold(method.to_owned(), |id, word| format!("{id}_{word}"));
        if let Some(operation) = operation {
            *operation = json!({"operationId": id, "tags": [tag], "summary": summary, "responses": {}});
        }
        let mut call = Call {
            path: path.to_owned(),
            method: method.to_owned(),
            api: self,
        };
        // Any call may meet these.
        call = call.problems(&[408, 500, 503]);
        call
    }

    fn finish(mut self) -> Value {
        let mut schemas = self.reads.take_definitions(true);
        schemas.extend(self.writes.take_definitions(true));
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "marquee",
                "version": env!("CARGO_PKG_VERSION"),
                "summary": "Real-time movie recommendations",
                "description": "Lists reflect a user's newest event within milliseconds. Every list is logged under \
                    the `request_id` it carries. Errors are problem documents (RFC 9457).",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
            },
        })
    }
}

/// One call being described.
struct Call<'a> {
    api: &'a mut Api,
    path: String,
    method: String,
}

impl Call<'_> {
    fn set(self, pointer: &[&str], value: Value) -> Self {
        let mut place = &mut self.api.paths[&self.path][&self.method];
        for step in pointer {
            place = &mut place[*step];
        }
        *place = value;
        self
    }

    fn about(self, text: &str) -> Self {
        self.set(&["description"], json!(text))
    }

    fn key(self) -> Self {
        self.set(&["security"], json!([{"admin": []}]))
    }

    fn id(self, text: &str) -> Self {
        let schema = json!({"type": "integer", "minimum": 0});
        self.set(
            &["parameters"],
            json!([{"name": "id", "in": "path", "required": true, "description": text, "schema": schema}]),
        )
    }

    /// One parameter per field of `T`.
    fn query<T: JsonSchema>(self) -> Self {
        // Not a reference: its fields are wanted.
        let schema = T::json_schema(&mut self.api.reads).to_value();
        let required = |name: &str| {
            schema["required"]
                .as_array()
                .is_some_and(|names| names.iter().any(|required| required == name))
        };
        let fields = schema["properties"].as_object().cloned().unwrap_or_default();
        let parameters: Vec<Value> = fields
            .into_iter()
            .map(|(name, field)| {
                json!({
                    "name": name, "in": "query", "required": required(&name),
                    "description": field["description"], "schema": field,
                })
            })
            .collect();
        self.set(&["parameters"], json!(parameters))
    }

    fn body<T: JsonSchema>(self, example: Value) -> Self {
        let schema = self.api.reads.subschema_for::<T>().to_value();
        self.set(
            &["requestBody"],
            json!({"required": true, "content": {"application/json": {"schema": schema, "example": example}}}),
        )
    }

    /// Interactions, of which the server fills in what every event has.
    fn events_body(self, example: Value) -> Self {
        let mut event = Interaction::json_schema(&mut self.api.reads).to_value();
        event["required"] = json!(["user_id", "kind"]);
        let schema = json!({"anyOf": [event, {"type": "array", "items": event}]});
        let content = json!({
            "application/json": {"schema": schema, "example": example},
            "application/x-ndjson": {"schema": {"type": "string"}},
        });
        self.set(&["requestBody"], json!({"required": true, "content": content}))
    }

    fn answer<T: JsonSchema>(self, status: u16, text: &str) -> Self {
        let schema = self.api.writes.subschema_for::<T>().to_value();
        self.respond(status, text, "application/json", Some(schema))
    }

    fn plain_answer(self, status: u16, text: &str, media_type: &str) -> Self {
        self.respond(status, text, media_type, None)
    }

    fn problems(mut self, statuses: &[u16]) -> Self {
        let schema = self.api.writes.subschema_for::<Problem>().to_value();
        for &status in statuses {
            let text = match status {
                400 => "The request cannot be read",
                401 => "A key is required",
                403 => "Switched off",
                404 => "There is no such thing",
                408 => "The request took too long",
                413 => "The body is too large",
                415 => "The body is not JSON",
                422 => "A field is unknown, absent, of the wrong type or outside its domain",
                503 => "Not now: try again after `Retry-After` seconds",
                _ => "Internal error",
            };
            self = self.respond(status, text, "application/problem+json", Some(schema.clone()));
        }
        self
    }

    fn respond(self, status: u16, text: &str, media_type: &str, schema: Option<Value>) -> Self {
        let content = schema.map_or_else(|| json!({}), |schema| json!({"schema": schema}));
        let mut response = json!({"description": text, "content": {media_type: content}});
        response["headers"] = json!({"x-request-id": {"schema": {"type": "string"}}});
        if status == 503 {
            response["headers"]["retry-after"] = json!({"schema": {"type": "integer"}});
        }
        self.set(&["responses", &status.to_string()], response)
    }
}
