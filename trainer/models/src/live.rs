//! The streaming state that evaluation and serving fold alike: who saw what, what is popular now, what follows what.
//!
//! Everything is a left fold of [`LiveState::observe`] over interactions, in event time, without a clock or
//! randomness: the same interactions in the same order give the same state, bit for bit.
//!
//! # Late events
//! An interaction is *late* when it is older than the newest one of the same user. A late interaction
//! - enters the user's history at its place in time, the seen set, and every order-free statistic of its item
//!   (counts, ratings, visits, decayed popularity: [forward decay](decay) makes these sums, so order cannot matter);
//! - leaves order-dependent state alone: no transition is learned from or to it, and no position statistic. The
//!   transitions that were learned while it was missing stay as they were.
//!
//! Events of one user that carry the same time are not late, and have no order among themselves: see
//! [`crate::transitions`].

pub mod decay;
mod items;
mod sums;
mod time_log;
mod users;
mod visits;

pub use items::ItemStats;
pub use users::HistoryEntry;
pub(crate) use users::Step;
pub use visits::Visit;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::transitions::{TransitionParams, Transitions};
use decay::ForwardDecay;
pub(crate) use items::{ItemState, Items};
pub(crate) use sums::Sums;
use time_log::TimeLog;
use users::UserState;

/// Number of half-lives at which popularity is kept.
pub const HALF_LIVES: usize = 6;
/// Number of history-length buckets of the position statistic, see [`position_bucket`].
pub const POSITION_BUCKETS: usize = 8;
/// A rating at or above this is a *like* (the evaluation's positive).
pub const LIKE_RATING: f32 = 4.0;
/// Without a rating, a weight at or above this is a like.
pub const LIKE_WEIGHT: f32 = 0.5;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// One user's act on one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction {
    /// Dense user index, assigned by the caller, append-only.
    pub user: u32,
    /// Dense item index, assigned by the caller, append-only.
    pub item: u32,
    /// Stars, 0.5 to 5, when the act was a rating.
    pub rating: Option<f32>,
    /// Strength of the act by its kind: 1 for a like or a rating, less for a view, negative for a dislike.
    pub weight: f32,
    /// Event time, milliseconds since the epoch.
    pub time_ms: i64,
}

impl Interaction {
    /// Whether this is a *positive*: a rating of four or more, or without a rating a weight of at least
    /// [`LIKE_WEIGHT`].
    #[must_use]
    pub fn is_like(&self) -> bool {
        is_like(self.rating, self.weight)
    }
}

/// The like rule of [`Interaction::is_like`] on its parts.
#[must_use]
pub fn is_like(rating: Option<f32>, weight: f32) -> bool {
    rating.map_or(weight >= LIKE_WEIGHT, |stars| stars >= LIKE_RATING)
}

/// Bucket of a history length for the position statistic: 0, 1, 2–4, 5–9, 10–19, 20–49, 50–119, 120 and more.
#[must_use]
pub fn position_bucket(history_len: usize) -> usize {
    match history_len {
        0 => 0,
        1 => 1,
        2..=4 => 2,
        5..=9 => 3,
        10..=19 => 4,
        20..=49 => 5,
        50..=119 => 6,
        _ => 7,
    }
}

/// Unchecked settings of a [`LiveState`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveParams {
    /// Newest history entries kept per user (the seen set is always complete).
    pub history_limit: usize,
    /// A pause of more than this starts a new session, milliseconds.
    pub session_gap_ms: i64,
    /// Half-lives of decayed popularity, milliseconds, ascending.
    pub half_lives_ms: [i64; HALF_LIVES],
    /// Half-life of the position statistic, milliseconds.
    pub position_half_life_ms: i64,
    /// Newest visits kept per item: among these people, those alike are looked for.
    pub visit_limit: usize,
    /// Item-to-item transition counts.
    pub transitions: TransitionParams,
}

