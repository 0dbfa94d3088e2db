//! One column of numbers per source, over all live items or over a pool of them.
//!
//! Columns up to [`Column::Position`] are *scores*: what they mean depends on how large they are beside those of all
//! items, so their mean and spread are taken over all items, whoever has a place. The others are *facts* (`Facts`),
//! computed for the items whose fact is asked for.

pub(crate) mod alike;
pub(crate) mod facts;
mod pairwise;
mod popular;
pub(crate) mod row;

use super::context::{Fallback, Query, ScoreScratch};
use super::generators::Generators;
use super::places::{Places, Pool, Whole};

macro_rules! columns {
    ($($name:ident = $label:literal,)*) => {
        /// Where each source's column is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        #[expect(missing_docs, reason = "the labels below say what they are")]
        pub enum Column { $($name,)* }

        /// Stable names, as explanations and settings show them.
        pub(crate) const NAMES: &[&str] = &[$($label,)*];
        /// Number of columns.
        pub(crate) const COLUMNS: usize = NAMES.len();
        /// All of them, in order.
        pub(crate) const ALL: [Column; COLUMNS] = [$(Column::$name,)*];
    };
}

columns! {
    After = "follows",
    Next = "follows-directly",
    Before = "precedes",
    LikedAfter = "liked-together",
    LastAfter = "follows-the-last",
    LastBefore = "precedes-the-last",
    Ease = "tastes-like-recent",
    EaseLong = "tastes-like-all",
    EaseLikes = "tastes-like-likes",
    NextItem = "expected-next",
    SecondAfter = "follows-the-second-last",
    ThirdAfter = "follows-the-third-last",
    AlikeNext = "next-for-people-alike",
    AlikeNear = "near-for-people-alike",
    AlikeFresh = "lately-near-for-people-alike",
    AlikeEver = "seen-by-people-alike",
    Likes1h = "popular-1h",
    Likes6h = "popular-6h",
    Likes1d = "popular-1d",
    Likes7d = "popular-7d",
    Likes30d = "popular-30d",
    Likes365d = "popular-365d",
    Acts1h = "watched-1h",
    Acts1d = "watched-1d",
    Acts30d = "watched-30d",
    Position = "usual-at-this-point",
    PositionLift = "typical-of-this-point",
    Count = "how-well-known",
    LikeShare = "like-share",
    MeanRating = "mean-rating",
    Idle = "time-since-anybody",
    Age = "time-in-catalogue",
    Genre = "genre-affinity",
    GenreRecent = "genre-affinity-recent",
    Year = "year",
    YearGap = "year-distance",
    YearGapRecent = "year-distance-recent",
    IdGap = "id-distance",
    IdGapLeast = "id-distance-least",
    Wish = "wanted-genre",
}

/// Columns that compare an item with the history by what others did.
pub(crate) const PAIRWISE: std::ops::Range<usize> = 0..(Column::AlikeEver as usize + 1);

/// Columns that say something only relative to their list; the others are facts.
pub(crate) const SCORES: usize = Column::Position as usize + 1;

/// Fills the columns of the scores, and those facts over all items that `whole` asks for, with the moments of each; sets
/// the fallback.
pub(crate) fn compute(
    generators: &Generators,
    query: &Query<'_>,
    whole: impl Fn(usize) -> bool,
    scratch: &mut ScoreScratch,
) {
    let items = query.binding.len();
    scratch.reset(items);
    scratch.alike.search(query);
    fill_pairwise(generators, query, Whole(items), scratch);
    popular::fill(query, Whole(items), &mut scratch.columns);
    let facts = facts::Facts::new(query);
    for column in &ALL[SCORES..] {
        let values = &mut scratch.columns[*column as usize];
        if whole(*column as usize) {
            values.extend((0..items as u32).map(|item| facts.value(*column, item)));
        }
    }
    scratch.measure(0..COLUMNS);
}

/// As [`compute`] without facts, for a pool: of what the history leads to, of the leaders of those columns of popularity
/// that `reads` asks for, and of `others`.
pub(crate) fn compute_pool(
    generators: &Generators,
    query: &Query<'_>,
    reads: impl Fn(usize) -> bool,
    others: &[u32],
    scratch: &mut ScoreScratch,
) {
    let mut pool = led_to(generators, query, scratch);
    popular::gather(query, reads, &mut pool);
    for &item in others {
        pool.add(item);
    }
    scratch.reset_to(&pool, query.binding.len());
    fill_pairwise(generators, query, &pool, scratch);
    popular::fill(query, &pool, &mut scratch.columns);
    scratch.measure(PAIRWISE);
    popular::measure(query, &mut scratch.moments);
    scratch.pool = pool;
}

/// As [`compute`], the [`PAIRWISE`] columns only; the others stay empty.
pub(crate) fn compute_pairwise(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let items = query.binding.len();
    scratch.reset(items);
    scratch.alike.search(query);
    fill_pairwise(generators, query, Whole(items), scratch);
    scratch.measure(PAIRWISE);
}

/// As [`compute_pairwise`], for the pool of what the history leads to: nothing speaks for any other item.
pub(crate) fn compute_pairwise_pool(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let pool = led_to(generators, query, scratch);
    scratch.reset_to(&pool, query.binding.len());
    fill_pairwise(generators, query, &pool, scratch);
    scratch.measure(PAIRWISE);
    scratch.pool = pool;
}

/// The [`PAIRWISE`] columns of some items, by their place among them and without moments. People alike, whose search is
/// most of the work, are asked only where `reads` asks for one of their columns; else these are zero.
pub(crate) fn compute_pairwise_of(
    items: &[u32],
    generators: &Generators,
    query: &Query<'_>,
    reads: impl Fn(usize) -> bool,
    scratch: &mut ScoreScratch,
) {
    let mut pool = std::mem::take(&mut scratch.pool);
    pool.begin(query.binding.len());
    for &item in items {
        pool.add(item);
    }
    if alike::COLUMNS.into_iter().any(|column| reads(column as usize)) {
        scratch.alike.search(query);
    }
    scratch.reset_to(&pool, query.binding.len());
    fill_pairwise(generators, query, &pool, scratch);
    scratch.pool = pool;
}

/// Finds the people alike, and takes out of `scratch` a pool of everything that the history leads to.
fn led_to(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) -> Pool {
    let mut pool = std::mem::take(&mut scratch.pool);
    pool.begin(query.binding.len());
    scratch.alike.search(query);
    pairwise::gather(generators, query, &mut pool);
    scratch.alike.name(query, |item| pool.add(item));
    pool
}

fn fill_pairwise(
    generators: &Generators,
    query: &Query<'_>,
    places: impl Places,
    scratch: &mut ScoreScratch,
) {
    scratch.fallback = match (query.context.history.is_empty(), query.context.genres) {
        (false, _) => None,
        (true, 0) => Some(Fallback::Popularity),
        (true, _) => Some(Fallback::GenrePopularity),
    };
    pairwise::transitions(query, places, scratch);
    pairwise::ease(generators, query, places, scratch);
    pairwise::next_item(generators, query, places, scratch);
    alike::fill(query, places, scratch);
}
