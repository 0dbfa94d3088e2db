//! A data set as the protocols want it.

use std::collections::HashMap;

use anyhow::{Context, Result};
use marquee_ingestor::Rating;
use marquee_models::evaluate::{Dataset, RawRating};
use marquee_models::served::CatalogueItem;
use marquee_schemas::UserId;
use marquee_trainer::GenreVocabulary;

use crate::cli::DatasetArgs;
use crate::ingest;

/// Loads, filters and splits a data set; never another one in its place.
pub(crate) fn prepared(args: &DatasetArgs) -> Result<Dataset> {
    let data = ingest::load_exactly(args)?;
    let genres = GenreVocabulary::of(&data.movies);
    let items: Vec<CatalogueItem> = data
        .movies
        .iter()
        .map(|movie| CatalogueItem {
            external_id: movie.movie_id.0,
            year: movie.year,
            genres: genres.mask(&movie.genres),
        })
        .collect();
    Dataset::prepare(&raw(&data.ratings), &items)
        .with_context(|| format!("preparing the data set {}", data.name))
}

/// Ratings with users renumbered by first appearance: the models' user numbers are narrower than public ones.
fn raw(ratings: &[Rating]) -> Vec<RawRating> {
    let mut users: HashMap<UserId, u32> = HashMap::new();
    ratings
        .iter()
        .map(|rating| {
            let next = users.len() as u32;
            RawRating {
                user: *users.entry(rating.user_id).or_insert(next),
                item: rating.movie_id.0,
                rating: rating.rating,
                time_ms: rating.timestamp_ms,
            }
        })
        .collect()
}

/// Dense (user, movie) pairs of a data set's ratings, whatever the stars.
pub(super) fn rated_pairs(args: &DatasetArgs) -> Result<Vec<(u32, u32)>> {
    let data = ingest::load_exactly(args)?;
    let pairs = raw(&data.ratings);
    Ok(super::pairs::dense(
        pairs.iter().map(|rating| (rating.user, rating.item)),
    ))
}
