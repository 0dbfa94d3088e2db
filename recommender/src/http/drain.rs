//! Reads what a refused request still sends, so that its client sees the answer.
//!
//! A server that closes a connection with unread bytes in it resets it, and the reset may overtake the answer: a
//! client that sends a body over the limit would see a broken pipe instead of 413.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::Response;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::Mutex;

/// Bodies announced as smaller than this are left alone: they fit into the socket's buffers.
const SMALL_BYTES: u64 = 64 * 1024;
/// The most bytes read for nothing; whoever sends more is cut off.
const MOST_BYTES: usize = 16 * 1024 * 1024;

pub(super) async fn drain(request: Request, next: Next) -> Response {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes < SMALL_BYTES) || request.method().is_safe() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let rest = Arc::new(Mutex::new(body.into_data_stream()));
    let body = Body::from_stream(shared(Arc::clone(&rest)));
    let response = next.run(Request::from_parts(parts, body)).await;
    let mut rest = rest.lock().await;
    let mut left = MOST_BYTES;
    while left > 0 {
        match rest.next().await {
            Some(Ok(bytes)) => left = left.saturating_sub(bytes.len().max(1)),
            Some(Err(_)) | None => break,
        }
    }
    response
}

fn shared(rest: Arc<Mutex<BodyDataStream>>) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    stream::unfold(rest, |rest| async move {
        let next = rest.lock().await.next().await;
        next.map(|bytes| (bytes, rest))
    })
}
