//! Whom a list is for, what comes back, and the buffers in between.

use super::catalogue::Binding;
use super::features::alike::Neighbours;
use super::features::row::ListStats;
use super::features::{COLUMNS, PAIRWISE};
use super::generators::weights::CoreScores;
use super::places::{Places, Pool};
use crate::kernels::{moments, moments_among, widest};
use crate::live::{HistoryEntry, LiveState};
use crate::metrics::{rank_key, ranked_index};

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
    /// Items bound, scored or not.
    items: usize,
    /// Who is scored, where not everybody is.
    pub(crate) pool: Pool,
    /// Whether not everybody is.
    pooled: bool,
    /// One column per source, with a number per place; empty where it was not computed.
    pub(crate) columns: Vec<Vec<f32>>,
    /// Mean and variance of each column over all items.
    pub(crate) moments: Vec<(f32, f32)>,
    /// Mean of the scores over all items.
    pub(crate) mean_score: f32,
    /// Four columns in the making, side by side: their sources name an item once for all four.
    pub(crate) fours: Vec<[f32; 4]>,
    /// By place.
    pub(crate) scores: Vec<f32>,
    /// Chosen items.
    pub(crate) order: Vec<u32>,
    /// Sort keys of the items in selection: score, then index.
    pub(crate) keys: Vec<u64>,
    /// By item, whether the person has seen it; all false between selections.
    seen: Vec<bool>,
    pub(crate) core_scores: CoreScores,
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

    /// Makes ready for every of `items` items: the columns that compare by what others did are zero, all others empty.
    pub(crate) fn reset(&mut self, items: usize) {
        self.items = items;
        self.pooled = false;
        self.clear(items);
    }

    /// As [`Self::reset`], for those of `items` items that are in `pool`.
    pub(crate) fn reset_to(&mut self, pool: &Pool, items: usize) {
        self.items = items;
        self.pooled = true;
        self.clear(pool.len());
    }

    fn clear(&mut self, places: usize) {
        self.columns.resize_with(COLUMNS, Vec::new);
        for (column, values) in self.columns.iter_mut().enumerate() {
            values.clear();
            if PAIRWISE.contains(&column) {
                values.resize(places, 0.0);
            }
        }
        self.moments.clear();
        self.moments.resize(COLUMNS, (0.0, 0.0));
        self.scores.clear();
        self.scores.resize(places, 0.0);
        self.fallback = None;
    }

    /// The place of a scored item.
    pub(crate) fn place(&self, item: u32) -> usize {
        if self.pooled {
            (&self.pool).place(item)
        } else {
            item as usize
        }
    }

    /// Takes the moments of these columns, where items without a place have zero.
    pub(crate) fn measure(&mut self, columns: std::ops::Range<usize>) {
        for column in columns {
            let values = &self.columns[column];
            let count = if values.is_empty() { 0 } else { self.items };
            self.moments[column] = moments_among(values, count);
        }
    }

    /// Mean and variance of the last scores over all items. Those without a place count with what their mean must be,
    /// as the mean of all is known: what they differ by among themselves is little beside the spread of the others.
    pub(crate) fn score_moments(&self) -> (f32, f32) {
        let (mean, variance) = moments(&self.scores);
        let (count, scored) = (self.items as f32, self.scores.len() as f32);
        let others = count - scored;
        if !self.pooled || others <= 0.0 {
            return (mean, variance);
        }
        let whole = self.mean_score;
        let other = (count * whole - scored * mean) / others;
        let about = |mean: f32| (mean - whole) * (mean - whole);
        let squares = scored * (variance + about(mean)) + others * about(other);
        (whole, squares / count)
    }

    /// Zeroes `fours`, one per place.
    pub(crate) fn begin_fours(&mut self) {
        self.fours.clear();
        self.fours.resize(self.scores.len(), [0.0; 4]);
    }

    /// Moves `fours` into the four columns from `first` on.
    pub(crate) fn end_fours(&mut self, first: usize) {
        let fours = &self.fours;
        for (place, column) in self.columns[first..first + 4].iter_mut().enumerate() {
            widest(
                #[inline(always)]
                || {
                    for (value, four) in column.iter_mut().zip(fours) {
                        *value = four[place];
                    }
                },
            );
        }
    }

    /// Leaves in `order` the `k` best items by the last scores that the person has not seen.
    pub(crate) fn select_unseen(&mut self, k: usize, context: &Context<'_>) {
        let mut seen = std::mem::take(&mut self.seen);
        seen.resize(self.items, false);
        mark(&mut seen, context, true);
        self.select(k, |item| seen[item as usize]);
        mark(&mut seen, context, false);
        self.seen = seen;
    }

    /// Leaves in `order` the `k` best items by the last scores that `skip` lets pass, best first, ties by index.
    pub(crate) fn select(&mut self, k: usize, skip: impl Fn(u32) -> bool) {
        self.order.clear();
        if k == 0 {
            return;
        }
        // Only what may still be among the best is kept: a full buffer is cut to `k`, and the worst left is the bar.
        let room = k.saturating_mul(4).max(256);
        let mut bar = u64::MAX;
        let keys = &mut self.keys;
        keys.clear();
        let mut look = |item: u32, score: f32| {
            let key = rank_key(score, item);
            if key >= bar || skip(item) {
                return;
            }
            keys.push(key);
            if keys.len() == room {
                keys.select_nth_unstable(k - 1);
                keys.truncate(k);
                bar = keys[k - 1];
            }
        };
        if self.pooled {
            let scored = self.pool.items().iter().zip(&self.scores);
            scored.for_each(|(&item, &score)| look(item, score));
        } else {
            let scored = (0_u32..).zip(&self.scores);
            scored.for_each(|(item, &score)| look(item, score));
        }
        keys.sort_unstable();
        keys.truncate(k);
        self.order.extend(keys.iter().map(|&key| ranked_index(key)));
    }

    /// The `k` best of the last scores that `skip` lets pass, best first, ties by index.
    pub fn top(&mut self, k: usize, skip: impl Fn(u32) -> bool) -> Vec<Recommended> {
        self.select(k, skip);
        self.chosen()
    }

    /// The items of `order` with their scores.
    pub(crate) fn chosen(&self) -> Vec<Recommended> {
        self.order
            .iter()
            .map(|&item| Recommended {
                item,
                score: self.scores[self.place(item)],
            })
            .collect()
    }
}

/// Marks what [`Context::is_seen`] tells of.
fn mark(seen: &mut [bool], context: &Context<'_>, as_seen: bool) {
    let history = if context.seen.is_empty() {
        context.history
    } else {
        &[]
    };
    let items = context.seen.iter().copied();
    for item in items.chain(history.iter().map(|entry| entry.item)) {
        if let Some(seen) = seen.get_mut(item as usize) {
            *seen = as_seen;
        }
    }
}
