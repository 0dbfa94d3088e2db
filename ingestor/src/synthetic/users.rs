//! What one user watches, when, and how they like it.

use marquee_schemas::UserId;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::SyntheticConfig;
use super::catalogue::{Catalogue, DAY_MS, GENRES, Made, vector};
use super::random::{exponential, gumbel, normal, stream, unit};
use crate::Rating;

const TASTE_IN_CHOICE: f64 = 1.6;
const TASTE_IN_STARS: f64 = 0.6;
const MEAN_STARS: f64 = 3.5;
const MEAN_SESSION: f64 = 12.0;
const DAYS_BETWEEN_SESSIONS: f64 = 14.0;
/// How much being new adds to the log-odds of a movie, and for how long.
const NEWNESS: f64 = 1.5;
const NEWNESS_DAYS: f64 = 90.0;

struct User {
    factors: Vec<f64>,
    genres: Vec<f64>,
    leniency: f64,
}

impl User {
    fn draw(config: &SyntheticConfig, rng: &mut ChaCha12Rng) -> Self {
        Self {
            factors: vector(rng, config.factors),
            genres: vector(rng, GENRES.len()),
            leniency: 0.3 * normal(rng),
        }
    }

    /// About standard normal over users and movies.
    #[expect(clippy::cast_precision_loss, reason = "a few dozen factors")]
    fn taste(&self, made: &Made) -> f64 {
        let dot: f64 = self.factors.iter().zip(&made.factors).map(|(a, b)| a * b).sum();
        let latent = dot / (self.factors.len() as f64).sqrt();
        let liked: f64 = made.genres.iter().map(|&genre| self.genres[genre]).sum();
        let genre = liked / (made.genres.len() as f64).sqrt();
        0.8 * latent + 0.6 * genre
    }
}

/// The ratings of one user, in time order.
pub(super) fn ratings(config: &SyntheticConfig, world: &Catalogue, user: u32) -> Vec<Rating> {
    // Stream 0 is the catalogue's.
    let mut rng = stream(config.seed, u64::from(user));
    let who = User::draw(config, &mut rng);
    let tastes: Vec<f64> = world.made.iter().map(|made| who.taste(made)).collect();
    let mut seen = vec![false; world.made.len()];
    let wanted = draw_activity(config, &mut rng, world.made.len());
    let end_ms = config.start_ms + i64::from(config.span_days) * DAY_MS;
    let mut at_ms = config.start_ms + days(unit(&mut rng) * 0.95 * f64::from(config.span_days));
    let mut ratings = Vec::with_capacity(wanted);
    while ratings.len() < wanted && at_ms < end_ms {
        let size = session_size(&mut rng).min(wanted - ratings.len());
        let chosen = choose(&mut rng, world, &tastes, &seen, at_ms, size);
        let mut when_ms = at_ms;
        for index in chosen {
            seen[index] = true;
            ratings.push(Rating {
                user_id: UserId(u64::from(user)),
                movie_id: world.made[index].movie.movie_id,
                rating: stars(&mut rng, &who, &world.made[index], tastes[index]),
                timestamp_ms: when_ms,
            });
            when_ms += rng.random_range(5_000..120_000_i64);
        }
        at_ms = when_ms + days(exponential(&mut rng, DAYS_BETWEEN_SESSIONS)).max(60_000);
    }
    ratings
}

/// Log-normal: most give few ratings, some very many.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "clamped to the number of movies"
)]
fn draw_activity(config: &SyntheticConfig, rng: &mut ChaCha12Rng, movies: usize) -> usize {
    const SPREAD: f64 = 0.8;
    let mean = config.mean_ratings_per_user;
    let draw = mean * (SPREAD * normal(rng) - SPREAD * SPREAD / 2.0).exp();
    draw.round().clamp(1.0, movies as f64 / 2.0) as usize
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an exponential number around a dozen"
)]
fn session_size(rng: &mut ChaCha12Rng) -> usize {
    1 + exponential(rng, MEAN_SESSION - 1.0).min(10_000.0) as usize
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "at most some tens of thousands of days"
)]
fn days(days: f64) -> i64 {
    #[expect(clippy::cast_precision_loss, reason = "a constant far below 2^53")]
    let ms = DAY_MS as f64;
    (days * ms) as i64
}

fn choose(
    rng: &mut ChaCha12Rng,
    world: &Catalogue,
    tastes: &[f64],
    seen: &[bool],
    at_ms: i64,
    size: usize,
) -> Vec<usize> {
    let mut keyed: Vec<(f64, usize)> = Vec::with_capacity(world.made.len());
    for (index, made) in world.made.iter().enumerate() {
        // Drawn for every movie, so that the draws of the others do not depend on what was seen.
        let noise = gumbel(rng);
        if seen[index] || made.released_ms > at_ms {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds far below 2^53")]
        let age_days = (at_ms - made.released_ms) as f64 / DAY_MS as f64;
        let newness = NEWNESS * (-age_days / NEWNESS_DAYS).exp();
        keyed.push((
            made.fame + newness + TASTE_IN_CHOICE * tastes[index] + noise,
            index,
        ));
    }
    keyed.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    keyed.truncate(size);
    keyed.into_iter().map(|(_, index)| index).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "half stars from 0.5 to 5")]
fn stars(rng: &mut ChaCha12Rng, who: &User, made: &Made, taste: f64) -> f32 {
    let liked = MEAN_STARS + who.leniency + made.quality + TASTE_IN_STARS * (taste - 0.5) + 0.5 * normal(rng);
    ((liked * 2.0).round() / 2.0).clamp(0.5, 5.0) as f32
}
