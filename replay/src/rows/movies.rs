//! Columns of `movies`, both ways: the catalogue is kept whole, so a restart reads its file back.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, StringBuilder, UInt16Builder, UInt32Builder};
use datafusion::arrow::datatypes::{UInt16Type, UInt32Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_schemas::{Movie, MovieId, SchemaVersion};

use super::Texts;
use crate::table::Table;

/// The catalogue as one batch.
pub(crate) fn movies_batch<'a>(movies: impl Iterator<Item = &'a Movie>) -> Result<RecordBatch, ArrowError> {
    let mut movie_id = UInt32Builder::new();
    let mut title = StringBuilder::new();
    let mut year = UInt16Builder::new();
    let mut genres = Texts::default();
    let mut imdb_id = StringBuilder::new();
    let mut tmdb_id = UInt32Builder::new();
    for movie in movies {
        movie_id.append_value(movie.movie_id.0);
        title.append_value(&movie.title);
        year.append_option(movie.year);
        genres.append(&movie.genres);
        imdb_id.append_option(movie.imdb_id.as_deref());
        tmdb_id.append_option(movie.tmdb_id);
    }
    RecordBatch::try_new(
        Table::Movies.schema(),
        vec![
            Arc::new(movie_id.finish()),
            Arc::new(title.finish()),
            Arc::new(year.finish()),
            Arc::new(genres.0.finish()),
            Arc::new(imdb_id.finish()),
            Arc::new(tmdb_id.finish()),
        ],
    )
}

/// The movies of a batch that [`movies_batch`] made; `None` if its columns are not those of the table.
pub(crate) fn movies_of(batch: &RecordBatch) -> Option<Vec<Movie>> {
    let movie_id = batch
        .column_by_name("movie_id")?
        .as_primitive_opt::<UInt32Type>()?;
    let title = batch.column_by_name("title")?.as_string_opt::<i32>()?;
    let year = batch.column_by_name("year")?.as_primitive_opt::<UInt16Type>()?;
    let genres = batch.column_by_name("genres")?.as_list_opt::<i32>()?;
    let imdb_id = batch.column_by_name("imdb_id")?.as_string_opt::<i32>()?;
    let tmdb_id = batch
        .column_by_name("tmdb_id")?
        .as_primitive_opt::<UInt32Type>()?;
    (0..batch.num_rows())
        .map(|row| {
            let names = genres.value(row);
            let names = names.as_string_opt::<i32>()?;
            Some(Movie {
                schema_version: SchemaVersion,
                movie_id: MovieId(movie_id.value(row)),
                title: title.value(row).to_owned(),
                year: year.is_valid(row).then(|| year.value(row)),
                genres: names.iter().flatten().map(str::to_owned).collect(),
                imdb_id: imdb_id.is_valid(row).then(|| imdb_id.value(row).to_owned()),
                tmdb_id: tmdb_id.is_valid(row).then(|| tmdb_id.value(row)),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_survives_its_columns() {
        let movie = |id: u32, known: bool| Movie {
            schema_version: SchemaVersion,
            movie_id: MovieId(id),
            title: format!("Movie, \"{id}\""),
            year: known.then_some(1995),
            genres: if known {
                vec!["Drama".into(), "War".into()]
            } else {
                vec![]
            },
            imdb_id: known.then(|| "0114709".into()),
            tmdb_id: known.then_some(862),
        };
        let movies = vec![movie(1, true), movie(2, false)];
        assert_eq!(movies_of(&movies_batch(movies.iter()).unwrap()).unwrap(), movies);
    }
}
