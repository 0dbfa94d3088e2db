//! Who would give which movie how many stars: a biased matrix factorisation of real ratings.
//!
//! `r̂ = μ + b_u + b_i + p_u·q_i`, fitted by stochastic gradient descent (Koren, Bell and Volinsky, *Matrix
//! Factorization Techniques for Recommender Systems*, 2009). A simulated user is a real one with a little noise, so that
//! simulated users differ from the data set's as those do from one another.

use std::collections::HashMap;

use marquee_schemas::{MovieId, UserId};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::Dataset;

const FACTORS: usize = 12;
const PASSES: usize = 25;
const RATE: f64 = 0.01;
const REGULARISATION: f64 = 0.05;
/// Standard deviation of what is added to each of a real user's numbers.
const NOISE: f64 = 0.05;

type Vector = [f64; FACTORS];

#[derive(Debug, Clone)]
struct Row {
    bias: f64,
    factors: Vector,
}

/// Tastes of the simulated users.
#[derive(Debug, Clone)]
pub(super) struct Tastes {
    mean: f64,
    users: Vec<Row>,
    /// By simulated user, the real one whose taste it has.
    models: Vec<UserId>,
    movies: HashMap<MovieId, (Row, Vec<String>)>,
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn small(rng: &mut ChaCha12Rng, size: f64) -> f64 {
    // A sum of uniforms is near enough to a normal one here.
    (0..3).map(|_| rng.random::<f64>() - 0.5).sum::<f64>() * 2.0 * size
}

fn row(rng: &mut ChaCha12Rng) -> Row {
    Row {
        bias: 0.0,
        factors: std::array::from_fn(|_| small(rng, 0.1)),
    }
}

impl Tastes {
    /// Tastes of `users` simulated users; `dataset` has ratings.
    pub(super) fn fit(dataset: &Dataset, users: u64, seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut user_index = HashMap::new();
        let mut user_ids = Vec::new();
        let mut movie_index = HashMap::new();
        let ratings: Vec<(usize, usize, f64)> = dataset
            .ratings
            .iter()
            .map(|rating| {
                let user = *user_index.entry(rating.user_id).or_insert_with(|| {
                    user_ids.push(rating.user_id);
                    user_ids.len() - 1
                });
                let next = movie_index.len();
                let movie = *movie_index.entry(rating.movie_id).or_insert(next);
                (user, movie, f64::from(rating.rating))
            })
            .collect();
        let mean = ratings.iter().map(|rating| rating.2).sum::<f64>() / ratings.len().max(1) as f64;
        let mut real: Vec<Row> = (0..user_index.len()).map(|_| row(&mut rng)).collect();
        let mut items: Vec<Row> = (0..movie_index.len()).map(|_| row(&mut rng)).collect();
        for _ in 0..PASSES {
            for &(user, movie, stars) in &ratings {
                let (user, movie) = (&mut real[user], &mut items[movie]);
                let error = stars - mean - user.bias - movie.bias - dot(&user.factors, &movie.factors);
                user.bias += RATE * (error - REGULARISATION * user.bias);
                movie.bias += RATE * (error - REGULARISATION * movie.bias);
                for (p, q) in user.factors.iter_mut().zip(&mut movie.factors) {
                    let old = *p;
                    *p += RATE * (error * *q - REGULARISATION * *p);
                    *q += RATE * (error * old - REGULARISATION * *q);
                }
            }
        }
        let (simulated, models) = (0..users)
            .map(|_| {
                let model = rng.random_range(0..real.len());
                let like = &real[model];
                let taste = Row {
                    bias: like.bias + small(&mut rng, NOISE),
                    factors: like.factors.map(|factor| factor + small(&mut rng, NOISE)),
                };
                (taste, user_ids[model])
            })
            .unzip();
        let movies = dataset.movies.iter().map(|movie| {
            let unrated = Row {
                bias: 0.0,
                factors: [0.0; FACTORS],
            };
            let known = movie_index.get(&movie.movie_id).map(|&at| items[at].clone());
            (movie.movie_id, (known.unwrap_or(unrated), movie.genres.clone()))
        });
        Self {
            mean,
            users: simulated,
            models,
            movies: movies.collect(),
        }
    }

    /// The real user whose taste a simulated one has.
    pub(super) fn model(&self, user: u64) -> Option<UserId> {
        self.models.get(usize::try_from(user).ok()?).copied()
    }

    /// Stars that a user would give; the mean for movies and users that are not known.
    pub(super) fn stars(&self, user: u64, movie: MovieId) -> f64 {
        let user = usize::try_from(user).ok().and_then(|user| self.users.get(user));
        match (user, self.movies.get(&movie)) {
            (Some(user), Some((movie, _))) => {
                self.mean + user.bias + movie.bias + dot(&user.factors, &movie.factors)
            }
            _ => self.mean,
        }
    }

    /// Whether any movie has this genre.
    pub(super) fn knows_genre(&self, genre: &str) -> bool {
        self.movies
            .values()
            .any(|(_, genres)| genres.iter().any(|of_movie| of_movie == genre))
    }

    pub(super) fn has_genre(&self, movie: MovieId, genre: &str) -> bool {
        self.movies
            .get(&movie)
            .is_some_and(|(_, genres)| genres.iter().any(|of_movie| of_movie == genre))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SyntheticConfig, synthetic};

    #[test]
    fn fitted_tastes_foretell_ratings_better_than_the_mean_does() {
        let dataset = synthetic::generate(&SyntheticConfig::default()).unwrap();
        let tastes = Tastes::fit(&dataset, 10, 1);
        let by_movie: f64 = dataset
            .ratings
            .iter()
            .map(|rating| {
                let movie = tastes.movies[&rating.movie_id].0.bias;
                (f64::from(rating.rating) - tastes.mean - movie).powi(2)
            })
            .sum();
        let by_mean: f64 = dataset
            .ratings
            .iter()
            .map(|rating| (f64::from(rating.rating) - tastes.mean).powi(2))
            .sum();
        assert!(by_movie < 0.98 * by_mean, "{by_movie} {by_mean}");
        let of_users: Vec<f64> = (0..10)
            .map(|user| tastes.stars(user, dataset.movies[0].movie_id))
            .collect();
        assert!(
            of_users.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.01),
            "{of_users:?}"
        );
    }
}
