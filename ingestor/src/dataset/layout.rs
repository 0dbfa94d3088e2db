//! The layouts in which MovieLens data sets are published.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use marquee_schemas::{Movie, MovieId, Record, SchemaVersion, UserId};

use super::text::{Damage, csv_rows, lines};
use super::{DamagedRows, Dataset, Rating, title};
use crate::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// ml-100k: `u.data` by tabs, `u.item` by bars with a flag per genre, `u.genre`.
    Tabs,
    /// ml-1m, ml-10m: `ratings.dat`, `movies.dat` by double colons.
    DoubleColons,
    /// ml-20m and everything later: `ratings.csv`, `movies.csv`, `links.csv`.
    Csv,
}

impl Layout {
    const ALL: [Self; 3] = [Self::Csv, Self::DoubleColons, Self::Tabs];

    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Tabs => &["u.data", "u.item", "u.genre"],
            Self::DoubleColons => &["ratings.dat", "movies.dat"],
            // Movies without links are fine.
            Self::Csv => &["ratings.csv", "movies.csv"],
        }
    }
}

/// Whether the directory holds at least one of a layout's files.
pub(super) fn recognised(dir: &Path) -> bool {
    Layout::ALL
        .iter()
        .any(|layout| layout.files().iter().any(|file| dir.join(file).is_file()))
}

fn detect(dir: &Path) -> Result<Layout, Error> {
    let wrong = |detail: String| Error::Layout {
        dir: dir.to_path_buf(),
        detail,
    };
    if !dir.is_dir() {
        return Err(wrong("no such directory".into()));
    }
    let missing = |layout: Layout| -> Vec<&str> {
        let files = layout.files().iter().copied();
        files.filter(|file| !dir.join(file).is_file()).collect()
    };
    let mut nearest = None;
    for layout in Layout::ALL {
        let missing = missing(layout);
        if missing.is_empty() {
            return Ok(layout);
        }
        if missing.len() < layout.files().len() {
            nearest.get_or_insert(missing);
        }
    }
    Err(wrong(nearest.map_or_else(
        || "no MovieLens data set: neither ratings.csv nor ratings.dat nor u.data is there".to_owned(),
        |missing| format!("incomplete data set: {} is missing", missing.join(" and ")),
    )))
}

