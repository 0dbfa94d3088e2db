//! The handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Shared;
use super::problem::Problem;
use super::running::Refused;
use crate::sql::{FUNCTIONS, Format, QueryResult, documentation};

/// The longest id that a client may choose.
const MAX_ID_BYTES: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    query: String,
    /// Chosen by the client, so that it can cancel; otherwise numbered here.
    #[serde(default)]
    query_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Column<'a> {
    name: &'a str,
    r#type: String,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    query_id: &'a str,
    columns: Vec<Column<'a>>,
    rows: Vec<Box<RawValue>>,
    notices: &'a [String],
    duration_ms: u64,
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-request",
        "the request cannot be understood",
        detail,
    )
}

fn unavailable(detail: &'static str) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "the query cannot run now",
        detail,
    )
}

fn is(headers: &HeaderMap, name: header::HeaderName, kind: &str) -> bool {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.starts_with(kind))
}

fn ask(headers: &HeaderMap, body: &Bytes) -> Result<Ask, Problem> {
    if is(headers, header::CONTENT_TYPE, "text/plain") {
        let query = std::str::from_utf8(body).map_err(|error| bad_request(error.to_string()))?;
        return Ok(Ask {
            query: query.to_owned(),
            query_id: None,
        });
    }
    serde_json::from_slice(body).map_err(|error| bad_request(error.to_string()))
}

/// `POST /sql`.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let ask = ask(&headers, &body)?;
    let id = ask
        .query_id
        .unwrap_or_else(|| format!("q{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(bad_request(format!("query_id has 1 to {MAX_ID_BYTES} bytes")));
    }
    let place = shared.running.begin(id).map_err(|refused| match refused {
        Refused::Full => unavailable("as many queries as may are running"),
        Refused::Taken => Problem::new(
            StatusCode::CONFLICT,
            "query-id-taken",
            "a query of this id is running",
            "choose another query_id",
        ),
    })?;
    let result = tokio::select! {
        biased;
        () = shared.stopping.cancelled() => return Err(unavailable("the service is stopping")),
        () = place.cancelled() => return Err(Problem::new(
            StatusCode::CONFLICT,
            "sql-cancelled",
            "the query was cancelled",
            "somebody asked for it",
        )),
        result = shared.engine.run(&ask.query) => result?,
    };
    if is(&headers, header::ACCEPT, "text/csv") {
        let text = result.render(Format::Csv)?;
        return Ok(([(header::CONTENT_TYPE, "text/csv")], text).into_response());
    }
    Ok(Json(of_result(place.id(), &result)?).into_response())
}

fn of_result<'a>(query_id: &'a str, result: &'a QueryResult) -> Result<Answer<'a>, Problem> {
    let rows = result.render(Format::Json)?;
    let fields = result.schema.fields().iter();
    Ok(Answer {
        query_id,
        columns: fields
            .map(|field| Column {
                name: field.name(),
                r#type: field.data_type().to_string(),
            })
            .collect(),
        rows: rows
            .lines()
            .map(|row| RawValue::from_string(row.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|error| {
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "rendering",
                    "the result has no JSON form",
                    error.to_string(),
                )
            })?,
        notices: &result.notices,
        duration_ms: result.duration_ms,
    })
}

/// `DELETE /sql/{query_id}`.
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(query_id): Path<String>,
) -> Result<StatusCode, Problem> {
    if shared.running.cancel(&query_id) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-query",
        "no query of this id is running",
        query_id,
    ))
}

/// `GET /sql/tables`.
pub(super) async fn tables() -> Json<serde_json::Value> {
    let tables = documentation().iter().map(|table| {
        let columns = table
            .columns
            .iter()
            .map(|column| serde_json::json!({ "name": column.name, "description": column.description }));
        serde_json::json!({
            "name": table.name,
            "description": table.description,
            "columns": columns.collect::<Vec<_>>(),
        })
    });
    let functions = FUNCTIONS.iter().map(|function| {
        serde_json::json!({ "signature": function.signature, "description": function.description })
    });
    Json(serde_json::json!({
        "tables": tables.collect::<Vec<_>>(),
        "functions": functions.collect::<Vec<_>>(),
    }))
}
