//! What is watched, and how an observation falls into bins.

use std::collections::BTreeMap;
use std::sync::Arc;

use marquee_schemas::{Kind, MovieId};
use serde::{Deserialize, Serialize};

use super::observation::{Fate, Observation};
use super::tally::scatter;
use crate::wire::{Reader, Writer};

/// Looks up a movie's genres; `None` for a movie that the catalogue no longer holds.
pub type GenresOf<'a> = &'a dyn Fn(MovieId) -> Option<&'a [Arc<str>]>;

/// Which half of the reference's users ranks the movies.
const HALF_SALT: u64 = 0x6d61_7271_7565_6532;

/// Bins of equal mass that the movies are ranked into.
const DECILES: usize = 10;

/// Upper ends of the tenure buckets, ms; what is longer falls into one more.
const TENURE_MS: [i64; 5] = [
    3_600_000,
    86_400_000,
    7 * 86_400_000,
    30 * 86_400_000,
    90 * 86_400_000,
];

/// A distribution that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Stars given, in steps of one half.
    Rating,
    /// Genres of the movies in histories; a movie counts in each of its genres.
    Genre,
    /// How popular the movies in histories were when the model was trained: tenths of all events, the most popular
    /// movies first, and one bin for movies without any.
    PopularityDecile,
    /// Time since the user's first event.
    Tenure,
    /// Events that are their user's first, against all others.
    NewUser,
    /// Events about movies that were unknown to the reference, against all others.
    NewMovie,
    /// Genres of the movies put on watchlists.
    WatchlistGenre,
    /// Records refused, against those applied.
    Invalid,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 8] = [
        Feature::Rating,
        Feature::Genre,
        Feature::PopularityDecile,
        Feature::Tenure,
        Feature::NewUser,
        Feature::NewMovie,
        Feature::WatchlistGenre,
        Feature::Invalid,
    ];

    /// The name in events and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Feature::Rating => "rating",
            Feature::Genre => "genre",
            Feature::PopularityDecile => "popularity_decile",
            Feature::Tenure => "tenure",
            Feature::NewUser => "new_user",
            Feature::NewMovie => "new_movie",
            Feature::WatchlistGenre => "watchlist_genre",
            Feature::Invalid => "invalid",
        }
    }
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The bins of every feature, frozen with the reference.
///
/// Movies are ranked by the events of *one half* of the reference's users, and only the other half enters the
/// reference's histogram of what depends on that ranking: otherwise no reference event could be about an unranked
/// movie, every later window would have some, and the difference would be taken for drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binner {
    genres: BTreeMap<Arc<str>, usize>,
    deciles: BTreeMap<u32, u8>,
}

impl Binner {
    /// The bins that follow from these observations.
    #[must_use]
    pub fn fit(reference: &[Observation], genres_of: GenresOf<'_>) -> Self {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        let mut genres: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for observation in reference.iter().filter(|observation| observation.is_history()) {
            if ranks(observation.user) {
                *counts.entry(observation.movie).or_default() += 1;
            }
            for genre in genres_of(MovieId(observation.movie)).unwrap_or_default() {
                genres.entry(Arc::clone(genre)).or_default();
            }
        }
        for (number, bin) in genres.values_mut().enumerate() {
            *bin = number;
        }
        let total: u64 = counts.values().sum();
        let mut ranked: Vec<(u32, u64)> = counts.into_iter().collect();
        ranked.sort_unstable_by_key(|&(movie, count)| (std::cmp::Reverse(count), movie));
        let mut above = 0;
        let deciles = ranked
            .into_iter()
            .map(|(movie, count)| {
                // The tenth that holds the movie's first event.
                let decile = above * DECILES as u64 / total;
                above += count;
                (movie, u8::try_from(decile).unwrap_or(u8::MAX))
            })
            .collect();
        Self { genres, deciles }
    }

    /// Whether the movie has been ranked.
    #[must_use]
    pub fn knows(&self, movie: u32) -> bool {
        self.deciles.contains_key(&movie)
    }

    /// Number of bins of a feature.
    #[must_use]
    pub fn bins(&self, feature: Feature) -> usize {
        match feature {
            Feature::Rating => 10,
            // One more for genres that appeared later.
            Feature::Genre | Feature::WatchlistGenre => self.genres.len() + 1,
            Feature::PopularityDecile => DECILES + 1,
            Feature::Tenure => TENURE_MS.len() + 1,
            Feature::NewUser | Feature::NewMovie | Feature::Invalid => 2,
        }
    }

    /// Calls `each` for every bin that the observation falls into. `reference` says that the observation is one of
    /// the reference's own.
    pub fn bin(
        &self,
        observation: &Observation,
        reference: bool,
        genres_of: GenresOf<'_>,
        mut each: impl FnMut(Feature, usize),
    ) {
        each(
            Feature::Invalid,
            usize::from(matches!(observation.fate, Fate::Refused(_))),
        );
        let Fate::Applied(kind) = observation.fate else {
            return;
        };
        let genres = || genres_of(MovieId(observation.movie)).unwrap_or_default();
        let genre_bin = |genre: &Arc<str>| self.genres.get(genre).copied().unwrap_or(self.genres.len());
        if kind == Kind::WatchlistAdd {
            for genre in genres() {
                each(Feature::WatchlistGenre, genre_bin(genre));
            }
        }
        each(Feature::NewUser, usize::from(!observation.first));
        if !kind.is_history() {
            return;
        }
        if kind == Kind::Rating {
            each(
                Feature::Rating,
                usize::from(observation.half_stars).saturating_sub(1),
            );
        }
        for genre in genres() {
            each(Feature::Genre, genre_bin(genre));
        }
        each(
            Feature::Tenure,
            TENURE_MS
                .iter()
                .position(|&end| observation.tenure_ms < end)
                .unwrap_or(TENURE_MS.len()),
        );
        if !(reference && ranks(observation.user)) {
            let decile = self.deciles.get(&observation.movie);
            each(
                Feature::PopularityDecile,
                decile.map_or(DECILES, |&decile| usize::from(decile)),
            );
            each(Feature::NewMovie, usize::from(decile.is_some()));
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.len(self.genres.len());
        // In the order of their bins.
        for genre in self.genres.keys() {
            writer.bytes(genre.as_bytes());
        }
        writer.len(self.deciles.len());
        for (&movie, &decile) in &self.deciles {
            writer.count(u64::from(movie));
            writer.u8(decile);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let genres = (0..reader.len(1)?)
            .map(|bin| Some((Arc::from(reader.string()?), bin)))
            .collect::<Option<_>>()?;
        let deciles = (0..reader.len(2)?)
            .map(|_| {
                let movie = u32::try_from(reader.count()?).ok()?;
                let decile = reader.u8()?;
                (usize::from(decile) < DECILES).then_some((movie, decile))
            })
            .collect::<Option<_>>()?;
        Some(Self { genres, deciles })
    }
}

/// Whether this user's events rank the movies of a reference.
fn ranks(user: u64) -> bool {
    scatter(user ^ HALF_SALT) & 1 == 0
}