pub(super) fn load(dir: &Path, damaged: DamagedRows) -> Result<Dataset, Error> {
    let layout = detect(dir)?;
    let mut parts = Parts {
        dir: dir.to_path_buf(),
        damage: Damage::new(damaged),
        movies: Vec::new(),
        known: HashSet::new(),
        ratings: Vec::new(),
    };
    match layout {
        Layout::Tabs => parts.tabs()?,
        Layout::DoubleColons => parts.double_colons()?,
        Layout::Csv => parts.csv()?,
    }
    if parts.movies.is_empty() || parts.ratings.is_empty() {
        let what = if parts.movies.is_empty() {
            "movie"
        } else {
            "rating"
        };
        return Err(Error::Layout {
            dir: dir.to_path_buf(),
            detail: format!("not one {what} in it"),
        });
    }
    // The name of `.` is the name of what it stands for.
    let name = std::fs::canonicalize(dir)
        .map_err(Error::io(dir))?
        .file_name()
        .map_or_else(
            || "dataset".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
    let mut dataset = Dataset::new(name, parts.movies, parts.ratings);
    dataset.skipped_rows = parts.damage.skipped;
    Ok(dataset)
}

struct Parts {
    dir: PathBuf,
    damage: Damage,
    movies: Vec<Movie>,
    known: HashSet<MovieId>,
    ratings: Vec<Rating>,
}

impl Parts {
    fn tabs(&mut self) -> Result<(), Error> {
        let Self {
            dir,
            damage,
            movies,
            known,
            ratings,
        } = self;
        let mut genres: Vec<String> = Vec::new();
        lines(&dir.join("u.genre"), damage, |line| {
            let (name, number) = line.split_once('|').ok_or("not 'name|number'")?;
            let number: usize = number_of("genre number", number)?;
            if number != genres.len() {
                return Err(format!("genre number {number}, expected {}", genres.len()));
            }
            genres.push(name.trim().to_owned());
            Ok(())
        })?;
        let width = 5 + genres.len();
        lines(&dir.join("u.item"), damage, |line| {
            let fields: Vec<&str> = line.split('|').collect();
            if fields.len() != width {
                return Err(format!("{} fields, expected {width}", fields.len()));
            }
            let mut listed = Vec::new();
            for (flag, genre) in fields[5..].iter().zip(&genres) {
                match flag.trim() {
                    "0" => {}
                    "1" if genre == "unknown" => {}
                    "1" => listed.push(genre.clone()),
                    other => return Err(format!("flag {other:?} for genre {genre}, expected 0 or 1")),
                }
            }
            add_movie(movies, known, fields[0], fields[1], listed)
        })?;
        lines(&dir.join("u.data"), damage, |line| {
            let fields = line.split('\t');
            ratings.push(rating(four(fields)?)?);
            Ok(())
        })
    }

    fn double_colons(&mut self) -> Result<(), Error> {
        let Self {
            dir,
            damage,
            movies,
            known,
            ratings,
        } = self;
        lines(&dir.join("movies.dat"), damage, |line| {
            // A title may itself hold '::'; the id and the genres cannot.
            let parts = line.split_once("::").and_then(|(id, rest)| {
                let (title, genres) = rest.rsplit_once("::")?;
                Some((id, title, genres))
            });
            let (id, title, genres) = parts.ok_or("not 'id::title::genres'")?;
            add_movie(movies, known, id, title, genres_of(genres))
        })?;
        lines(&dir.join("ratings.dat"), damage, |line| {
            ratings.push(rating(four(line.split("::"))?)?);
            Ok(())
        })
    }

    fn csv(&mut self) -> Result<(), Error> {
        let Self {
            dir,
            damage,
            movies,
            known,
            ratings,
        } = self;
        let columns = ["movieId", "title", "genres"];
        csv_rows(&dir.join("movies.csv"), columns, damage, |[id, title, genres]| {
            add_movie(movies, known, id, title, genres_of(genres))
        })?;
        let links = dir.join("links.csv");
        if links.is_file() {
            let index: HashMap<MovieId, usize> = movies
                .iter()
                .enumerate()
                .map(|(at, m)| (m.movie_id, at))
                .collect();
            csv_rows(
                &links,
                ["movieId", "imdbId", "tmdbId"],
                damage,
                |[id, imdb, tmdb]| {
                    let id = MovieId(number_of("movieId", id)?);
                    let (imdb, tmdb) = (imdb.trim(), tmdb.trim());
                    if !imdb.bytes().all(|b| b.is_ascii_digit()) || imdb.len() > 16 {
                        return Err(format!("imdbId {imdb:?} is not a number"));
                    }
                    let tmdb = (!tmdb.is_empty())
                        .then(|| number_of("tmdbId", tmdb))
                        .transpose()?;
                    if let Some(&at) = index.get(&id) {
                        movies[at].imdb_id = (!imdb.is_empty()).then(|| imdb.to_owned());
                        movies[at].tmdb_id = tmdb;
                    }
                    Ok(())
                },
            )?;
        }
        let columns = ["userId", "movieId", "rating", "timestamp"];
        csv_rows(&dir.join("ratings.csv"), columns, damage, |fields| {
            ratings.push(rating(fields)?);
            Ok(())
        })
    }
}

fn four<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<[&'a str; 4], String> {
    let found = [fields.next(), fields.next(), fields.next(), fields.next()];
    match (found, fields.next()) {
        ([Some(user), Some(movie), Some(stars), Some(time)], None) => Ok([user, movie, stars, time]),
        _ => Err("expected the four fields user, movie, rating, timestamp".to_owned()),
    }
}

fn number_of<T: FromStr>(what: &str, text: &str) -> Result<T, String> {
    let text = text.trim();
    text.parse()
        .map_err(|_| format!("{what} {text:?} is not a number in range"))
}

fn rating([user, movie, stars, time]: [&str; 4]) -> Result<Rating, String> {
    let user_id = UserId(number_of("user", user)?);
    if user_id > UserId::MAX {
        return Err(format!("user {user_id} is above 2^53 - 1"));
    }
    let movie_id = MovieId(number_of("movie", movie)?);
    let rating: f32 = number_of("rating", stars)?;
    if !(0.5..=5.0).contains(&rating) {
        return Err(format!("rating {rating} is outside 0.5 to 5"));
    }
    let seconds: i64 = number_of("timestamp", time)?;
    let timestamp_ms = seconds
        .checked_mul(1000)
        .filter(|&ms| ms > 0)
        .ok_or_else(|| format!("timestamp {seconds} is not a time in seconds"))?;
    Ok(Rating {
        user_id,
        movie_id,
        rating,
        timestamp_ms,
    })
}

fn genres_of(field: &str) -> Vec<String> {
    let names = field.split('|').map(str::trim);
    names
        .filter(|name| !name.is_empty() && *name != "(no genres listed)")
        .map(str::to_owned)
        .collect()
}

fn add_movie(
    movies: &mut Vec<Movie>,
    known: &mut HashSet<MovieId>,
    id: &str,
    field: &str,
    genres: Vec<String>,
) -> Result<(), String> {
    let movie_id = MovieId(number_of("movie", id)?);
    let (title, year) = title::split(field);
    let movie = Movie {
        schema_version: SchemaVersion,
        movie_id,
        title,
        year,
        genres,
        imdb_id: None,
        tmdb_id: None,
    };
    movie.check().map_err(|error| error.to_string())?;
    if !known.insert(movie_id) {
        return Err(format!("movie {movie_id} is in the catalogue twice"));
    }
    movies.push(movie);
    Ok(())
}
