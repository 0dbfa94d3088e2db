//! Errors as problem documents (RFC 9457).

use std::any::Any;
use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, http};
use marquee_schemas::MovieId;
use schemars::JsonSchema;
use serde::Serialize;

use super::App;
use crate::engine::Refused;

/// One refusal. `type` is `urn:marquee:problem:<code>`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Problem {
    /// Which kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request.
    detail: Cow<'static, str>,
    /// The field that is wrong, as a path into the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// What is missing, for a service that is not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    #[serde(skip)]
    retry_after_s: Option<u16>,
}

impl Problem {
    fn new(
        status: StatusCode,
        code: &str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind: format!("urn:marquee:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            reasons: Vec::new(),
            retry_after_s: None,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn title(&self) -> &'static str {
        self.title
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The body is not JSON: 400.
    pub(super) fn malformed_json(detail: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "malformed-json",
            "the body is not JSON",
            detail,
        )
    }

    /// The body or the query is well formed but a field is unknown, absent, or of the wrong type: 422.
    pub(super) fn invalid_request(field: Option<String>, detail: String) -> Self {
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-request",
            "a field is unknown, absent, or of the wrong type",
            detail,
        );
        match field {
            Some(field) => problem.field(field),
            None => problem,
        }
    }

    /// A field of the right type has a value outside its domain: 422.
    pub(crate) fn invalid_parameter(field: &'static str, detail: String) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-parameter",
            "a value is outside its domain",
            detail,
        )
        .field(field)
    }

    /// The request could not be read off the connection: 400.
    pub(super) fn unreadable(detail: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unreadable",
            "the request cannot be read",
            detail,
        )
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the body is too large",
            format!("at most {limit} bytes are taken"),
        )
    }

    pub(super) fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "the body's type is not supported",
            "send `content-type: application/json`",
        )
    }

    pub(crate) fn unknown_movie(field: &'static str, detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-movie", "no such movie", detail).field(field)
    }

    pub(super) fn unknown_user(detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-user", "no such user", detail).field("id")
    }

    /// The call needs a key that was not given, or another one: 401.
    pub(super) fn unauthorised() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorised",
            "an admin key is required",
            "send `authorization: Bearer <key>` with the key whose SHA-256 is configured",
        )
    }

    /// No key is configured: 403.
    pub(super) fn admin_off() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "admin-off",
            "admin calls are switched off",
            "configure recommender.admin_key_sha256, the SHA-256 of a key of your choice in lower-case hex",
        )
    }

    /// A page of another site sent the request: 403.
    pub(crate) fn cross_site() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "cross-site",
            "another site's page may not do this",
            "the browser says that the request does not come from this server's own pages",
        )
    }

    /// An event could not be published: 503. It may have arrived all the same.
    pub(super) fn not_published(detail: String) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-published",
            "the event was not acknowledged",
            detail,
        );
        problem.retry_after_s = Some(1);
        problem
    }

    pub(super) fn not_ready(reasons: Vec<&'static str>) -> Self {
        let detail = reasons.join("; ");
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "not ready yet",
            detail,
        );
        problem.reasons = reasons;
        problem.retry_after_s = Some(1);
        problem
    }

    pub(super) fn overloaded() -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "too many requests at once",
            "try again in a moment",
        );
        problem.retry_after_s = Some(1);
        problem
    }

    pub(super) fn timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the request took too long",
            "its body may have come in too slowly",
        )
    }

    /// Something that must not happen: 500. The cause is logged, not told.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "internal error",
            "the cause is in the server's log",
        )
    }
}

impl App {
    /// A refusal as a problem; a movie that the catalogue does not hold is noted.
    pub(super) fn refusal(&self, refused: Refused) -> Problem {
        if let Refused::UnknownMovie { movie_id, .. } = refused {
            self.note_unknown(movie_id);
        }
        refused.into()
    }

    /// Notes that a client asked for a movie that the catalogue does not hold.
    pub(super) fn note_unknown(&self, movie_id: MovieId) {
        if self.unknown.note(movie_id, self.clock.now_ms()) {
            tracing::info!(%movie_id, "asked for a movie that is not in the catalogue");
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::UnknownMovie { field, .. } => Self::unknown_movie(field, detail),
            Refused::InvalidFilter { field, .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-filter",
                "no movie can pass this filter",
                detail,
            )
            .field(field),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let retry_after = self.retry_after_s;
        let challenge = status == StatusCode::UNAUTHORIZED;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

pub(super) async fn unknown_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-path",
        "no such path",
        format!("there is nothing at {path}"),
    )
}

pub(super) async fn method_not_allowed(method: http::Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "the path does not take this method",
        format!("{path} does not take {method}"),
    )
}

pub(super) fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let message = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    Problem::internal(&message).into_response()
}
