//! Whom a list is for, what comes back, and the buffers in between.

use super::catalogue::Binding;
use super::features::COLUMNS;
use super::features::alike::Neighbours;
use super::features::row::ListStats;
use crate::live::{HistoryEntry, LiveState};

/// Whom to score for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// Live items the person acted on, oldest first.
    pub history: &'a [HistoryEntry],
    /// Live items never to be suggested again, ascending.
    pub seen: &'a [u32],
    /// Acts ever made, of which `history` may hold only the newest.
    pub length: usize,
    /// Genres asked for (bits as in the catalogue); 0 for no wish.
    pub genres: u32,
    /// The live user, who is not a neighbour of their own.
    pub user: Option<u32>,
}

impl<'a> Context<'a> {
    /// A user of the live state; an unknown one has no history and gets the fallback.
    #[must_use]
    pub fn of_user(live: &'a LiveState, user: u32) -> Self {
        Self {
            history: live.history(user),
            seen: live.seen(user),
            length: live.history_len(user),
            genres: 0,
            user: Some(user),
        }
    }

    /// Somebody known only by this history (seed items, a session).
    #[must_use]
    pub fn of_history(history: &'a [HistoryEntry]) -> Self {
        Self {
            history,
            seen: &[],
            length: history.len(),
            genres: 0,
            user: None,
        }
    }

    /// The same person, asking for these genres.
    #[must_use]
    pub fn with_genres(self, genres: u32) -> Self {
        Self { genres, ..self }
    }

    /// Whether the item was seen or stands in the history.
    #[must_use]
    pub fn is_seen(&self, item: u32) -> bool {
        self.seen.binary_search(&item).is_ok()
            || (self.seen.is_empty() && self.history.iter().any(|entry| entry.item == item))
    }
}

/// One scoring task.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// How the live items map to the model's; scores are in its order.
    pub binding: &'a Binding,
    /// The state as of now.
    pub live: &'a LiveState,
    /// Whom to score for.
    pub context: Context<'a>,
    /// Event time of the request, milliseconds; not before the state's newest event, or decays run backwards.
    pub now_ms: i64,
}

/// Why an answer is not personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// No history: decayed popularity.
    Popularity,
    /// No history, genres given: decayed popularity, those genres first.
    GenrePopularity,
}

/// One suggested item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recommended {
    /// Live dense index.
    pub item: u32,
    /// Comparable within one list only.
    pub score: f32,
}

/// A list of suggestions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recommendations {
    /// Best first.
    pub items: Vec<Recommended>,
    /// Why the list is not personal; `None` when it is.
    pub fallback: Option<Fallback>,
}

/// Buffers of one scoring thread. Reuse them: scoring then does not allocate.
#[derive(Debug, Clone, Default)]
pub struct ScoreScratch {
    /// One column per source, each as long as the binding.
    pub(crate) columns: Vec<Vec<f32>>,
    pub(crate) scores: Vec<f32>,
    pub(crate) order: Vec<u32>,
    pub(crate) core_scores: Vec<f32>,
    pub(crate) past: Vec<(u32, f32)>,
    pub(crate) alike: Neighbours,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) stats: ListStats,
    pub(crate) rows: Vec<f32>,
    pub(crate) ranked: Vec<f32>,
}

impl ScoreScratch {
    /// Empty buffers; they grow at the first call.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Why the last scores are not personal; `None` when they are.
    #[must_use]
    pub fn fallback(&self) -> Option<Fallback> {
        self.fallback
    }

    /// The last scores, by live index.
    #[must_use]
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    pub(crate) fn reset(&mut self, items: usize) {
        self.columns.resize_with(COLUMNS, Vec::new);
        for column in &mut self.columns {
            column.clear();
            column.resize(items, 0.0);
        }
        self.scores.clear();
        self.scores.resize(items, 0.0);
        self.fallback = None;
    }

    /// Leaves in `order` the `k` best items by the last scores that `skip` lets pass, best first, ties by index.
    pub(crate) fn select(&mut self, k: usize, skip: impl Fn(u32) -> bool) {
        let scores = &self.scores;
        self.order.clear();
        self.order
            .extend((0..scores.len() as u32).filter(|&item| !skip(item)));
        let best = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
        if self.order.len() > k && k > 0 {
            self.order.select_nth_unstable_by(k - 1, best);
        }
        self.order.truncate(k);
        self.order.sort_unstable_by(best);
    }

    /// The `k` best of the last scores that `skip` lets pass, best first, ties by index.
    pub fn top(&mut self, k: usize, skip: impl Fn(u32) -> bool) -> Vec<Recommended> {
        self.select(k, skip);
        self.order
            .iter()
            .map(|&item| Recommended {
                item,
                score: self.scores[item as usize],
            })
            .collect()
    }
}
