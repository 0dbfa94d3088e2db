//! What all pages have in common.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use marquee_schemas::UserId;
use maud::{DOCTYPE, Markup, html};

use crate::http::Problem;

/// Everything comes from this server.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Neither inline styles nor code from strings, which the policy forbids.
const HTMX: &str =
    r#"{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true,"timeout":15000}"#;

/// A piece of a page.
pub(crate) fn fragment(markup: Markup) -> Response {
    ([(CONTENT_TYPE, HTML)], markup.into_string()).into_response()
}

/// A whole page; `user` is whom its links are for.
pub(crate) fn page(title: &str, user: Option<UserId>, body: &Markup) -> Response {
    let link = |path: &str| match user {
        Some(user) => format!("{path}?user={user}"),
        None => path.to_owned(),
    };
    let current = |name: &str| (title == name).then_some("page");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="htmx-config" content=(HTMX);
                title { (title) " · marquee" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/ui/assets/style.css";
                script src="/ui/assets/htmx.min.js" defer {}
                script src="/ui/assets/app.js" defer {}
            }
            body {
                header {
                    nav {
                        a.brand href=(link("/")) { "marquee" }
                        @if let Some(user) = user { a href={ "/ui/users/" (user) } aria-current=[current("For you")] { "For user " (user) } }
                        a href=(link("/ui/discover")) aria-current=[current("Discover")] { "Discover" }
                        a href=(link("/ui/popular")) aria-current=[current("Popular")] { "Popular" }
                        a href="/docs" aria-current=[current("Interface")] { "Interface" }
                        span #status hx-get="/ui/status" hx-trigger="load, every 5s" { "…" }
                    }
                }
                main { (body) }
                div #notice role="status" hidden {}
            }
        }
    };
    let mut response = fragment(markup);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// A problem as a page.
#[derive(Debug)]
pub(super) struct PageProblem(Problem);

impl From<Problem> for PageProblem {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for PageProblem {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let mut response = page(
            "Not possible",
            None,
            &html! {
                h1 { (self.0.title()) }
                p { (self.0.detail()) }
                p { a.button href="/" { "To the start" } }
            },
        );
        *response.status_mut() = status;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(axum::http::header::RETRY_AFTER, HeaderValue::from(1));
        }
        response
    }
}
