//! Which genre is which bit of a catalogue's genre mask.

use std::collections::BTreeMap;

use marquee_schemas::Movie;
use serde::{Deserialize, Serialize};

/// Genres that have a bit; the mask is 32 bits wide.
const BITS: usize = 32;

/// Genre names in bit order. It belongs to a bundle: masks made with one vocabulary mean nothing under another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenreVocabulary(Vec<String>);

impl GenreVocabulary {
    /// The vocabulary of a catalogue: alphabetical; of more than 32 genres the most frequent ones.
    #[must_use]
    pub fn of<'a>(movies: impl IntoIterator<Item = &'a Movie>) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for genre in movies.into_iter().flat_map(|movie| &movie.genres) {
            *counts.entry(genre).or_default() += 1;
        }
        let mut by_count: Vec<_> = counts.into_iter().collect();
        // Stable: of equally frequent genres the alphabetically first stays.
        by_count.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        by_count.truncate(BITS);
        let mut names: Vec<_> = by_count.into_iter().map(|(name, _)| name.to_owned()).collect();
        names.sort_unstable();
        Self(names)
    }

    /// Names in bit order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The mask of these genres, whatever their case; unknown ones have no bit.
    #[must_use]
    pub fn mask<S: AsRef<str>>(&self, genres: &[S]) -> u32 {
        genres
            .iter()
            .filter_map(|genre| {
                self.0
                    .iter()
                    .position(|name| name.eq_ignore_ascii_case(genre.as_ref()))
            })
            .take_while(|&bit| bit < BITS)
            .fold(0, |mask, bit| mask | (1 << bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marquee_schemas::{MovieId, SchemaVersion};

    fn movie(id: u32, genres: &[&str]) -> Movie {
        Movie {
            schema_version: SchemaVersion,
            movie_id: MovieId(id),
            title: "A".into(),
            year: None,
            genres: genres.iter().map(|&g| g.to_owned()).collect(),
            imdb_id: None,
            tmdb_id: None,
        }
    }

    #[test]
    fn bits_are_alphabetical_and_case_does_not_matter() {
        let vocabulary = GenreVocabulary::of(&[movie(1, &["Drama", "Comedy"]), movie(2, &["Drama"])]);
        assert_eq!(vocabulary.names(), ["Comedy", "Drama"]);
        assert_eq!(vocabulary.mask(&["drama"]), 0b10);
        assert_eq!(vocabulary.mask(&["Western"]), 0);
    }

    #[test]
    fn of_more_than_thirty_two_genres_the_rarest_have_no_bit() {
        let names: Vec<String> = (0..40).map(|n| format!("G{n:02}")).collect();
        let mut movies: Vec<Movie> = names
            .iter()
            .enumerate()
            .map(|(n, g)| movie(n as u32, &[g]))
            .collect();
        movies.push(movie(99, &["G39"]));
        let vocabulary = GenreVocabulary::of(&movies);
        assert_eq!(vocabulary.names().len(), 32);
        assert_eq!(vocabulary.mask(&["G39"]), 1 << 31);
        assert_eq!(vocabulary.mask(&["G35"]), 0);
    }
}
