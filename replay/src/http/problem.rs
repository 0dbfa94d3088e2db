//! Errors as RFC 9457 problem documents.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::sql::SqlError;

/// A place in the query, both from 1.
#[derive(Debug, Clone, Copy, Serialize)]
struct Position {
    line: u64,
    column: u64,
}

/// Why there is no answer.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        name: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            r#type: name,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            position: None,
            hint: None,
        }
    }
}

impl From<SqlError> for Problem {
    fn from(error: SqlError) -> Self {
        let (status, name, title) = match &error {
            SqlError::Syntax { .. } => (StatusCode::BAD_REQUEST, "sql-syntax", "this is not SQL"),
            SqlError::Meaning { .. } => (
                StatusCode::BAD_REQUEST,
                "sql-meaning",
                "the query does not fit the tables",
            ),
            SqlError::TooComplex(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "sql-complexity",
                "the query is too complex",
            ),
            SqlError::NotReadOnly(_) => (StatusCode::FORBIDDEN, "sql-read-only", "the lake is read-only"),
            SqlError::Timeout(_) => (
                StatusCode::REQUEST_TIMEOUT,
                "sql-timeout",
                "the query took too long",
            ),
            SqlError::Memory(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "sql-memory",
                "the query needs too much memory",
            ),
            SqlError::TooManyRows(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "sql-rows",
                "the result is too large",
            ),
            SqlError::TooManyBytes(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "sql-bytes",
                "the result is too large",
            ),
            SqlError::Execution(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "sql-execution",
                "the query failed",
            ),
            SqlError::Lake(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "lake",
                "the lake cannot be read",
            ),
        };
        let text = error.to_string();
        let (detail, hint) = match text.rsplit_once("\nhint: ") {
            Some((detail, hint)) => (detail.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        Self {
            position: error.position().map(|(line, column)| Position { line, column }),
            hint,
            ..Self::new(status, name, title, detail)
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
