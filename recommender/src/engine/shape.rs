//! Shaping a ranking: newer movies first, different movies side by side.
//!
//! Both work on *relevance*, the scores of the best candidates brought to 0 to 1 within their list, because scores of
//! different models have different scales.

use super::scratch::Candidate;
use crate::view::Movies;

/// Years after which a movie's relevance is halved at full recency.
const HALF_LIFE_YEARS: f32 = 10.0;

/// How strongly to shape, each 0 (not at all) to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shape {
    /// Maximal marginal relevance: how much a candidate loses for resembling those above it.
    pub diversity: f32,
    /// How much a candidate loses for its age: at 1, half its relevance per ten years.
    pub recency: f32,
}

impl Shape {
    pub(super) fn is_plain(self) -> bool {
        self.diversity <= 0.0 && self.recency <= 0.0
    }
}

/// Brings scores to 0 to 1; equal ones to 1.
fn relevance(candidates: &mut [Candidate]) {
    let scores = || candidates.iter().map(|candidate| candidate.score);
    let (low, high) = (
        scores().fold(f32::INFINITY, f32::min),
        scores().fold(f32::NEG_INFINITY, f32::max),
    );
    let span = high - low;
    for candidate in candidates {
        candidate.relevance = if span > 0.0 {
            (candidate.score - low) / span
        } else {
            1.0
        };
    }
}

/// Orders `candidates` (best first) anew, by `recency` alone: relevance × 0.5^(recency × age / 10 years), the age
/// against the newest movie among them. A movie of unknown year is taken to be as old as the others are on average.
fn by_recency(candidates: &mut [Candidate], recency: f32, movies: &Movies) {
    let year = |item: u32| movies.at(item).and_then(|movie| movie.year).map(f32::from);
    let years: Vec<Option<f32>> = candidates.iter().map(|candidate| year(candidate.item)).collect();
    let known = || years.iter().flatten().copied();
    let newest = known().fold(f32::NEG_INFINITY, f32::max);
    let mean = known().sum::<f32>() / known().count().max(1) as f32;
    if !newest.is_finite() {
        return;
    }
    for (candidate, year) in candidates.iter_mut().zip(&years) {
        let age = newest - year.unwrap_or(mean);
        candidate.relevance *= (-recency * age / HALF_LIFE_YEARS).exp2();
    }
    candidates.sort_by(|a, b| b.relevance.total_cmp(&a.relevance));
}

/// Orders the first `depth` anew by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): each position
/// takes the candidate with the largest (1 - diversity) × relevance - diversity × resemblance, where resemblance is
/// the largest Jaccard index of its genres with those of a candidate above.
fn by_margin(candidates: &mut [Candidate], diversity: f32, depth: usize, movies: &Movies) {
    let genres: Vec<&[u32]> = candidates
        .iter()
        .map(|candidate| {
            movies
                .rows()
                .get(candidate.item as usize)
                .map_or(&[][..], |row| &row.genres[..])
        })
        .collect();
    // Positions in `genres` in the order chosen so far, and what each resembles most among the chosen.
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let mut nearest = vec![0.0_f32; candidates.len()];
    for place in 0..depth.min(order.len()) {
        let margin =
            |&index: &usize| (1.0 - diversity) * candidates[index].relevance - diversity * nearest[index];
        let best = (place..order.len())
            // Of equal ones the first, which is the more relevant.
            .rev()
            .max_by(|&a, &b| margin(&order[a]).total_cmp(&margin(&order[b])));
        let Some(best) = best else { break };
        // The others keep their order.
        order[place..=best].rotate_right(1);
        let chosen = order[place];
        for &index in &order[place + 1..] {
            nearest[index] = nearest[index].max(jaccard(genres[chosen], genres[index]));
        }
    }
    let shaped: Vec<Candidate> = order.iter().map(|&index| candidates[index]).collect();
    candidates.copy_from_slice(&shaped);
}

