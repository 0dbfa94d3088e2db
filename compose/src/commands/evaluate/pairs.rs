//! (user, movie) pairs for the random-split protocol: a data set's ratings, or a Parquet file of bare pairs.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::data;
use crate::cli::DatasetArgs;
use crate::ingest;

/// A file in a data set's folder that holds users and movies alone.
const PAIRS_FILE: &str = "user-movie-pairs.parquet";

/// Dense pairs, users and movies each numbered in ascending order of their ids.
pub(super) fn load(args: &DatasetArgs) -> Result<Vec<(u32, u32)>> {
    match pairs_file(args) {
        Some(file) => read(&file).with_context(|| format!("reading the pairs in {}", file.display())),
        None => data::rated_pairs(args),
    }
}

/// The file of bare pairs, if there is one where the data set would lie.
fn pairs_file(args: &DatasetArgs) -> Option<PathBuf> {
    ingest::places(args)
        .into_iter()
        .map(|folder| folder.join(PAIRS_FILE))
        .find(|file| file.is_file())
}

/// Reads the first two columns, whatever type their numbers have.
fn read(file: &Path) -> Result<Vec<(u32, u32)>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.build()?;
    let mut pairs = Vec::new();
    for batch in reader {
        let batch = batch?;
        ensure!(
            batch.num_columns() >= 2,
            "it has {} columns, expected users and movies",
            batch.num_columns()
        );
        let [users, movies] = [0, 1].map(|column| {
            let numbers = cast(batch.column(column), &DataType::UInt32)?;
            ensure!(
                numbers.null_count() == 0,
                "column {} holds something that is no number",
                batch.schema().field(column).name()
            );
            Ok(numbers)
        });
        let (users, movies) = (users?, movies?);
        let users = users.as_primitive::<UInt32Type>().values();
        let movies = movies.as_primitive::<UInt32Type>().values();
        pairs.extend(users.iter().copied().zip(movies.iter().copied()));
    }
    Ok(dense(pairs.into_iter()))
}

/// Renumbers users and movies from 0, in ascending order.
pub(super) fn dense(pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Vec<(u32, u32)> {
    let users: BTreeSet<u32> = pairs.clone().map(|(user, _)| user).collect();
    let items: BTreeSet<u32> = pairs.clone().map(|(_, item)| item).collect();
    let (users, items): (Vec<u32>, Vec<u32>) = (users.into_iter().collect(), items.into_iter().collect());
    let place = |ids: &[u32], id: u32| ids.partition_point(|&other| other < id) as u32;
    pairs
        .map(|(user, item)| (place(&users, user), place(&items, item)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
    use datafusion::parquet::arrow::ArrowWriter;

    use super::*;

    fn write(file: &Path, users: &[&str], movies: &[&str]) {
        let column = |values: &[&str]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let batch =
            RecordBatch::try_from_iter([("userID", column(users)), ("movieID", column(movies))]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(file).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn numbers_written_as_text_are_read_and_made_dense() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(PAIRS_FILE);
        write(&file, &["7", "3", "7"], &["50", "9", "9"]);
        assert_eq!(read(&file).unwrap(), [(1, 1), (0, 0), (1, 0)]);
    }

    #[test]
    fn what_is_no_number_is_refused_by_its_column() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(PAIRS_FILE);
        write(&file, &["7", "3"], &["50", "Casablanca"]);
        let refused = format!("{:#}", read(&file).unwrap_err());
        assert!(refused.contains("movieID"), "{refused}");
        std::fs::write(&file, "no parquet").unwrap();
        assert!(read(&file).is_err());
    }
}
