//! Finding movies by title, typing errors and all.
//!
//! Titles are cut into words and words into trigrams (as PostgreSQL's `pg_trgm` does: two blanks before a word, one
//! behind it), accents and case removed. A title is found when it holds enough of the query's trigrams, each weighed
//! alike; the last word of the query may still be being typed, so it has no end. Cost is bounded by the catalogue,
//! not by what was typed: queries are cut to [`MOST_WORDS`] words.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use marquee_schemas::Movie;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::Engine;
use crate::view::{Generation, ViewState};

/// Words of a query that count.
const MOST_WORDS: usize = 12;
/// Share of the query's trigrams that a title must hold.
const ENOUGH: f32 = 0.4;
/// Best matches by text among which popularity then decides.
const CONTENDERS: usize = 200;
/// Weight of the share of the query found in the title; the rest is that of their likeness as a whole (Jaccard).
const CONTAINED: f32 = 0.75;
/// What the best-known contender gains over one nobody knows.
const KNOWN: f32 = 0.15;
/// While the catalogue changes, the index is made anew at most so often.
const RENEW: Duration = Duration::from_secs(1);

type Trigram = [char; 3];

/// A movie found by its title.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The movie.
    pub movie: Arc<Movie>,
    /// How well it matches; comparable within one search.
    pub score: f32,
}

