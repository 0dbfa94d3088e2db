//! A request's body, split into events without understanding them.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use super::Raw;
use super::answer::Problem;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Lines,
}

/// A body within the size limit, of a known format.
pub(super) struct Body {
    bytes: Bytes,
    format: Format,
}

pub(super) async fn read(request: Request) -> Result<Body, Problem> {
    let format = format(&request).ok_or_else(|| Problem {
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        code: "unsupported-media-type",
        title: "unsupported media type",
        detail:
            "send application/json (an event or an array of events) or application/x-ndjson (an event a line)"
                .to_owned(),
        answer: None,
    })?;
    match Bytes::from_request(request, &()).await {
        Ok(bytes) => Ok(Body { bytes, format }),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(Problem::too_large("the body is larger than allowed".to_owned()))
        }
        Err(rejection) => Err(Problem {
            status: rejection.status(),
            code: "unreadable-body",
            title: "the body cannot be read",
            detail: rejection.body_text(),
            answer: None,
        }),
    }
}

fn format(request: &Request) -> Option<Format> {
    let value = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next()?.trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Some(Format::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Format::Lines),
        _ => None,
    }
}

impl Body {
    /// The events in it, at most `limit`. A body that is not JSON at all is one malformed event.
    pub(super) fn events(&self, limit: usize) -> Result<Vec<Raw<'_>>, Problem> {
        let bytes: &[u8] = self.bytes.trim_ascii();
        let events = match self.format {
            Format::Lines => bytes
                .split(|&byte| byte == b'\n')
                .map(<[u8]>::trim_ascii)
                .filter(|line| !line.is_empty())
                .take(limit.saturating_add(1))
                .map(Raw::Event)
                .collect(),
            Format::Json if bytes.starts_with(b"[") => {
                match serde_json::from_slice::<Vec<&RawValue>>(bytes) {
                    Ok(events) => events
                        .iter()
                        .map(|event| Raw::Event(event.get().as_bytes()))
                        .collect(),
                    Err(_) => vec![Raw::Malformed(bytes)],
                }
            }
            Format::Json if bytes.is_empty() => Vec::new(),
            Format::Json => vec![Raw::Event(bytes)],
        };
        if events.is_empty() {
            return Err(Problem {
                status: StatusCode::BAD_REQUEST,
                code: "no-events",
                title: "no events",
                detail: "the body holds no event".to_owned(),
                answer: None,
            });
        }
        if events.len() > limit {
            return Err(Problem::too_large(format!(
                "more than {limit} events, send them in several requests"
            )));
        }
        Ok(events)
    }
}
