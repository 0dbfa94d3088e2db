//! Rows that are in the topics but not in the lake yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::{Bus, BusError};

use super::HotOptions;
use super::session::Snapshot;
use crate::lake::Erasure;
use crate::rows::{movies_batch, movies_of};
use crate::sink::apply_movie;
use crate::table::Table;

/// Rows of one table.
#[derive(Debug, Default)]
pub(super) struct HotRows {
    pub(super) batches: Vec<RecordBatch>,
    /// The rows are the whole table (the catalogue, where newer records replace stored ones).
    pub(super) replaces_files: bool,
    /// Erasures among the records, by partition.
    pub(super) erasures: Vec<(i32, Erasure)>,
}

/// The hot tail of some tables.
#[derive(Debug, Default)]
pub(super) struct Hot {
    pub(super) tables: BTreeMap<Table, HotRows>,
    /// What a reader of the result should know.
    pub(super) notices: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("it took too long")]
    Overdue,
    #[error("{0}")]
    Other(String),
}

/// Reads what comes after `snapshot` in the topics of `tables`. Blocks; ends soon after `options.timeout_ms`.
/// Whatever cannot be read is left out and named in a notice: the lake alone is a correct, older answer.
pub(super) fn read(
    bus: &Bus,
    lake_dir: &std::path::Path,
    snapshot: &Snapshot,
    tables: &BTreeSet<Table>,
    options: &HotOptions,
) -> Hot {
    let mut hot = Hot::default();
    let deadline = Instant::now() + Duration::from_millis(options.timeout_ms);
    for &table in tables {
        match read_table(bus, lake_dir, snapshot, table, options, deadline) {
            Ok((rows, notice)) => {
                hot.tables.insert(table, rows);
                hot.notices.extend(notice);
            }
            Err(error) => hot.notices.push(format!(
                "{table}: the newest rows are missing, for they could not be read from the broker: {error}"
            )),
        }
    }
    hot
}

fn read_table(
    bus: &Bus,
    lake_dir: &std::path::Path,
    snapshot: &Snapshot,
    table: Table,
    options: &HotOptions,
    deadline: Instant,
) -> Result<(HotRows, Option<String>), BusError> {
    let from = snapshot.positions(table);
    let bounds = bus.watermarks_blocking(table.topic())?;
    let (to, left_out) = limited(&from, &bounds.0, options.max_records);
    let mut rows = table.rows();
    let mut movies = BTreeMap::new();
    let mut count = 0_usize;
    let mut erasures = Vec::new();
    let mut catalogue_loaded = false;
    bus.read_range(table.topic(), &from, &to, |record| -> Result<(), Stop> {
        if Instant::now() > deadline {
            return Err(Stop::Overdue);
        }
        if table == Table::Interactions
            && let Some(erasure) = Erasure::of(&record)
        {
            erasures.push((record.partition, erasure));
            return Ok(());
        }
        // Poison is the sink's business: it is dead-lettered when the sink gets there.
        match &mut rows {
            Some(rows) => count += usize::from(rows.push(&record).is_ok()),
            None => {
                if !catalogue_loaded {
                    movies = stored_movies(lake_dir, snapshot).map_err(|e| Stop::Other(e.to_string()))?;
                    catalogue_loaded = true;
                }
                count += usize::from(apply_movie(&mut movies, &record).is_ok());
            }
        }
        Ok(())
    })?;
    let notice = (left_out > 0).then(|| {
        format!(
            "{table}: about {left_out} of the newest records are missing, for the lake is that far behind"
        )
    });
    let arrow = |error: datafusion::arrow::error::ArrowError| BusError::Handler(Box::new(error));
    let rows = match rows {
        _ if count == 0 => HotRows {
            erasures,
            ..HotRows::default()
        },
        Some(mut rows) => HotRows {
            batches: vec![rows.finish().map_err(arrow)?],
            replaces_files: false,
            erasures,
        },
        None => HotRows {
            batches: vec![movies_batch(movies.values()).map_err(arrow)?],
            replaces_files: true,
            erasures,
        },
    };
    Ok((rows, notice))
}

/// Ends that keep the tail within `max` records, shared evenly, and how many records lie beyond them.
fn limited(
    from: &BTreeMap<i32, i64>,
    bounds: &BTreeMap<i32, (i64, i64)>,
    max: usize,
) -> (BTreeMap<i32, i64>, i64) {
    let share = i64::try_from(max / bounds.len().max(1)).unwrap_or(i64::MAX);
    let mut left_out = 0;
    let to = bounds
        .iter()
        .map(|(&partition, &(low, high))| {
            // A lake that is ahead belongs to another log; nothing is read then.
            let start = from.get(&partition).copied().unwrap_or(low).clamp(low, high);
            let end = high.min(start.saturating_add(share));
            left_out += high - end;
            (partition, end)
        })
        .collect();
    (to, left_out)
}

fn stored_movies(
    lake_dir: &std::path::Path,
    snapshot: &Snapshot,
) -> Result<BTreeMap<marquee_schemas::MovieId, marquee_schemas::Movie>, crate::Error> {
    let dir = lake_dir.join(Table::Movies.name());
    let mut movies = BTreeMap::new();
    for manifest in snapshot.0.get(&Table::Movies).into_iter().flatten() {
        for file in &manifest.files {
            let path = dir.join(&file.path);
            for batch in crate::lake::read_file(&path, &Table::Movies.schema())? {
                let found = movies_of(&batch).ok_or_else(|| {
                    crate::Error::damaged(&path, "its columns are not those of the catalogue")
                })?;
                movies.extend(found.into_iter().map(|movie| (movie.movie_id, movie)));
            }
        }
    }
    Ok(movies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_says_what_it_leaves_out() {
        let from = BTreeMap::from([(0, 10), (1, 50)]);
        let bounds = BTreeMap::from([(0, (0, 100)), (1, (0, 55)), (2, (20, 25))]);
        let (to, left_out) = limited(&from, &bounds, 90);
        assert_eq!(to, BTreeMap::from([(0, 40), (1, 55), (2, 25)]));
        assert_eq!(left_out, 60);
    }
}