impl Default for LiveParams {
    fn default() -> Self {
        Self {
            history_limit: 512,
            session_gap_ms: HOUR_MS / 2,
            half_lives_ms: [
                HOUR_MS,
                6 * HOUR_MS,
                DAY_MS,
                7 * DAY_MS,
                30 * DAY_MS,
                365 * DAY_MS,
            ],
            position_half_life_ms: 60 * DAY_MS,
            visit_limit: 400,
            transitions: TransitionParams::default(),
        }
    }
}

impl LiveParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        let positive = |name: &'static str, value: i64| {
            if value > 0 {
                Ok(())
            } else {
                Err(Error::Hyperparameter {
                    name,
                    value: value.to_string(),
                    requirement: "greater than zero",
                })
            }
        };
        positive(
            "history_limit",
            i64::try_from(self.history_limit).unwrap_or(i64::MAX),
        )?;
        positive("visit_limit", i64::try_from(self.visit_limit).unwrap_or(i64::MAX))?;
        positive("session_gap_ms", self.session_gap_ms)?;
        positive("position_half_life_ms", self.position_half_life_ms)?;
        for half_life in self.half_lives_ms {
            positive("half_lives_ms", half_life)?;
        }
        self.transitions.check()
    }
}

/// What [`LiveState::observe`] did with an interaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// It is the newest of its user: everything was updated.
    InOrder,
    /// It is older than its user's newest: only order-free state was updated.
    Late,
}

/// The streaming state. See the [module](self) for its rules. What it is serialised to is for the same version of this
/// library alone, and is not checked when read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveState {
    params: LiveParams,
    users: Vec<UserState>,
    items: Items,
    visits: Vec<TimeLog<Visit>>,
    popularity_decay: [ForwardDecay; HALF_LIVES],
    position_decay: ForwardDecay,
    transitions: Transitions,
    interactions: u64,
    likes: u64,
    last_event_ms: Option<i64>,
}

impl LiveState {
    /// An empty state.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] when a setting is out of its domain.
    pub fn new(params: LiveParams) -> Result<Self, Error> {
        params.check()?;
        Ok(Self {
            popularity_decay: params.half_lives_ms.map(ForwardDecay::new),
            position_decay: ForwardDecay::new(params.position_half_life_ms),
            transitions: Transitions::new(params.transitions.clone())?,
            params,
            users: Vec::new(),
            items: Items::default(),
            visits: Vec::new(),
            interactions: 0,
            likes: 0,
            last_event_ms: None,
        })
    }

    /// The settings it was made with.
    #[must_use]
    pub fn params(&self) -> &LiveParams {
        &self.params
    }

    /// Number of users, counted by the largest index met.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Number of items, counted by the largest index met or announced.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// Interactions folded in so far.
    #[must_use]
    pub fn interactions(&self) -> u64 {
        self.interactions
    }

    /// Newest event time met, milliseconds; `None` before the first event.
    #[must_use]
    pub fn last_event_ms(&self) -> Option<i64> {
        self.last_event_ms
    }

    /// Announces that items `0..items` exist, so that items nobody touched yet can be scored.
    pub fn ensure_items(&mut self, items: usize) {
        if self.items.len() < items {
            self.items.grow(items);
            self.visits.resize_with(items, TimeLog::default);
        }
    }

