//! One column of numbers per source, over all live items.

pub(crate) mod alike;
mod content;
mod pairwise;
mod popular;
pub(crate) mod row;

use super::context::{Fallback, Query, ScoreScratch};
use super::generators::Generators;

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
        const _: () = assert!([$(Column::$name,)*].len() == COLUMNS);
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

/// Fills `scratch.columns`, and sets the fallback.
pub(crate) fn compute(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    compute_pairwise(generators, query, scratch);
    popular::fill(query, &mut scratch.columns);
    content::fill(query, &mut scratch.columns);
}

/// As [`compute`], the [`PAIRWISE`] columns only; the others stay zero.
pub(crate) fn compute_pairwise(generators: &Generators, query: &Query<'_>, scratch: &mut ScoreScratch) {
    scratch.reset(query.binding.len());
    scratch.fallback = match (query.context.history.is_empty(), query.context.genres) {
        (false, _) => None,
        (true, 0) => Some(Fallback::Popularity),
        (true, _) => Some(Fallback::GenrePopularity),
    };
    pairwise::transitions(query, &mut scratch.columns);
    pairwise::ease(generators, query, scratch);
    pairwise::next_item(generators, query, scratch);
    alike::fill(query, &mut scratch.alike, &mut scratch.columns);
}
