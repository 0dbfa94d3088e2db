//! A made-up data set whose users have taste, for machines without data and for tests.
//!
//! Users and movies have latent factors; a movie's factors lean towards those of its genres, and users also like or
//! dislike genres as such. A user watches in sessions. Which movies: drawn without replacement with log-odds
//! `popularity + recency + 1.6 × taste` (Gumbel top-k, Vieira 2014) among those released by then. Which rating: mean,
//! user's leniency, movie's quality and taste, with noise, rounded to half stars. So popularity predicts something,
//! and who learns the taste predicts clearly more.
//!
//! Everything follows from the seed; the catalogue does not change with the number of users.

mod catalogue;
mod random;
#[cfg(test)]
mod tests;
mod users;

use serde::{Deserialize, Serialize};

use crate::{Dataset, Error};

/// The name of the synthetic data set.
pub const NAME: &str = "synthetic";

/// Size and seed of a synthetic data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// Everything follows from it.
    pub seed: u64,
    /// Number of users, at least 1.
    pub users: u32,
    /// Number of movies, 10 to a million.
    pub movies: u32,
    /// Ratings a user gives on average, at most a quarter of the movies; single users differ widely.
    pub mean_ratings_per_user: f64,
    /// Dimensions of taste, 1 to 64.
    pub factors: usize,
    /// Time of the first possible rating, ms.
    pub start_ms: i64,
    /// Days from the first to the last possible rating, 1 to 36,500.
    pub span_days: u32,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            users: 600,
            movies: 1_200,
            mean_ratings_per_user: 80.0,
            factors: 8,
            // 2023-01-01
            start_ms: 1_672_531_200_000,
            span_days: 730,
        }
    }
}

/// Makes the data set, as if it had been loaded.
///
/// # Errors
/// [`Error::Config`] for sizes out of range.
pub fn generate(config: &SyntheticConfig) -> Result<Dataset, Error> {
    check(config)?;
    let world = catalogue::Catalogue::generate(config);
    let ratings = (1..=config.users)
        .flat_map(|user| users::ratings(config, &world, user))
        .collect();
    Ok(Dataset::new(NAME, world.into_movies(), ratings))
}

fn check(config: &SyntheticConfig) -> Result<(), Error> {
    let wrong = |text: String| Err(Error::Config(format!("synthetic data set: {text}")));
    if config.users == 0 {
        return wrong("users must be at least 1".into());
    }
    if !(10..=1_000_000).contains(&config.movies) {
        return wrong(format!("movies is {}, allowed are 10 to 1000000", config.movies));
    }
    let most = f64::from(config.movies) / 4.0;
    if !(1.0..=most).contains(&config.mean_ratings_per_user) {
        return wrong(format!(
            "mean_ratings_per_user is {}, allowed are 1 to {most} (a quarter of the movies)",
            config.mean_ratings_per_user
        ));
    }
    if !(1..=64).contains(&config.factors) {
        return wrong(format!("factors is {}, allowed are 1 to 64", config.factors));
    }
    if !(1..=36_500).contains(&config.span_days) {
        return wrong(format!(
            "span_days is {}, allowed are 1 to 36500",
            config.span_days
        ));
    }
    // Up to the year 3000, so that no arithmetic on times can overflow.
    if !(1..=32_503_680_000_000).contains(&config.start_ms) {
        return wrong(format!(
            "start_ms is {}, not a time in milliseconds",
            config.start_ms
        ));
    }
    Ok(())
}
