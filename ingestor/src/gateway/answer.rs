//! What the producer is told.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use marquee_schemas::Reason;
use serde::Serialize;

use super::GatewayConfig;

/// An event that the broker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// Position in the request, from 0.
    pub index: usize,
    /// Its id, the gateway's where the producer gave none.
    pub event_id: String,
}

/// An event that is no valid interaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Position in the request, from 0.
    pub index: usize,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub detail: String,
}

/// A valid event that did not get through: send it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Position in the request, from 0.
    pub index: usize,
    /// The id to send it again under: it may have arrived all the same.
    pub event_id: String,
    /// Why.
    pub detail: String,
}

/// What became of each event of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Answer {
    /// Published.
    pub accepted: Vec<Accepted>,
    /// Refused, and kept as dead letters.
    pub rejected: Vec<Rejected>,
    /// Not published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed>,
}

impl Answer {
    /// 202 if every valid event was published, 400 if none is valid, 503 if any has to be sent again.
    pub(super) fn respond(self, config: &GatewayConfig) -> Response {
        if !self.failed.is_empty() {
            let detail = format!("{} events were not published, send them again", self.failed.len());
            return Problem::unavailable(detail, Some(self)).respond(config);
        }
        if self.accepted.is_empty() {
            let detail = match self.rejected.as_slice() {
                [only] => only.detail.clone(),
                many => format!("none of the {} events is valid", many.len()),
            };
            return Problem {
                status: StatusCode::BAD_REQUEST,
                code: "invalid-events",
                title: "no valid event",
                detail,
                answer: Some(Box::new(self)),
            }
            .respond(config);
        }
        (StatusCode::ACCEPTED, Json(self)).into_response()
    }
}

/// A problem document (RFC 9457).
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: String,
    pub(super) answer: Option<Box<Answer>>,
}

impl Problem {
    pub(super) fn too_large(detail: String) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "too-large",
            title: "the request is too large",
            detail,
            answer: None,
        }
    }

    pub(super) fn unavailable(detail: String, answer: Option<Answer>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "unavailable",
            title: "the log does not take events now",
            detail,
            answer: answer.map(Box::new),
        }
    }

    pub(super) fn internal() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "internal",
            title: "internal error",
            detail: "the request was not handled to its end".to_owned(),
            answer: None,
        }
    }

    pub(super) fn respond(self, config: &GatewayConfig) -> Response {
        #[derive(Serialize)]
        struct Document {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: String,
            #[serde(flatten)]
            answer: Option<Box<Answer>>,
        }

        let Self {
            status,
            code,
            title,
            detail,
            answer,
        } = self;
        let document = Document {
            r#type: format!("urn:marquee:problem:{code}"),
            title,
            status: status.as_u16(),
            detail,
            answer,
        };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(config.retry_after_s));
        }
        response
    }
}
