//! Restrictions, checked once and applied per movie.

use marquee_schemas::Filters;

use super::Refused;
use crate::view::{MovieRow, Movies, ViewState};

#[derive(Debug)]
pub(super) struct Filter {
    any: Vec<u32>,
    all: Vec<u32>,
    none: Vec<u32>,
    year_from: Option<u16>,
    year_to: Option<u16>,
    min_interactions: u32,
    exclude: Vec<u32>,
}

/// Genres listed in a refusal.
const NAMED: usize = 40;

impl Filter {
    /// Refuses genres that no movie has and year ranges that hold no year. Excluded movies need not exist.
    pub(super) fn compile(filters: &Filters, state: &ViewState) -> Result<Self, Refused> {
        let movies = &state.movies;
        if let (Some(from), Some(to)) = (filters.year_from, filters.year_to)
            && from > to
        {
            return Err(Refused::InvalidFilter {
                field: "filters.year_from",
                detail: format!("year_from {from} is after year_to {to}"),
            });
        }
        Ok(Self {
            any: numbers("filters.genres_any", &filters.genres_any, movies)?,
            all: numbers("filters.genres_all", &filters.genres_all, movies)?,
            none: numbers("filters.genres_none", &filters.genres_none, movies)?,
            year_from: filters.year_from,
            year_to: filters.year_to,
            min_interactions: filters.min_interactions.unwrap_or(0),
            exclude: filters
                .exclude
                .iter()
                .filter_map(|&id| movies.lookup(id))
                .collect(),
        })
    }

    /// Writes into `allowed`, by movie index, what the catalogue holds and the restrictions let pass, and how many.
    pub(super) fn mask(&self, state: &ViewState, allowed: &mut Vec<bool>) -> u32 {
        allowed.clear();
        if self.is_open() {
            allowed.extend_from_slice(state.movies.listed());
        } else {
            allowed.extend(state.movies.rows().iter().map(|row| self.passes(row)));
        }
        if self.min_interactions > 0 {
            for (index, allowed) in allowed.iter_mut().enumerate() {
                *allowed &= state.live.item_count(index as u32) >= self.min_interactions;
            }
        }
        for &index in &self.exclude {
            if let Some(allowed) = allowed.get_mut(index as usize) {
                *allowed = false;
            }
        }
        u32::try_from(allowed.iter().filter(|&&allowed| allowed).count()).unwrap_or(u32::MAX)
    }

    /// Whether every movie of the catalogue passes, apart from those excluded or too little known.
    fn is_open(&self) -> bool {
        self.any.is_empty()
            && self.all.is_empty()
            && self.none.is_empty()
            && self.year_from.is_none()
            && self.year_to.is_none()
    }

    fn passes(&self, row: &MovieRow) -> bool {
        let Some(movie) = &row.movie else { return false };
        let has = |genre: &u32| row.genres.contains(genre);
        (self.any.is_empty() || self.any.iter().any(has))
            && self.all.iter().all(has)
            && !self.none.iter().any(has)
            && self
                .year_from
                .is_none_or(|from| movie.year.is_some_and(|year| year >= from))
            && self
                .year_to
                .is_none_or(|to| movie.year.is_some_and(|year| year <= to))
    }
}

/// Genres by number.
pub(super) fn numbers(field: &'static str, names: &[String], movies: &Movies) -> Result<Vec<u32>, Refused> {
    names
        .iter()
        .map(|name| {
            movies.genre(name).ok_or_else(|| {
                let known = movies.genre_names();
                let shown: Vec<&str> = known.iter().copied().take(NAMED).collect();
                Refused::InvalidFilter {
                    field,
                    detail: format!(
                        "no movie has the genre {:?}; there are: {}",
                        name.chars().take(64).collect::<String>(),
                        shown.join(", ")
                    ),
                }
            })
        })
        .collect()
}
