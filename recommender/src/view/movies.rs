//! The catalogue by dense index.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use marquee_models::served::{Catalogue, CatalogueItem};
use marquee_schemas::{Movie, MovieId};
use marquee_trainer::GenreVocabulary;

/// One movie's place.
#[derive(Debug, Clone)]
pub struct MovieRow {
    /// The public id.
    pub id: MovieId,
    /// The movie; absent when it was met in a history only, or removed from the catalogue.
    pub movie: Option<Arc<Movie>>,
    /// Its genres by number, see [`Movies::genre`].
    pub genres: Vec<u32>,
}

/// Which catalogue, and after how many changes. No two states of catalogues of this process have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation {
    lineage: Lineage,
    changes: u64,
}

impl Generation {
    /// Whether an index that both know is the same movie's: a catalogue only appends, and one that is loaded anew may
    /// give other indices.
    #[must_use]
    pub fn shares_indices(self, other: Self) -> bool {
        self.lineage == other.lineage
    }
}

/// Number of a catalogue; each default is another one, a copy is the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Lineage(u64);

impl Default for Lineage {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// All movies ever met. Indices are dense, append-only, and those of the live state.
#[derive(Debug, Default)]
pub struct Movies {
    index: HashMap<MovieId, u32>,
    rows: Vec<MovieRow>,
    /// By index: whether the catalogue holds it.
    listed: Vec<bool>,
    genres: HashMap<String, u32>,
    genre_names: Vec<String>,
    present: usize,
    generation: Generation,
}

impl Movies {
    /// Number of indices given away.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no movie was ever met.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of movies in the catalogue.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present
    }

    /// Another one after every change that a model's binding must learn of.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// All rows by index.
    #[must_use]
    pub fn rows(&self) -> &[MovieRow] {
        &self.rows
    }

    /// By index: whether the catalogue holds the movie.
    #[must_use]
    pub fn listed(&self) -> &[bool] {
        &self.listed
    }

    /// A movie of the catalogue by its public id, with its index.
    #[must_use]
    pub fn find(&self, id: MovieId) -> Option<(u32, &Arc<Movie>)> {
        let index = self.lookup(id)?;
        Some((index, self.at(index)?))
    }

    /// The index of a public id, in the catalogue or not.
    #[must_use]
    pub fn lookup(&self, id: MovieId) -> Option<u32> {
        self.index.get(&id).copied()
    }

    /// A movie of the catalogue by index.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<&Arc<Movie>> {
        self.rows.get(index as usize)?.movie.as_ref()
    }

    /// The number of a genre that some movie has or had.
    #[must_use]
    pub fn genre(&self, name: &str) -> Option<u32> {
        self.genres.get(name).copied()
    }

    /// The genre of a number.
    #[must_use]
    pub fn genre_name(&self, number: u32) -> Option<&str> {
        self.genre_names.get(number as usize).map(String::as_str)
    }

    /// All genre names, sorted.
    #[must_use]
    pub fn genre_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.genre_names.iter().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The catalogue as the models of one genre vocabulary see it, by index; movies without a description have neither
    /// year nor genres.
    #[must_use]
    pub fn catalogue(&self, genres: &GenreVocabulary) -> Catalogue {
        Catalogue::new(
            self.rows
                .iter()
                .map(|row| CatalogueItem {
                    external_id: row.id.0,
                    year: row.movie.as_ref().and_then(|movie| movie.year),
                    genres: row.movie.as_ref().map_or(0, |movie| genres.mask(&movie.genres)),
                })
                .collect(),
        )
    }

    pub(super) fn index_of(&mut self, id: MovieId) -> u32 {
        if let Some(&index) = self.index.get(&id) {
            return index;
        }
        let index = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(MovieRow {
            id,
            movie: None,
            genres: Vec::new(),
        });
        self.listed.push(false);
        self.index.insert(id, index);
        self.generation.changes += 1;
        index
    }

    pub(super) fn upsert(&mut self, movie: Movie) {
        let index = self.index_of(movie.movie_id);
        let genres = movie.genres.iter().map(|name| self.number_of(name)).collect();
        let row = &mut self.rows[index as usize];
        self.present += usize::from(row.movie.is_none());
        row.genres = genres;
        row.movie = Some(Arc::new(movie));
        self.listed[index as usize] = true;
        self.generation.changes += 1;
    }

    pub(super) fn remove(&mut self, id: MovieId) -> bool {
        let Some(&index) = self.index.get(&id) else {
            return false;
        };
        self.listed[index as usize] = false;
        let row = &mut self.rows[index as usize];
        let was = row.movie.take().is_some();
        row.genres.clear();
        self.present -= usize::from(was);
        self.generation.changes += 1;
        was
    }

    fn number_of(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.genres.get(name) {
            return number;
        }
        let number = u32::try_from(self.genre_names.len()).unwrap_or(u32::MAX);
        self.genre_names.push(name.to_owned());
        self.genres.insert(name.to_owned(), number);
        number
    }
}
