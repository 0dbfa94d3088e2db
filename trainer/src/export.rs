//! A version as files for other tools.
//!
//! ```text
//! exports/v000003/
//!   top10_recommendations_with_titles.csv   user_id, rank (from 1), movie_id, title, year, score
//!   user_factors.parquet                    user_id: uint64, vector: fixed_size_list<float32>
//!   item_factors.parquet                    movie_id: uint32, title: utf8, vector: fixed_size_list<float32>
//!   item_index.safetensors                  the movies' factors as a [`marquee_models::ann::VectorIndex`], by dense index
//!   id_maps.json                            dense index → public id, for users and movies
//!   export.json                             the version, its bundle's digest, how the factors were fitted
//! ```
//!
//! The recommendations are what the model serves to each user of its own training data, as of that data's end. The
//! served model scores items without latent factors, so the embeddings are those of an implicit ALS fitted here on the
//! same positives. A folder is written under a temporary name and renamed: it is complete or absent.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use marquee_models::Interactions;
use marquee_models::als::{Als, AlsParams};
use marquee_models::ann::{Metric, VectorIndex, VectorIndexParams};
use marquee_models::live::LiveState;
use marquee_models::served::{Context, Query, ScoreScratch};
use marquee_schemas::ModelVersion;
use ndarray::ArrayView2;
use parquet::arrow::ArrowWriter;
use rayon::prelude::*;

use crate::Bundle;
use crate::durable::{sync_dir, write_synced};
use crate::snapshot::Snapshot;

/// Says that an export is complete.
const ABOUT: &str = "export.json";
/// Recommendations per user.
const LIST: usize = 10;

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The numerics refused.
    #[error(transparent)]
    Model(#[from] marquee_models::Error),
    /// The table cannot be written.
    #[error("writing {}: {detail}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The folder.
    pub path: PathBuf,
    /// Users with recommendations.
    pub users: usize,
    /// Movies with factors.
    pub movies: usize,
    /// Length of a factor.
    pub factors: usize,
}

/// Writes `bundle`, with the data it was fitted on, into a folder of its version below `exports`, over what was there.
///
/// # Errors
/// [`ExportError`]; the folder is then absent or what it was.
pub fn export(bundle: &Bundle, snapshot: &Snapshot, exports: &Path) -> Result<Exported, ExportError> {
    let version = &bundle.manifest.version.0;
    let finished = exports.join(version);
    let growing = exports.join(format!(".{version}.tmp"));
    remove_if_there(&growing)?;
    fs::create_dir_all(&growing).map_err(io_at(&growing))?;

    let csv = recommendations(bundle, snapshot)?;
    write(&growing.join("top10_recommendations_with_titles.csv"), &csv)?;
    let params = AlsParams::default();
    let factors = params.factors;
    let als = Als::fit(&positives(snapshot)?, &params.check()?)?;
    let users = UInt64Array::from_iter_values(snapshot.users.iter().map(|user| user.0));
    write_table(
        &growing.join("user_factors.parquet"),
        vec![
            ("user_id", Arc::new(users) as ArrayRef),
            ("vector", vectors(als.user_factors())),
        ],
    )?;
    let movies = UInt32Array::from_iter_values(snapshot.movies.iter().map(|movie| movie.movie_id.0));
    let titles = StringArray::from_iter_values(snapshot.movies.iter().map(|movie| &movie.title));
    write_table(
        &growing.join("item_factors.parquet"),
        vec![
            ("movie_id", Arc::new(movies) as ArrayRef),
            ("title", Arc::new(titles)),
            ("vector", vectors(als.item_factors())),
        ],
    )?;
    let index = VectorIndex::build(
        als.item_factors(),
        Some(als.user_factors()),
        Metric::InnerProduct,
        &VectorIndexParams::default().check()?,
        bundle.manifest.seed,
    )?;
    let tensors = index.to_tensors().serialize(None)?;
    write(&growing.join("item_index.safetensors"), &tensors)?;
    let ids = serde_json::json!({
        "users": snapshot.users,
        "movies": snapshot.movies.iter().map(|movie| movie.movie_id).collect::<Vec<_>>(),
    });
    write(&growing.join("id_maps.json"), ids.to_string().as_bytes())?;
    let about = serde_json::json!({
        "version": version,
        "bundle_sha256": bundle.sha256,
        "factors": {"model": "implicit ALS on positives", "length": factors},
        "users": snapshot.users.len(),
        "movies": snapshot.movies.len(),
    });
    write(&growing.join(ABOUT), format!("{about:#}\n").as_bytes())?;
    sync_dir(&growing).map_err(io_at(&growing))?;
    remove_if_there(&finished)?;
    fs::rename(&growing, &finished).map_err(io_at(&finished))?;
    sync_dir(exports).map_err(io_at(exports))?;
    Ok(Exported {
        path: finished,
        users: snapshot.users.len(),
        movies: snapshot.movies.len(),
        factors,
    })
}