fn jaccard(a: &[u32], b: &[u32]) -> f32 {
    let common = a.iter().filter(|genre| b.contains(genre)).count();
    let union = a.len() + b.len() - common;
    if union == 0 {
        0.0
    } else {
        common as f32 / union as f32
    }
}

/// Shapes `candidates` (best first), of which the first `depth` will be shown.
pub(super) fn shape(candidates: &mut [Candidate], shape: Shape, depth: usize, movies: &Movies) {
    relevance(candidates);
    if shape.recency > 0.0 {
        by_recency(candidates, shape.recency, movies);
    }
    if shape.diversity > 0.0 {
        by_margin(candidates, shape.diversity, depth, movies);
    }
}

#[cfg(test)]
mod tests {
    use marquee_schemas::{Movie, MovieId, SchemaVersion};

    use super::*;
    use crate::view::{Change, ViewState};

    fn state(movies: &[(u16, &[&str])]) -> ViewState {
        let changes = movies
            .iter()
            .enumerate()
            .map(|(id, (year, genres))| {
                Change::Movie(Movie {
                    schema_version: SchemaVersion,
                    movie_id: MovieId(id as u32),
                    title: format!("{id}"),
                    year: (*year > 0).then_some(*year),
                    genres: genres.iter().map(|&genre| genre.to_owned()).collect(),
                    imdb_id: None,
                    tmdb_id: None,
                })
            })
            .collect();
        ViewState::fold(Default::default(), changes).unwrap()
    }

    fn candidates(scores: &[f32]) -> Vec<Candidate> {
        scores
            .iter()
            .enumerate()
            .map(|(item, &score)| Candidate::new(item as u32, score))
            .collect()
    }

    fn shaped(state: &ViewState, scores: &[f32], diversity: f32, recency: f32) -> Vec<u32> {
        let mut all = candidates(scores);
        let depth = all.len();
        shape(&mut all, Shape { diversity, recency }, depth, &state.movies);
        all.iter().map(|candidate| candidate.item).collect()
    }

    #[test]
    fn diversity_puts_a_different_movie_between_two_alike() {
        let state = state(&[(0, &["War"]), (0, &["War"]), (0, &["Comedy"])]);
        // Relevance 1, 0.9, 0. At 0.6 the second of position two: 0.4 * 0.9 - 0.6 = -0.24 against 0 for the comedy.
        assert_eq!(shaped(&state, &[10.0, 9.0, 0.0], 0.6, 0.0), [0, 2, 1]);
        assert_eq!(shaped(&state, &[10.0, 9.0, 0.0], 0.0, 0.0), [0, 1, 2]);
        // At 0.4: 0.6 * 0.9 - 0.4 = 0.14 against 0.
        assert_eq!(shaped(&state, &[10.0, 9.0, 0.0], 0.4, 0.0), [0, 1, 2]);
    }

    #[test]
    fn recency_halves_relevance_every_ten_years() {
        let state = state(&[(1980, &[]), (2000, &[]), (0, &[])]);
        // 1 * 2^-2 = 0.25 against 0.5 * 2^0; unknown: mean 1990, 0 * 2^-1.
        assert_eq!(shaped(&state, &[2.0, 1.0, 0.0], 0.0, 1.0), [1, 0, 2]);
        assert_eq!(shaped(&state, &[2.0, 1.0, 0.0], 0.0, 0.1), [0, 1, 2]);
    }

    proptest::proptest! {
        #[test]
        fn shaping_loses_and_invents_nothing(
            scores in proptest::collection::vec(-1e6_f32..1e6, 0..30), diversity in 0.0_f32..=1.0, recency in 0.0_f32..=1.0
        ) {
            let movies: Vec<(u16, &[&str])> = (0..scores.len())
                .map(|n| (1950 + (n * 7 % 60) as u16, [&["War"][..], &["Drama", "War"], &[]][n % 3]))
                .collect();
            let mut order = shaped(&state(&movies), &scores, diversity, recency);
            order.sort_unstable();
            proptest::prop_assert_eq!(order, (0..scores.len() as u32).collect::<Vec<_>>());
        }
    }
}
