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