/// Whether a version's export is there.
pub(crate) fn is_there(exports: &Path, version: &ModelVersion) -> bool {
    exports.join(&version.0).join(ABOUT).is_file()
}

/// Removes all exports but the `keep` newest. Only folders that are named as versions are touched.
pub(crate) fn prune(exports: &Path, keep: usize) -> Result<(), ExportError> {
    let mut versions: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(exports).map_err(io_at(exports))? {
        let entry = entry.map_err(io_at(exports))?;
        let version = ModelVersion(entry.file_name().to_string_lossy().into_owned());
        versions.extend(version.ordinal().map(|ordinal| (ordinal, entry.path())));
    }
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
        .iter()
        .skip(keep.max(1))
        .try_for_each(|(_, path)| remove_if_there(path))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ExportError + use<> {
    let path = path.to_path_buf();
    move |source| ExportError::Io { path, source }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    write_synced(path, bytes).map_err(io_at(path))
}

fn remove_if_there(path: &Path) -> Result<(), ExportError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at(path)(error)),
        _ => Ok(()),
    }
}

/// Everybody's list as CSV, by ascending user.
fn recommendations(bundle: &Bundle, snapshot: &Snapshot) -> Result<Vec<u8>, ExportError> {
    let model = &bundle.model;
    let mut live = LiveState::new(model.params().live.clone())?;
    live.ensure_items(snapshot.catalogue.len());
    for event in &snapshot.interactions {
        live.observe(event);
    }
    let binding = model.bind_catalogue(&snapshot.catalogue);
    let lists: Vec<_> = (0..snapshot.users.len() as u32)
        .into_par_iter()
        .map_init(ScoreScratch::new, |scratch, user| {
            let query = Query {
                binding: &binding,
                live: &live,
                context: Context::of_user(&live, user),
                now_ms: snapshot.until_ms(),
            };
            model.recommend(&query, LIST, |_| false, scratch).items
        })
        .collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let refused = |error: csv::Error| ExportError::Table {
        path: "top10_recommendations_with_titles.csv".into(),
        detail: error.to_string(),
    };
    csv.write_record(["user_id", "rank", "movie_id", "title", "year", "score"])
        .map_err(refused)?;
    for (user, list) in snapshot.users.iter().zip(&lists) {
        for (rank, item) in (1..).zip(list) {
            let Some(movie) = snapshot.movies.get(item.item as usize) else {
                continue;
            };
            csv.serialize((
                user.0,
                rank,
                movie.movie_id.0,
                &movie.title,
                movie.year,
                item.score,
            ))
            .map_err(refused)?;
        }
    }
    csv.into_inner().map_err(|error| ExportError::Table {
        path: "top10_recommendations_with_titles.csv".into(),
        detail: error.to_string(),
    })
}

