//! A training set that its offsets name.
//!
//! Everything of `interactions` below the named offsets, decoded, each event id once (the first in partition and
//! offset order), in the order of event time, then partition, then offset. Users and items get dense indices by
//! ascending id, the items being the catalogue. The same offsets therefore give the same snapshot, whoever reads it
//! and in which order the partitions arrive.
//!
//! Left out, and counted: records that break the contract or whose event time lies more than a day after the moment
//! at which the broker got them; kinds that make no history; movies that the catalogue does not have *now*. A movie
//! that arrives later is picked up, with all its earlier interactions, by the next snapshot.
//!
//! Left out and counted are also the interactions of users who were erased: a tombstone below the named offsets takes
//! away what its user did at smaller offsets of its partition, as in the feature store. One beyond them does not, or
//! the same offsets would not give the same snapshot: a model learns of an erasure with the next training.
//!
//! `movies` is compacted, so its offsets do not name a catalogue for ever; a bundle therefore carries its catalogue.

mod cache;
mod erasure;
mod reader;
mod row;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use marquee_models::live::Interaction;
use marquee_models::served::{Catalogue, CatalogueItem};
use marquee_schemas::{Movie, MovieId, PartitionOffset, Topic, UserId};

pub use erasure::Erasure;
pub use reader::{SnapshotReader, bounds_of};
pub use row::Row;

use crate::bundle::Counts;
use crate::{GenreVocabulary, signal};

/// A training set in memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// What names it: every partition of `interactions` and `movies`.
    pub offsets: Vec<PartitionOffset>,
    /// What became of the records.
    pub counts: Counts,
    /// Dense user index → user, ascending.
    pub users: Vec<UserId>,
    /// Dense item index → movie, ascending by id.
    pub movies: Vec<Movie>,
    /// Genre bits of `catalogue`.
    pub genres: GenreVocabulary,
    /// The same movies as the models want them.
    pub catalogue: Catalogue,
    /// What the models learn from, in order.
    pub interactions: Vec<Interaction>,
    /// Partition and offset of each interaction.
    pub origins: Vec<(i32, i64)>,
}

/// Records below the named offsets, as far as they could be decoded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    /// Decoded records of all partitions, in any order.
    pub rows: Vec<Row>,
    /// Records that could not be decoded.
    pub invalid: u64,
    /// Records that ask to forget a user, in any order.
    pub erasures: Vec<Erasure>,
}

impl Snapshot {
    /// Builds the snapshot of these records. The order of rows, erasures and `movies` does not matter.
    #[must_use]
    pub fn assemble(rows: Rows, mut movies: Vec<Movie>, mut offsets: Vec<PartitionOffset>) -> Self {
        offsets.sort_unstable();
        movies.sort_by_key(|movie| movie.movie_id);
        movies.dedup_by_key(|movie| movie.movie_id);
        let genres = GenreVocabulary::of(&movies);
        let catalogue = catalogue(&movies, &genres);
        let items: HashMap<u32, u32> = movies
            .iter()
            .zip(0..)
            .map(|(movie, index)| (movie.movie_id.0, index))
            .collect();

        let Rows {
            mut rows,
            invalid,
            erasures,
        } = rows;
        let mut counts = Counts {
            records: (rows.len() + erasures.len()) as u64 + invalid,
            invalid,
            erasures: erasures.len() as u64,
            ..Counts::default()
        };
        rows.sort_unstable_by_key(|row| (row.partition, row.offset));
        let mut ids = HashSet::with_capacity(rows.len());
        rows.retain(|row| {
            let first = ids.insert(row.event);
            counts.duplicates += u64::from(!first);
            first
        });
        drop(ids);
        // After the repetitions: one of an erased event is passed over by the feature store, too.
        let erased = erasure::last_of_each(&erasures);
        rows.retain(|row| {
            let at = erased.get(&(row.partition, row.user));
            let kept = at.is_none_or(|&at| row.offset > at);
            counts.erased += u64::from(!kept);
            kept
        });
        rows.retain(|row| {
            let taught = signal::weight(row.kind).is_some();
            counts.without_signal += u64::from(!taught);
            taught
        });
        rows.retain(|row| {
            let known = row.movie.is_some_and(|movie| items.contains_key(&movie.0));
            counts.unknown_movies += u64::from(!known);
            known
        });
        counts.interactions = rows.len() as u64;
        rows.sort_unstable_by_key(|row| (row.time_ms, row.partition, row.offset));

        let users: Vec<UserId> = rows
            .iter()
            .map(|row| row.user)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let user_index: HashMap<UserId, u32> = users.iter().copied().zip(0..).collect();
        let interactions = rows
            .iter()
            .filter_map(|row| {
                Some(Interaction {
                    user: *user_index.get(&row.user)?,
                    item: *items.get(&row.movie?.0)?,
                    rating: row.rating,
                    weight: signal::weight(row.kind)?,
                    time_ms: row.time_ms,
                })
            })
            .collect();
        Self {
            offsets,
            counts,
            users,
            movies,
            genres,
            catalogue,
            interactions,
            origins: rows.iter().map(|row| (row.partition, row.offset)).collect(),
        }
    }

    /// Event time of the newest interaction, ms; 0 without one.
    #[must_use]
    pub fn until_ms(&self) -> i64 {
        self.interactions.last().map_or(0, |event| event.time_ms)
    }
}

fn catalogue(movies: &[Movie], genres: &GenreVocabulary) -> Catalogue {
    Catalogue::new(
        movies
            .iter()
            .map(|movie| CatalogueItem {
                external_id: movie.movie_id.0,
                year: movie.year,
                genres: genres.mask(&movie.genres),
            })
            .collect(),
    )
}

/// Folds catalogue records in log order: the newest of a movie stays, a tombstone removes it. Records that cannot be
/// decoded are passed over with a warning; the feature processor dead-letters them.
#[derive(Debug, Default)]
pub(crate) struct CatalogueFold(BTreeMap<MovieId, Movie>);

impl CatalogueFold {
    pub(crate) fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        match value
            .filter(|bytes| !bytes.is_empty())
            .map(marquee_schemas::decode::<Movie>)
        {
            Some(Ok(movie)) => {
                self.0.insert(movie.movie_id, movie);
            }
            Some(Err(error)) => tracing::warn!(kafka.topic = %Topic::Movies, %error, "passing over a movie"),
            None => {
                let id = key.and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
                if let Some(id) = id {
                    self.0.remove(&MovieId(id));
                }
            }
        }
    }

    pub(crate) fn into_movies(self) -> Vec<Movie> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