    /// Folds one interaction in; microseconds, independent of the size of the state (amortised).
    pub fn observe(&mut self, event: &Interaction) -> Observed {
        let like = event.is_like();
        self.ensure_items(event.item as usize + 1);
        if self.users.len() <= event.user as usize {
            self.users
                .resize_with(event.user as usize + 1, UserState::default);
        }
        self.interactions += 1;
        self.likes += u64::from(like);
        self.last_event_ms = Some(
            self.last_event_ms
                .map_or(event.time_ms, |last| last.max(event.time_ms)),
        );

        for slot in 0..HALF_LIVES {
            let weight = self.popularity_decay[slot].weight(event.time_ms);
            self.items.add_popularity(slot, event.item, weight, like);
        }
        self.items.count(event, like);

        let entry = HistoryEntry {
            item: event.item,
            rating: event.rating,
            weight: event.weight,
            time_ms: event.time_ms,
        };
        let user = &mut self.users[event.user as usize];
        let late = user.last_ms().is_some_and(|last| event.time_ms < last);
        if !late {
            let weight = self.position_decay.weight(event.time_ms);
            let bucket = position_bucket(user.length());
            self.items.add_position(bucket, event.item, weight);
            self.transitions.observe(user.history(), &entry);
        }
        user.insert(entry, self.params.history_limit);
        self.visits[event.item as usize].insert(
            Visit {
                user: event.user,
                like,
                time_ms: event.time_ms,
            },
            self.params.visit_limit,
        );
        if late { Observed::Late } else { Observed::InOrder }
    }

    /// [`Self::history`], briefly.
    pub(crate) fn steps(&self, user: u32) -> &[Step] {
        self.users.get(user as usize).map_or(&[], UserState::steps)
    }

    /// The user's newest interactions, oldest first; empty for an unknown or forgotten user.
    #[must_use]
    pub fn history(&self, user: u32) -> &[HistoryEntry] {
        self.users.get(user as usize).map_or(&[], UserState::history)
    }

    /// Every item the user ever touched, ascending.
    #[must_use]
    pub fn seen(&self, user: u32) -> &[u32] {
        self.users.get(user as usize).map_or(&[], UserState::seen)
    }

    /// Who came to the item lately, oldest first.
    #[must_use]
    pub fn visits(&self, item: u32) -> &[Visit] {
        self.visits.get(item as usize).map_or(&[], TimeLog::entries)
    }

    /// Whether the user ever touched the item.
    #[must_use]
    pub fn is_seen(&self, user: u32, item: u32) -> bool {
        self.seen(user).binary_search(&item).is_ok()
    }

    /// Number of interactions the user ever made (the history keeps only the newest of them).
    #[must_use]
    pub fn history_len(&self, user: u32) -> usize {
        self.users.get(user as usize).map_or(0, UserState::length)
    }

    /// Statistics of an item as of `now_ms`; all zero for an item never met.
    #[must_use]
    pub fn item_stats(&self, item: u32, now_ms: i64) -> ItemStats {
        let factors = self.popularity_factors(now_ms);
        self.items.stats(item, &factors).unwrap_or_default()
    }

    /// Interactions that an item ever had.
    #[must_use]
    pub fn item_count(&self, item: u32) -> u32 {
        self.items.get(item).map_or(0, |state| state.count)
    }

    /// Item-to-item transition counts.
    #[must_use]
    pub fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    /// Forgets a user: history and seen set go. What the user's acts added to item statistics and transitions is an
    /// anonymous sum by then and stays. Returns whether there was anything to forget.
    pub fn forget(&mut self, user: u32) -> bool {
        match self.users.get_mut(user as usize) {
            Some(state) if state.length() > 0 => {
                *state = UserState::default();
                true
            }
            _ => false,
        }
    }

    /// Factors that bring stored popularity sums to `now_ms`.
    pub(crate) fn popularity_factors(&self, now_ms: i64) -> [f64; HALF_LIVES] {
        std::array::from_fn(|slot| self.popularity_decay[slot].read_factor(now_ms))
    }

    /// Factor that brings stored position sums to `now_ms`.
    pub(crate) fn position_factor(&self, now_ms: i64) -> f64 {
        self.position_decay.read_factor(now_ms)
    }

    pub(crate) fn item_columns(&self) -> &Items {
        &self.items
    }

    /// Share of likes among all interactions, the prior of an item's like-share.
    pub(crate) fn like_share(&self) -> f32 {
        if self.interactions == 0 {
            0.5
        } else {
            (self.likes as f64 / self.interactions as f64) as f32
        }
    }
}

#[cfg(test)]
mod tests;
