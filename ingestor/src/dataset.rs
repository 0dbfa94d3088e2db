//! Data sets: a catalogue and its ratings in event-time order.
//!
//! ```no_run
//! # fn main() -> Result<(), marquee_ingestor::Error> {
//! let dataset = marquee_ingestor::Dataset::load("data/ml-100k".as_ref())?;
//! println!("{}", dataset.summary());
//! # Ok(()) }
//! ```

mod layout;
mod locate;
mod summary;
#[cfg(test)]
mod tests;
mod text;
mod title;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use marquee_schemas::{Interaction, Kind, Movie, MovieId, SchemaVersion, UserId};

use crate::Error;

pub use locate::locate;
pub(crate) use locate::{check_name, holds_dataset};
pub use summary::Summary;

/// The longest data-set name that goes into event ids, in bytes; keeps them within 128.
const MAX_NAME_BYTES: usize = 48;

/// One rating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rating {
    /// Who.
    pub user_id: UserId,
    /// Which movie.
    pub movie_id: MovieId,
    /// Stars, 0.5 to 5.
    pub rating: f32,
    /// When, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What to do about damaged rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DamagedRows {
    /// The first one is an error.
    #[default]
    Refuse,
    /// They are left out, counted in [`Dataset::skipped_rows`], and the first few are logged.
    Skip,
}

/// A catalogue with its ratings.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// Its name, the directory's.
    pub name: String,
    /// The catalogue, in file order.
    pub movies: Vec<Movie>,
    /// In event-time order, at equal times in file order. The position in here is what a replay resumes at; do not
    /// reorder.
    pub ratings: Vec<Rating>,
    /// Rows left out because they were damaged ([`DamagedRows::Skip`]).
    pub skipped_rows: u64,
    /// Position → how many equal (user, movie, time) came before; almost always empty.
    repeats: HashMap<usize, u32>,
}

impl Dataset {
    /// A data set from its parts; sorts the ratings by time, keeping the order of equal times.
    #[must_use]
    pub fn new(name: impl Into<String>, movies: Vec<Movie>, mut ratings: Vec<Rating>) -> Self {
        ratings.sort_by_key(|rating| rating.timestamp_ms);
        let mut name: String = name.into();
        while name.len() > MAX_NAME_BYTES {
            name.pop();
        }
        Self {
            name,
            movies,
            repeats: repeats(&ratings),
            ratings,
            skipped_rows: 0,
        }
    }

    /// Reads a directory in the layout of ml-100k (`u.data`), ml-1m and ml-10m (`ratings.dat`), or ml-latest and the
    /// others since ml-20m (`ratings.csv`); which one is seen from the files that are there.
    ///
    /// # Errors
    /// [`Error::Layout`] for a directory that is none of these or lacks a file, [`Error::Row`] for the first damaged
    /// row, [`Error::Io`].
    pub fn load(dir: &Path) -> Result<Self, Error> {
        Self::load_with(dir, DamagedRows::Refuse)
    }

    /// [`Dataset::load`] with a choice about damaged rows.
    ///
    /// # Errors
    /// As [`Dataset::load`].
    pub fn load_with(dir: &Path, damaged: DamagedRows) -> Result<Self, Error> {
        layout::load(dir, damaged)
    }

    /// The rating at `position` as the event that is published. Its id is a function of the rating alone
    /// (`<data set>/<user>/<movie>/<ms>`, and a number where the file repeats a row), so that a repeated replay is
    /// recognised.
    #[must_use]
    pub fn interaction(&self, position: usize) -> Option<Interaction> {
        let rating = self.ratings.get(position)?;
        let Rating {
            user_id,
            movie_id,
            timestamp_ms,
            ..
        } = *rating;
        let mut event_id = format!("{}/{user_id}/{movie_id}/{timestamp_ms}", self.name);
        if let Some(ordinal) = self.repeats.get(&position) {
            event_id = format!("{event_id}/{ordinal}");
        }
        Some(Interaction {
            schema_version: SchemaVersion,
            event_id,
            user_id,
            movie_id: Some(movie_id),
            kind: Kind::Rating,
            rating: Some(rating.rating),
            genres: Vec::new(),
            timestamp: timestamp_ms,
            session_id: None,
            request_id: None,
            source: Some("replay".to_owned()),
        })
    }

    /// The events of a range of positions (cut to what is there), in event-time order.
    pub fn interactions(&self, range: Range<usize>) -> impl Iterator<Item = Interaction> + '_ {
        range.map_while(|position| self.interaction(position))
    }

    /// The position that splits off the first `share` (0 to 1) of the ratings.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a count times a share of at most 1"
    )]
    pub fn split_at(&self, share: f64) -> usize {
        ((self.ratings.len() as f64 * share.clamp(0.0, 1.0)).round() as usize).min(self.ratings.len())
    }

    /// Counts, period and mean.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(self)
    }
}

/// Equal (user, movie, time) can only lie within a run of equal times.
fn repeats(ratings: &[Rating]) -> HashMap<usize, u32> {
    let mut repeats = HashMap::new();
    let mut seen = HashSet::new();
    let mut position = 0;
    for run in ratings.chunk_by(|a, b| a.timestamp_ms == b.timestamp_ms) {
        if run.len() > 1 {
            seen.clear();
            let mut counts: HashMap<(UserId, MovieId), u32> = HashMap::new();
            for (offset, rating) in run.iter().enumerate() {
                let pair = (rating.user_id, rating.movie_id);
                if !seen.insert(pair) {
                    let count = counts.entry(pair).or_insert(0);
                    *count += 1;
                    repeats.insert(position + offset, *count);
                }
            }
        }
        position += run.len();
    }
    repeats
}
