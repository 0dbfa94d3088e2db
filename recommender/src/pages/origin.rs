//! Which page sent a request.
//!
//! A form of any site may be sent here, and the browser sends it along with what only its user can reach, a recommender
//! on a loopback address for example. Browsers say where a request comes from: newer ones in `Sec-Fetch-Site`, where the
//! connection can be trusted, all current ones in `Origin`. Clients that say neither are no browsers that a foreign page
//! could use.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use crate::http::{AppState, Problem};

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Proof that no other site's page sent the request.
#[derive(Debug)]
pub(super) struct OwnPage;

impl FromRequestParts<AppState> for OwnPage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        if is_own(&parts.headers) {
            Ok(Self)
        } else {
            Err(Problem::cross_site())
        }
    }
}

fn is_own(headers: &HeaderMap) -> bool {
    // `none`: a person, not a page.
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    // The scheme is not told of the request: it may have come through a proxy that speaks TLS.
    let of = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    matches!((of, host), (Some((_, of)), Some(host)) if of.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_foreign_pages_when_the_browser_says_so() {
        let own = |told: &[(&'static str, &str)]| {
            let headers = told.iter().map(|&(name, value)| {
                let value = value.parse().unwrap();
                (name.parse::<header::HeaderName>().unwrap(), value)
            });
            is_own(&headers.collect())
        };
        let host = ("host", "movies.example:8080");
        assert!(own(&[host]), "no browser");
        for (site, expected) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("", false),
        ] {
            let told = [
                host,
                ("origin", "http://movies.example:8080"),
                ("sec-fetch-site", site),
            ];
            assert_eq!(own(&told), expected, "{site:?}");
        }
        for (origin, expected) in [
            ("http://movies.example:8080", true),
            ("https://Movies.Example:8080", true),
            ("http://movies.example", false),
            ("http://movies.example:8080.evil.example", false),
            ("http://evil.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(own(&[host, ("origin", origin)]), expected, "{origin:?}");
        }
        assert!(
            !own(&[("origin", "http://movies.example:8080")]),
            "without a host"
        );
    }
}