/// Lower-case words without accents.
fn words(text: &str) -> Vec<String> {
    let plain: String = text
        .nfkd()
        .filter(|letter| !is_combining_mark(*letter))
        .flat_map(char::to_lowercase)
        // An apostrophe does not end a word.
        .filter(|letter| !matches!(letter, '\'' | '\u{2019}'))
        .collect();
    plain
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The trigrams of words, each once; the last word is not ended where `open`.
fn trigrams(words: &[String], open: bool) -> Vec<Trigram> {
    let mut all = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let mut padded: Vec<char> = [' ', ' '].into_iter().chain(word.chars()).collect();
        if !(open && place + 1 == words.len()) {
            padded.push(' ');
        }
        all.extend(padded.windows(3).map(|window| [window[0], window[1], window[2]]));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Titles by trigram.
#[derive(Debug, Default)]
struct TitleIndex {
    /// Dense movie index, movie, number of trigrams.
    titles: Vec<(u32, Arc<Movie>, usize)>,
    postings: HashMap<Trigram, Vec<u32>>,
}

impl TitleIndex {
    fn of(movies: Vec<(u32, Arc<Movie>)>) -> Self {
        let mut index = Self::default();
        for (item, movie) in movies {
            let mut named = words(&movie.title);
            named.extend(movie.year.map(|year| year.to_string()));
            let trigrams = trigrams(&named, false);
            let place = u32::try_from(index.titles.len()).unwrap_or(u32::MAX);
            index.titles.push((item, movie, trigrams.len()));
            for trigram in trigrams {
                index.postings.entry(trigram).or_default().push(place);
            }
        }
        index
    }

    /// Places of the best matches with their scores, best first.
    fn search(&self, query: &str) -> Vec<(usize, f32)> {
        let mut asked = words(query);
        asked.truncate(MOST_WORDS);
        let asked = trigrams(&asked, true);
        let mut common = vec![0_u16; self.titles.len()];
        for trigram in &asked {
            for &place in self.postings.get(trigram).map_or(&[][..], Vec::as_slice) {
                common[place as usize] += 1;
            }
        }
        let mut matches: Vec<(usize, f32)> = common
            .iter()
            .enumerate()
            .filter(|(_, common)| **common > 0)
            .filter_map(|(place, &common)| {
                let common = f32::from(common);
                let contained = common / asked.len() as f32;
                let union = (asked.len() + self.titles[place].2) as f32 - common;
                let score = CONTAINED * contained + (1.0 - CONTAINED) * common / union;
                (contained >= ENOUGH).then_some((place, score))
            })
            .collect();
        matches.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        matches.truncate(CONTENDERS);
        matches
    }
}

/// The index of the catalogue as it was a moment ago.
#[derive(Debug, Default)]
pub(super) struct SearchCache(Mutex<Option<Cached>>);

#[derive(Debug)]
struct Cached {
    generation: Generation,
    made: Instant,
    index: Arc<TitleIndex>,
}

impl Engine {
    /// Movies whose titles resemble `query`, at most `k`, best first; of equally good matches the better known. Takes
    /// milliseconds when the catalogue changed since the last search.
    pub fn search(&self, query: &str, k: usize) -> Vec<Found> {
        let index = self.title_index();
        let matches = index.search(query);
        let state = self.view.read();
        let known = |place: usize| (1.0 + state.live.item_count(index.titles[place].0) as f32).ln();
        let best_known = matches
            .iter()
            .map(|&(place, _)| known(place))
            .fold(f32::MIN_POSITIVE, f32::max);
        let mut found: Vec<Found> = matches
            .iter()
            .map(|&(place, score)| Found {
                movie: Arc::clone(&index.titles[place].1),
                score: score + KNOWN * known(place) / best_known,
            })
            .collect();
        drop(state);
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(k);
        found
    }

    fn title_index(&self) -> Arc<TitleIndex> {
        // Held while the index is made, so that it is made once.
        let mut cached = self.titles.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, movies) = {
            let state = self.view.read();
            let generation = state.movies.generation();
            if let Some(cached) = cached.as_ref()
                && (cached.generation == generation || cached.made.elapsed() < RENEW)
            {
                return Arc::clone(&cached.index);
            }
            (generation, titles(&state))
        };
        let index = Arc::new(TitleIndex::of(movies));
        *cached = Some(Cached {
            generation,
            made: Instant::now(),
            index: Arc::clone(&index),
        });
        index
    }
}

fn titles(state: &ViewState) -> Vec<(u32, Arc<Movie>)> {
    (0..state.movies.len() as u32)
        .filter_map(|item| Some((item, Arc::clone(state.movies.at(item)?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use marquee_schemas::{MovieId, SchemaVersion};

    use super::*;

    const TITLES: [(&str, u16); 8] = [
        ("Godfather, The", 1972),
        ("Godfather: Part II, The", 1974),
        ("Star Wars: Episode IV - A New Hope", 1977),
        ("Star Trek: First Contact", 1996),
        ("Amélie", 2001),
        ("Schindler's List", 1993),
        ("Léon: The Professional", 1994),
        ("2001: A Space Odyssey", 1968),
    ];

    fn first(query: &str) -> Option<&'static str> {
        let movies = TITLES
            .iter()
            .zip(0..)
            .map(|((title, year), id)| {
                let movie = Movie {
                    schema_version: SchemaVersion,
                    movie_id: MovieId(id),
                    title: (*title).to_owned(),
                    year: Some(*year),
                    genres: Vec::new(),
                    imdb_id: None,
                    tmdb_id: None,
                };
                (id, Arc::new(movie))
            })
            .collect();
        let found = TitleIndex::of(movies).search(query);
        found.first().map(|&(place, _)| TITLES[place].0)
    }

    #[test]
    fn titles_are_found_whatever_the_case_accent_order_and_typing_error() {
        for (query, title) in [
            ("godfather", "Godfather, The"),
            ("the godfahter", "Godfather, The"),
            ("GODFTHER part 2", "Godfather: Part II, The"),
            ("new hope star", "Star Wars: Episode IV - A New Hope"),
            ("star tre", "Star Trek: First Contact"),
            ("amelie", "Amélie"),
            ("ame", "Amélie"),
            ("schindlers list", "Schindler's List"),
            ("shindler", "Schindler's List"),
            ("leon professional", "Léon: The Professional"),
            ("space oddysey", "2001: A Space Odyssey"),
            ("godfather 1974", "Godfather: Part II, The"),
        ] {
            assert_eq!(first(query), Some(title), "{query}");
        }
    }

    #[test]
    fn what_resembles_nothing_finds_nothing() {
        for query in ["", " ", "zzzz", "!?", "\u{0}"] {
            assert_eq!(first(query), None, "{query:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_query_panics(query: String) {
            first(&query);
        }
    }
}
