//! The movies that exist, as the fold sees them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::RawRecord;
use marquee_runtime::{Bus, BusError};
use marquee_schemas::{Movie, MovieId, Topic, decode};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Which movies exist, and their genres.
pub trait Catalogue: Send + Sync + 'static {
    /// The movie's genres, or `None` for a movie that is not in the catalogue.
    fn genres(&self, movie: MovieId) -> Option<&[Arc<str>]>;

    /// Takes in what the catalogue's source has gained since the last look. `false` if the source could not be asked
    /// because the processor is stopping.
    ///
    /// # Errors
    /// A failure that no retry mends.
    fn refresh(&mut self) -> Result<bool, Error>;
}

/// A catalogue in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryCatalogue {
    movies: HashMap<MovieId, Vec<Arc<str>>>,
    names: HashMap<String, Arc<str>>,
}

impl MemoryCatalogue {
    /// Adds or replaces a movie.
    pub fn insert(&mut self, movie: MovieId, genres: &[String]) {
        let mut shared: Vec<Arc<str>> = Vec::with_capacity(genres.len());
        for genre in genres {
            let name = self
                .names
                .entry(genre.clone())
                .or_insert_with(|| Arc::from(genre.as_str()));
            if !shared.contains(name) {
                shared.push(Arc::clone(name));
            }
        }
        self.movies.insert(movie, shared);
    }

    /// Removes a movie.
    pub fn remove(&mut self, movie: MovieId) {
        self.movies.remove(&movie);
    }

    /// Number of movies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.movies.len()
    }

    /// Whether it holds no movie.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.movies.is_empty()
    }
}

impl Catalogue for MemoryCatalogue {
    fn genres(&self, movie: MovieId) -> Option<&[Arc<str>]> {
        self.movies.get(&movie).map(Vec::as_slice)
    }

    fn refresh(&mut self) -> Result<bool, Error> {
        Ok(true)
    }
}

/// The `movies` topic, materialised: the newest record of a movie counts, an empty one removes it.
#[derive(Debug)]
pub struct TopicCatalogue {
    bus: Bus,
    stopping: CancellationToken,
    reached: BTreeMap<i32, i64>,
    movies: MemoryCatalogue,
}

const RETRY: Duration = Duration::from_millis(200);

impl TopicCatalogue {
    /// A catalogue that is empty until the first [`Catalogue::refresh`].
    #[must_use]
    pub fn new(bus: Bus, stopping: CancellationToken) -> Self {
        Self {
            bus,
            stopping,
            reached: BTreeMap::new(),
            movies: MemoryCatalogue::default(),
        }
    }

    fn read_tail(&mut self) -> Result<(), BusError> {
        let ends = self.bus.watermarks_blocking(Topic::Movies)?.ends();
        if ends == self.reached {
            return Ok(());
        }
        let Self {
            bus, movies, reached, ..
        } = self;
        *reached = bus.read_range(Topic::Movies, reached, &ends, |record| {
            take(movies, &record);
            Ok::<(), std::convert::Infallible>(())
        })?;
        tracing::info!(movies = movies.len(), "catalogue read");
        Ok(())
    }
}

/// A record that is no movie is passed over: whoever published it is told by the catalogue's own consumers, and no
/// interaction depends on it.
fn take(movies: &mut MemoryCatalogue, record: &RawRecord) {
    match record.value.as_deref() {
        None | Some([]) => {
            let id = record
                .key
                .as_deref()
                .and_then(|key| std::str::from_utf8(key).ok())
                .and_then(|key| key.parse().ok());
            match id {
                Some(id) => movies.remove(MovieId(id)),
                None => tracing::warn!(
                    kafka.topic = %record.topic,
                    kafka.partition = record.partition,
                    kafka.offset = record.offset,
                    "tombstone without a movie id"
                ),
            }
        }
        Some(value) => match decode::<Movie>(value) {
            Ok(movie) => movies.insert(movie.movie_id, &movie.genres),
            Err(error) => tracing::warn!(
                kafka.topic = %record.topic,
                kafka.partition = record.partition,
                kafka.offset = record.offset,
                %error,
                "not a movie"
            ),
        },
    }
}

impl Catalogue for TopicCatalogue {
    fn genres(&self, movie: MovieId) -> Option<&[Arc<str>]> {
        self.movies.genres(movie)
    }

    fn refresh(&mut self) -> Result<bool, Error> {
        loop {
            match self.read_tail() {
                Ok(()) => return Ok(true),
                Err(error) if error.is_transient() => {
                    if self.stopping.is_cancelled() {
                        return Ok(false);
                    }
                    tracing::warn!(%error, "reading the catalogue failed, trying again");
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use marquee_schemas::{SchemaVersion, encode};

    use super::*;

    fn record(key: &str, value: Option<Vec<u8>>) -> RawRecord {
        RawRecord {
            topic: Topic::Movies,
            partition: 0,
            offset: 0,
            timestamp_ms: -1,
            key: Some(key.into()),
            value,
        }
    }

    fn movie(id: u32, genres: &[&str]) -> Vec<u8> {
        encode(&Movie {
            schema_version: SchemaVersion,
            movie_id: MovieId(id),
            title: "t".into(),
            year: None,
            genres: genres.iter().map(|&g| g.to_owned()).collect(),
            imdb_id: None,
            tmdb_id: None,
        })
    }

    #[test]
    fn the_newest_record_of_a_movie_counts_and_an_empty_one_removes_it() {
        let mut movies = MemoryCatalogue::default();
        take(&mut movies, &record("1", Some(movie(1, &["Drama"]))));
        take(&mut movies, &record("1", Some(movie(1, &["Comedy", "Comedy"]))));
        assert_eq!(movies.genres(MovieId(1)).unwrap(), [Arc::<str>::from("Comedy")]);
        take(&mut movies, &record("1", Some(vec![])));
        assert!(movies.genres(MovieId(1)).is_none());
        take(&mut movies, &record("2", Some(movie(2, &[]))));
        take(&mut movies, &record("2", None));
        assert!(movies.is_empty());
    }

    #[test]
    fn records_that_are_no_movies_are_passed_over() {
        let mut movies = MemoryCatalogue::default();
        take(&mut movies, &record("x", None));
        take(&mut movies, &record("1", Some(b"{".to_vec())));
        assert!(movies.is_empty());
    }
}
