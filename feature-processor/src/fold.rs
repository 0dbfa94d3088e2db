//! The fold itself: pure functions from a state and an event to the next state.
//!
//! # Late events
//! A user's events arrive in log order, which need not be the order of their event times. An event is *late* when its
//! time lies before the newest one its user already has.
//! - What does not depend on the order is applied as ever: counts, rating sums, first and last seen (minimum and
//!   maximum).
//! - Decayed sums are kept as of the newest event time. A later event first decays the sum over the gap; a late one
//!   is itself discounted by the gap, so that up to rounding the sum is the same in any order.
//! - The history is append-only in applied order; each entry carries its event time.
//! - A late event begins no session.
//! - Rolling windows count an event in the bucket of its own time; one older than the longest window in none.
//! - A late event is no end and no beginning of a transition between movies.
//! - Watchlist and preferences follow log order: the last record wins. A late one would therefore undo what the user
//!   has done since. It is applied within `max_lateness_ms` of the user's newest event (the watermark of this user),
//!   which forgives what producers' clocks and queues do, and dead-lettered as `too_late` beyond.
//!
//! Late events are counted ([`crate::Counters::late`]). The watermark is each user's own, so history that is replayed
//! after newer events of other users is not late, and ratings, views and the like are applied however old they are.

mod global;
mod movie;
mod rolling;
mod transitions;
mod user;

pub use global::{GlobalState, GlobalSummary};
pub use movie::{MovieState, MovieSummary, POPULARITY_HALF_LIVES_DAYS, summarise};
pub use rolling::{ROLLING_SPANS_MS, Rolling};
pub use transitions::{TRANSITIONS_KEPT, Transition, TransitionRow, follow};
pub use user::{Genre, UserState, genre_strength};

/// A gap of more than this begins a new session, ms.
pub(crate) const SESSION_GAP_MS: i64 = 30 * 60 * 1000;

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;

/// What is left of 1 after `gap_ms` at a half-life in days: `2^(-gap / half-life)`.
fn decay(gap_ms: i64, half_life_days: f64) -> f64 {
    if gap_ms == 0 {
        1.0
    } else {
        (-(gap_ms as f64) / (half_life_days * DAY_MS)).exp2()
    }
}