/// Who liked what.
fn positives(snapshot: &Snapshot) -> Result<Interactions, marquee_models::Error> {
    let mut pairs: Vec<(u32, u32)> = snapshot
        .interactions
        .iter()
        .filter(|event| event.is_like())
        .map(|event| (event.user, event.item))
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let triplets: Vec<(u32, u32, f32)> = pairs.into_iter().map(|(user, item)| (user, item, 1.0)).collect();
    Interactions::from_triplets(snapshot.users.len(), snapshot.movies.len(), &triplets)
}

fn vectors(factors: ArrayView2<'_, f32>) -> ArrayRef {
    let width = i32::try_from(factors.ncols()).unwrap_or(i32::MAX);
    let rows = factors.rows().into_iter();
    let rows = rows.map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>()));
    Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        rows, width,
    ))
}

fn write_table(path: &Path, columns: Vec<(&str, ArrayRef)>) -> Result<(), ExportError> {
    let refused = |detail: String| ExportError::Table {
        path: path.to_path_buf(),
        detail,
    };
    let batch = RecordBatch::try_from_iter(columns).map_err(|error| refused(error.to_string()))?;
    let file = File::create(path).map_err(io_at(path))?;
    let mut writer = ArrowWriter::try_new(BufWriter::new(file), batch.schema(), None)
        .map_err(|error| refused(error.to_string()))?;
    writer.write(&batch).map_err(|error| refused(error.to_string()))?;
    let file = writer.into_inner().map_err(|error| refused(error.to_string()))?;
    let file = file.into_inner().map_err(|error| refused(error.to_string()))?;
    file.sync_all().map_err(io_at(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use arrow_array::Array;
    use marquee_models::tensors::TensorMap;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn table(path: &Path) -> RecordBatch {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        builder.build().unwrap().next().unwrap().unwrap()
    }

    #[test]
    fn every_user_gets_ten_unseen_movies_with_titles_and_every_id_a_vector() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = testing::snapshot(600);
        let bundle = testing::bundle(600);
        // A folder that is there already is replaced.
        export(&bundle, &snapshot, dir.path()).unwrap();
        let exported = export(&bundle, &snapshot, dir.path()).unwrap();
        assert_eq!((exported.users, exported.movies), (30, 200));

        let path = exported.path.join("top10_recommendations_with_titles.csv");
        let mut reader = csv::Reader::from_path(path).unwrap();
        let rows: Vec<(u64, u32, u32, String, Option<u16>, f32)> =
            reader.deserialize().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), 300);
        let touched: std::collections::BTreeSet<(u64, u32)> = snapshot
            .interactions
            .iter()
            .map(|event| {
                let movie = &snapshot.movies[event.item as usize];
                (snapshot.users[event.user as usize].0, movie.movie_id.0)
            })
            .collect();
        for (user, rank, movie, title, _, score) in &rows {
            assert!((1..=10).contains(rank) && score.is_finite());
            assert_eq!(title, &format!("Movie {movie}"));
            assert!(!touched.contains(&(*user, *movie)));
        }

        let users = table(&exported.path.join("user_factors.parquet"));
        let items = table(&exported.path.join("item_factors.parquet"));
        assert_eq!((users.num_rows(), items.num_rows()), (30, 200));
        let vectors = items.column_by_name("vector").unwrap();
        let vectors = vectors.as_any().downcast_ref::<FixedSizeListArray>().unwrap();
        assert_eq!(vectors.value_length() as usize, exported.factors);
        assert_eq!(vectors.null_count(), 0);
        let bytes = fs::read(exported.path.join("item_index.safetensors")).unwrap();
        let (tensors, _) = TensorMap::deserialize(&bytes).unwrap();
        let index = VectorIndex::from_tensors(tensors).unwrap();
        assert_eq!((index.len(), index.dimensions()), (200, exported.factors));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_newest_exports_stay_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["v000002", "v000010", "v000009", "notes"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(ABOUT), b"{}").unwrap();
        }
        prune(dir.path(), 2).unwrap();
        let there = |name: &str| is_there(dir.path(), &ModelVersion(name.into()));
        assert!(there("v000010") && there("v000009") && there("notes") && !there("v000002"));
    }
}
