//! What is popular: likes, decayed in event time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use marquee_models::live::HALF_LIVES;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::stopwatch::Stopwatch;
use super::{Answer, Engine, ListItem, PopularAsk, Refused, event_now};
use crate::view::{Generation, ViewState};

/// How quickly the past is forgotten: the half-life of a like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Window {
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
    /// Six hours.
    #[serde(rename = "6h")]
    SixHours,
    /// A day.
    #[serde(rename = "1d")]
    Day,
    /// A week.
    #[serde(rename = "7d")]
    Week,
    /// Thirty days.
    #[default]
    #[serde(rename = "30d")]
    Month,
    /// A year.
    #[serde(rename = "365d")]
    Year,
    /// Nothing is forgotten.
    #[serde(rename = "all")]
    All,
}

const WINDOWS: usize = HALF_LIVES + 1;

impl Window {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::SixHours => "6h",
            Self::Day => "1d",
            Self::Week => "7d",
            Self::Month => "30d",
            Self::Year => "365d",
            Self::All => "all",
        }
    }

    fn slot(self) -> usize {
        match self {
            Self::Hour => 0,
            Self::SixHours => 1,
            Self::Day => 2,
            Self::Week => 3,
            Self::Month => 4,
            Self::Year => 5,
            Self::All => 6,
        }
    }
}

/// Movies by popularity, best first, with their scores.
pub(super) type Ranking = Arc<Vec<(u32, f32)>>;

#[derive(Debug)]
struct Cached {
    interactions: u64,
    generation: Generation,
    made: Instant,
    /// What making it took.
    took: Duration,
    ranking: Ranking,
}

/// Times what making a ranking took, for which it is kept at least: in a large catalogue it is worth more.
const KEPT_PER_COST: u32 = 50;

/// The last ranking per window. Between two events nothing changes but a common factor, so it stays valid; while
/// events come in it is made anew at most once per time to live, and seldom enough to take little of a core.
#[derive(Debug)]
pub(super) struct PopularCache {
    ttl: Duration,
    cached: [Mutex<Option<Cached>>; WINDOWS],
}

impl PopularCache {
    pub(super) fn new(ttl_ms: u64) -> Self {
        Self {
            ttl: Duration::from_millis(ttl_ms),
            cached: Default::default(),
        }
    }

    pub(super) fn ranking(&self, state: &ViewState, window: Window) -> Ranking {
        let slot = window.slot();
        let mut cached = self.cached[slot].lock().unwrap_or_else(PoisonError::into_inner);
        let (interactions, generation) = (state.live.interactions(), state.movies.generation());
        if let Some(cached) = cached.as_ref()
            && cached.generation == generation
            && (cached.interactions == interactions
                || cached.made.elapsed() < self.ttl.max(cached.took * KEPT_PER_COST))
        {
            return Arc::clone(&cached.ranking);
        }
        let begun = Instant::now();
        let ranking = Arc::new(rank(state, slot));
        *cached = Some(Cached {
            interactions,
            generation,
            made: Instant::now(),
            took: begun.elapsed(),
            ranking: Arc::clone(&ranking),
        });
        ranking
    }
}

/// By decayed likes, then by likes ever, then by interactions ever, then by age of the index.
fn rank(state: &ViewState, slot: usize) -> Vec<(u32, f32)> {
    let now = event_now(state);
    let mut all: Vec<_> = (0..state.movies.len() as u32)
        .filter(|&item| state.movies.at(item).is_some())
        .map(|item| {
            let stats = state.live.item_stats(item, now);
            let ever = stats.like_count as f32;
            let score = stats.likes.get(slot).copied().unwrap_or(ever);
            (item, score, stats.like_count, stats.count)
        })
        .collect();
    all.sort_unstable_by(|a, b| {
        b.1.total_cmp(&a.1)
            .then(b.2.cmp(&a.2))
            .then(b.3.cmp(&a.3))
            .then(a.0.cmp(&b.0))
    });
    all.into_iter().map(|(item, score, ..)| (item, score)).collect()
}

impl Engine {
    /// The most popular movies.
    ///
    /// # Errors
    /// [`Refused::InvalidFilter`].
    pub fn popular(&self, ask: &PopularAsk) -> Result<Answer, Refused> {
        let mut watch = Stopwatch::start();
        self.pool.with(|scratch| {
            let state = self.view.read();
            let filter = Filter::compile(&ask.filters, &state)?;
            let allowed = &mut scratch.allowed;
            let candidates = filter.mask(&state, allowed);
            watch.lap("filter");
            let items = self
                .popular
                .ranking(&state, ask.window)
                .iter()
                .filter(|(item, _)| allowed.get(*item as usize).copied().unwrap_or(false))
                .filter_map(|&(item, score)| {
                    Some(ListItem::ranked(state.movies.at(item)?, score, "popularity"))
                })
                .take(ask.k)
                .collect();
            watch.lap("rank");
            Ok(Answer {
                model_version: self.champion.serving().map(|serving| serving.version.clone()),
                as_of_ms: state.as_of_ms(),
                candidates,
                items,
                stages: watch.finish(),
                ..Answer::default()
            })
        })
    }
}
