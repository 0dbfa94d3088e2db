//! Movies that clients asked for and the catalogue does not hold: what the next training ought to know.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use marquee_schemas::MovieId;

/// Movies told apart at most; what is asked for beyond is counted together.
const KEPT: usize = 10_000;

/// How often one of them was asked for, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The movie.
    pub movie_id: MovieId,
    /// Requests that named it.
    pub count: u64,
    /// The last of them, wall time, ms.
    pub last_ms: i64,
}

/// Counts requests for movies that are not in the catalogue.
#[derive(Debug, Default)]
pub struct UnknownMovies(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    movies: BTreeMap<MovieId, (u64, i64)>,
    total: u64,
}

impl UnknownMovies {
    /// Counts a request; whether it is the first one for this movie.
    pub fn note(&self, movie_id: MovieId, now_ms: i64) -> bool {
        let mut counts = self.lock();
        counts.total += 1;
        if counts.movies.len() >= KEPT && !counts.movies.contains_key(&movie_id) {
            return false;
        }
        let (count, last_ms) = counts.movies.entry(movie_id).or_default();
        *count += 1;
        *last_ms = now_ms;
        *count == 1
    }

    /// All such requests, those beyond the kept movies included.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// The `most` movies asked for most often; of equals the smaller id first.
    #[must_use]
    pub fn most_asked(&self, most: usize) -> Vec<Asked> {
        let mut all: Vec<Asked> = self
            .lock()
            .movies
            .iter()
            .map(|(&movie_id, &(count, last_ms))| Asked {
                movie_id,
                count,
                last_ms,
            })
            .collect();
        // Stable: ascending ids stay so among equals.
        all.sort_by_key(|asked| std::cmp::Reverse(asked.count));
        all.truncate(most);
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_asked_come_first_and_memory_is_bounded() {
        let unknown = UnknownMovies::default();
        assert!(unknown.note(MovieId(7), 1));
        assert!(unknown.note(MovieId(3), 2));
        assert!(!unknown.note(MovieId(7), 5));
        let most = unknown.most_asked(1);
        assert_eq!(
            (most[0].movie_id, most[0].count, most[0].last_ms),
            (MovieId(7), 2, 5)
        );
        for id in 10..20_010 {
            unknown.note(MovieId(id), 9);
        }
        assert_eq!(unknown.most_asked(usize::MAX).len(), KEPT);
        assert_eq!(unknown.total(), 20_003);
    }
}
