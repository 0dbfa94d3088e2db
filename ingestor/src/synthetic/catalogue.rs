//! Movies with names, genres, release dates, fame, quality and latent factors.

use std::collections::HashSet;

use marquee_schemas::{Movie, MovieId, SchemaVersion};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::SyntheticConfig;
use super::random::{normal, stream, unit};

pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const DAYS_PER_YEAR: f64 = 365.2425;

/// MovieLens' genres with how common they are, roughly as in ml-latest-small.
pub(super) const GENRES: [(&str, f64); 18] = [
    ("Action", 18.0),
    ("Adventure", 13.0),
    ("Animation", 6.0),
    ("Children", 7.0),
    ("Comedy", 38.0),
    ("Crime", 12.0),
    ("Documentary", 4.0),
    ("Drama", 44.0),
    ("Fantasy", 8.0),
    ("Film-Noir", 1.0),
    ("Horror", 10.0),
    ("Musical", 3.0),
    ("Mystery", 6.0),
    ("Romance", 16.0),
    ("Sci-Fi", 10.0),
    ("Thriller", 19.0),
    ("War", 4.0),
    ("Western", 2.0),
];

const ADJECTIVES: [&str; 32] = [
    "Silent",
    "Crimson",
    "Last",
    "Hidden",
    "Broken",
    "Golden",
    "Endless",
    "Midnight",
    "Electric",
    "Forgotten",
    "Burning",
    "Distant",
    "Paper",
    "Restless",
    "Hollow",
    "Winter",
    "Second",
    "Quiet",
    "Velvet",
    "Savage",
    "Lonely",
    "Glass",
    "Northern",
    "Invisible",
    "Borrowed",
    "Wandering",
    "Iron",
    "Secret",
    "Pale",
    "Reckless",
    "Emerald",
    "Faithful",
];

const NOUNS: [&str; 40] = [
    "Harbor",
    "Garden",
    "River",
    "Empire",
    "Letter",
    "Horizon",
    "Kingdom",
    "Station",
    "Promise",
    "Mountain",
    "Orchard",
    "Mirror",
    "Lighthouse",
    "Stranger",
    "Summer",
    "Carnival",
    "Engine",
    "Island",
    "Shadow",
    "Witness",
    "Orchestra",
    "Detective",
    "Highway",
    "Palace",
    "Voyage",
    "Machine",
    "Daughter",
    "Soldier",
    "Circus",
    "Bridge",
    "Prophet",
    "Balloon",
    "Cathedral",
    "Comet",
    "Outlaw",
    "Waltz",
    "Fortune",
    "Frontier",
    "Sparrow",
    "Tempest",
];

/// A movie as its makers know it.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) movie: Movie,
    /// Indices into [`GENRES`].
    pub(super) genres: Vec<usize>,
    pub(super) factors: Vec<f64>,
    /// Log-odds of being chosen by somebody without taste.
    pub(super) fame: f64,
    /// Stars above or below the mean.
    pub(super) quality: f64,
    /// Before this time nobody can see it, ms.
    pub(super) released_ms: i64,
}

#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) made: Vec<Made>,
}

impl Catalogue {
    pub(super) fn generate(config: &SyntheticConfig) -> Self {
        let mut rng = stream(config.seed, 0);
        let centroids: Vec<Vec<f64>> = GENRES.iter().map(|_| vector(&mut rng, config.factors)).collect();
        let mut titles = HashSet::new();
        let made = (1..=config.movies)
            .map(|id| make(config, &mut rng, &centroids, &mut titles, id))
            .collect();
        Self { made }
    }

    pub(super) fn into_movies(self) -> Vec<Movie> {
        self.made.into_iter().map(|made| made.movie).collect()
    }
}

fn make(
    config: &SyntheticConfig,
    rng: &mut ChaCha12Rng,
    centroids: &[Vec<f64>],
    titles: &mut HashSet<String>,
    id: u32,
) -> Made {
    let genres = draw_genres(rng);
    let own = vector(rng, config.factors);
    let factors = (0..config.factors)
        .map(|k| {
            #[expect(clippy::cast_precision_loss, reason = "at most three genres")]
            let lean =
                genres.iter().map(|&genre| centroids[genre][k]).sum::<f64>() / (genres.len() as f64).sqrt();
            (lean + own[k]) * std::f64::consts::FRAC_1_SQRT_2
        })
        .collect();
    let released_ms = draw_release(config, rng);
    Made {
        movie: Movie {
            schema_version: SchemaVersion,
            movie_id: MovieId(id),
            title: draw_title(rng, titles),
            year: Some(year_of(released_ms)),
            genres: genres.iter().map(|&genre| GENRES[genre].0.to_owned()).collect(),
            imdb_id: None,
            tmdb_id: None,
        },
        genres,
        factors,
        // A normal logarithm gives the long tail that catalogues have.
        fame: 1.2 * normal(rng),
        quality: 0.4 * normal(rng),
        released_ms,
    }
}

pub(super) fn vector(rng: &mut ChaCha12Rng, len: usize) -> Vec<f64> {
    (0..len).map(|_| normal(rng)).collect()
}

fn draw_genres(rng: &mut ChaCha12Rng) -> Vec<usize> {
    let wanted = 1 + usize::from(rng.random_bool(0.65)) + usize::from(rng.random_bool(0.35));
    let total: f64 = GENRES.iter().map(|(_, weight)| weight).sum();
    let mut genres = Vec::with_capacity(wanted);
    while genres.len() < wanted {
        let mut at = unit(rng) * total;
        let found = GENRES.iter().position(|(_, weight)| {
            at -= weight;
            at <= 0.0
        });
        let genre = found.unwrap_or(GENRES.len() - 1);
        if !genres.contains(&genre) {
            genres.push(genre);
        }
    }
    genres.sort_unstable();
    genres
}

/// One in seven comes out while the data set runs; the others before, the newer the more.
fn draw_release(config: &SyntheticConfig, rng: &mut ChaCha12Rng) -> i64 {
    let during = rng.random_bool(1.0 / 7.0);
    let share = unit(rng);
    let days = if during {
        share * f64::from(config.span_days)
    } else {
        -(share * share * 60.0 * DAYS_PER_YEAR)
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most some tens of thousands of days"
    )]
    let ms = (days as i64) * DAY_MS;
    config.start_ms + ms
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "years from 1900 to 3100"
)]
fn year_of(ms: i64) -> u16 {
    let years = ms as f64 / (DAY_MS as f64 * DAYS_PER_YEAR);
    (1970.0 + years.floor()).clamp(1900.0, 3100.0) as u16
}

fn draw_title(rng: &mut ChaCha12Rng, titles: &mut HashSet<String>) -> String {
    let adjective = ADJECTIVES[rng.random_range(0..ADJECTIVES.len())];
    let noun = NOUNS[rng.random_range(0..NOUNS.len())];
    let other = NOUNS[rng.random_range(0..NOUNS.len())];
    let title = match rng.random_range(0..4) {
        // Articles go behind, as in MovieLens.
        0 => format!("{adjective} {noun}, The"),
        1 => format!("{adjective} {noun}"),
        2 => format!("{noun} of the {adjective} {other}, The"),
        _ => format!("{noun} and the {other}, The"),
    };
    let mut unique = title.clone();
    let mut part = 2_u32;
    while !titles.insert(unique.clone()) {
        unique = format!("{title} {part}");
        part += 1;
    }
    unique
}
