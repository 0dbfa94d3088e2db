//! One movie on a page, with what one can do about it.

use marquee_schemas::{MovieId, UserId};
use maud::{Markup, html};

use super::query::PageQuery;
use crate::engine::Reason;
use crate::http::ListEntry;

/// Reasons shown of one entry.
const REASONS: usize = 2;

pub(super) fn card(entry: &ListEntry, query: &PageQuery, request_id: &str) -> Markup {
    html! {
        li.card.movie data-movie=(entry.movie_id) {
            h3 { span.rank { (entry.rank + 1) } (movie_link(entry.movie_id, &entry.title, entry.year, query.user())) }
            (genres(&entry.genres))
            @if let Some(reasons) = &entry.reasons {
                ul.why { @for reason in reasons.iter().filter_map(words).take(REASONS) { li { (reason) } } }
            }
            (actions(entry.movie_id, &entry.title, query.user(), Some(request_id)))
        }
    }
}

fn words(reason: &Reason) -> Option<&str> {
    match reason {
        Reason::Because { text, .. } | Reason::Genre { text, .. } | Reason::Popular { text, .. } => {
            Some(text)
        }
        Reason::Term { .. } => None,
    }
}

pub(super) fn movie_link(id: MovieId, title: &str, year: Option<u16>, user: Option<UserId>) -> Markup {
    let query = user.map(|user| format!("?user={user}")).unwrap_or_default();
    html! {
        a href={ "/ui/movies/" (id) (query) } { (title) }
        @if let Some(year) = year { span.muted { " (" (year) ")" } }
    }
}

pub(super) fn genres(names: &[String]) -> Markup {
    html! { div.genres { @for name in names { span { (name) } } } }
}

pub(super) fn nothing(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// Like, watchlist and rate; they need somebody who does.
pub(super) fn actions(movie: MovieId, title: &str, user: Option<UserId>, request_id: Option<&str>) -> Markup {
    let Some(user) = user else {
        return html! { div.actions { a.muted href="/" { "Say who you are to like or rate" } } };
    };
    let answering = request_id
        .map(|id| format!("&request_id={id}"))
        .unwrap_or_default();
    let act = |kind: &str| format!("/ui/act?user={user}&movie={movie}&kind={kind}{answering}");
    html! {
        div.actions {
            button.like type="button" hx-post=(act("like")) hx-swap="none" hx-disabled-elt="this" aria-label={ "Like " (title) } { "♥ Like" }
            button.watchlist type="button" hx-post=(act("watchlist_add")) hx-swap="none" hx-disabled-elt="this" aria-label={ "Put " (title) " on the watchlist" } { "+ Watchlist" }
            span.stars role="group" aria-label={ "Rate " (title) } {
                @for stars in 1..=5 {
                    button type="button" hx-post=(format!("{}&rating={stars}", act("rating"))) hx-swap="none" hx-disabled-elt="this"
                        aria-label={ (stars) @if stars == 1 { " star" } @else { " stars" } } { "★" }
                }
            }
        }
    }
}
