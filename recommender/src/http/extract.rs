//! Reading requests, with every refusal a [`Problem`].

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{AppState, Problem};

/// A JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        if !is_json(&request) {
            return Err(Problem::unsupported_media_type());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::too_large(state.config.max_body_bytes)
            } else {
                Problem::unreadable(rejection.body_text())
            }
        })?;
        parse(&bytes).map(Self)
    }
}

/// `application/json` and its relatives, with or without parameters.
fn is_json(request: &Request) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let essence = value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase();
            essence == "application/json"
                || (essence.starts_with("application/") && essence.ends_with("+json"))
        })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde also reads a struct from a bare sequence of its fields, which nobody means.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(match serde_json::from_slice::<IgnoredAny>(bytes) {
            Ok(_) => Problem::invalid_request(None, "the body must be a JSON object".to_owned()),
            Err(error) => Problem::malformed_json(error.to_string()),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        if cause.is_data() {
            Problem::invalid_request(field_of(path, &cause.to_string()), cause.to_string())
        } else {
            Problem::malformed_json(cause.to_string())
        }
    })?;
    deserializer
        .end()
        .map_err(|error| Problem::malformed_json(error.to_string()))?;
    Ok(value)
}

/// The path that serde was at; where a field is unknown or absent, its name is in the message.
fn field_of(path: String, message: &str) -> Option<String> {
    let named = message
        .strip_prefix("missing field `")
        .or_else(|| message.strip_prefix("unknown field `"))
        .and_then(|rest| rest.split('`').next());
    match (path.as_str(), named) {
        (".", None) => None,
        (".", Some(name)) => Some(name.to_owned()),
        (path, Some(name)) if path != name && !path.ends_with(&format!(".{name}")) => {
            Some(format!("{path}.{name}"))
        }
        (path, _) => Some(path.to_owned()),
    }
}

/// The id at the end of a path.
pub(crate) fn id_of<T: FromStr>(path: Result<Path<String>, PathRejection>, of: &str) -> Result<T, Problem> {
    let Path(text) = path.map_err(|rejection| Problem::unreadable(rejection.body_text()))?;
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Problem::invalid_parameter("id", format!("{shown:?} is not a {of} id"))
    })
}

/// A query string.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let message = text
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&text);
                let (path, cause) = match message.split_once(": ") {
                    Some((path, cause)) if !path.contains(' ') => (path.to_owned(), cause),
                    _ => (".".to_owned(), message),
                };
                Problem::invalid_request(field_of(path, cause), cause.to_owned())
            })
    }
}
