//! The catalogue, a compacted topic: the newest record of a movie replaces the older ones, an empty one removes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DecodeError, MovieId, Record, SchemaVersion, Topic};

/// The longest title accepted, in characters.
pub const MAX_TITLE_CHARS: usize = 512;

/// One movie of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Movie {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// The key.
    pub movie_id: MovieId,
    /// Title without its year.
    pub title: String,
    /// Year of release, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year: Option<u16>,
    /// Genres; empty where none is listed.
    #[serde(default)]
    pub genres: Vec<String>,
    /// Digits of the IMDb id (`0114709` in `tt0114709`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imdb_id: Option<String>,
    /// The Movie Database's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmdb_id: Option<u32>,
}

/// Genres with a bit of their own in [`genre_bit`], in bit order. Append only: stored models rest on the order.
const GENRE_BITS: [&str; 19] = [
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "IMAX",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];

/// The genre's bit in a set of genres held as `u32`, the same in training and serving. The usual genres have a bit
/// each; any other name shares one of the remaining bits, chosen by its hash (FNV-1a), so that no list of genres has
/// to be agreed upon first.
#[must_use]
pub fn genre_bit(name: &str) -> u32 {
    // The older data sets write the possessive.
    let name = if name == "Children's" { "Children" } else { name };
    let place = GENRE_BITS
        .iter()
        .position(|&known| known == name)
        .unwrap_or_else(|| {
            let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
            });
            GENRE_BITS.len() + hash as usize % (32 - GENRE_BITS.len())
        });
    1 << place
}

impl Movie {
    /// The movie's genres as bits, see [`genre_bit`].
    #[must_use]
    pub fn genre_bits(&self) -> u32 {
        self.genres.iter().fold(0, |bits, genre| bits | genre_bit(genre))
    }
}

impl Record for Movie {
    const TOPIC: Topic = Topic::Movies;

    fn key(&self) -> Vec<u8> {
        self.movie_id.to_string().into_bytes()
    }

    fn check(&self) -> Result<(), DecodeError> {
        let chars = self.title.chars().count();
        if chars == 0 || chars > MAX_TITLE_CHARS {
            return Err(DecodeError::Invalid {
                field: "title",
                detail: format!("{chars} characters, allowed are 1 to {MAX_TITLE_CHARS}"),
            });
        }
        if self.genres.len() > 32 {
            return Err(DecodeError::Invalid {
                field: "genres",
                detail: format!("{} genres, allowed are 32", self.genres.len()),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_genres_have_a_bit_each_and_others_share_the_rest() {
        let bits = GENRE_BITS.iter().fold(0, |bits, genre| bits | genre_bit(genre));
        assert_eq!(bits, (1 << GENRE_BITS.len()) - 1);
        assert_eq!(genre_bit("Children's"), genre_bit("Children"));
        assert_eq!(genre_bit("Kaiju") & bits, 0);
        assert_eq!(genre_bit("Kaiju"), genre_bit("Kaiju"));
    }
}
