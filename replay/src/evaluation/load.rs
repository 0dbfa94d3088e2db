//! Lists and answers out of the lake.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    Float32Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType, UInt32Type, UInt64Type,
};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionContext, col, lit};
use futures::StreamExt;
use marquee_schemas::{Endpoint, Kind};

use super::attribution::SKEW_MS;
use super::chunk::{Piece, Whose};
use super::list::{Answer, List, Rivals, Shown};

pub(crate) fn misshapen() -> DataFusionError {
    DataFusionError::Execution("a column of the lake has an unexpected type".into())
}

fn at(ms: i64) -> Expr {
    lit(ScalarValue::TimestampMillisecond(Some(ms), Some("UTC".into())))
}

/// Rows whose event time lies from `from_ms` (inclusive) to `to_ms` (exclusive).
pub(crate) fn between(from_ms: i64, to_ms: i64) -> Expr {
    col("timestamp")
        .gt_eq(at(from_ms))
        .and(col("timestamp").lt(at(to_ms)))
}

/// Rows of a table in no order, as they are read: sorting them here would take many times the memory of what is made
/// of them.
async fn rows(
    context: &SessionContext,
    table: &str,
    columns: &[&str],
    filter: Expr,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    context
        .table(table)
        .await?
        .filter(filter)?
        .select_columns(columns)?
        .execute_stream()
        .await
}

/// A row's place in the log. Rows are brought into this order, so that ties fall the same way every time.
type Place = (i32, i64);

/// Rows with their places, in the log's order.
fn in_order<T>(mut rows: Vec<(Place, T)>) -> Vec<T> {
    rows.sort_unstable_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The lists of `whose` users.
fn of(whose: Whose) -> Option<Expr> {
    match whose {
        Whose::All => None,
        Whose::Nobodys => Some(col("user_id").is_null()),
        Whose::Share { rest, by } => Some((col("user_id") % lit(by)).eq(lit(rest))),
    }
}

/// Lists that somebody saw.
fn seen() -> Expr {
    col("status")
        .eq(lit(200_u16))
        // Nobody saw a shadow list.
        .and(col("endpoint").not_eq(lit(Endpoint::Shadow.as_str())))
}

/// The columns of one batch, by name.
struct Columns<'a>(&'a RecordBatch);

impl<'a> Columns<'a> {
    fn column(&self, name: &str) -> Result<&'a ArrayRef, DataFusionError> {
        self.0.column_by_name(name).ok_or_else(misshapen)
    }

    fn numbers<T: ArrowPrimitiveType>(&self, name: &str) -> Result<&'a PrimitiveArray<T>, DataFusionError> {
        self.column(name)?.as_primitive_opt::<T>().ok_or_else(misshapen)
    }

    /// Where each row lies in the log.
    fn places(&self) -> Result<impl Fn(usize) -> Place + use<'a>, DataFusionError> {
        let partitions = self.numbers::<Int32Type>("kafka_partition")?;
        let offsets = self.numbers::<Int64Type>("kafka_offset")?;
        Ok(move |row| (partitions.value(row), offsets.value(row)))
    }

    fn text(&self, name: &str, row: usize) -> Result<Option<&'a str>, DataFusionError> {
        text_at(self.column(name)?, row)
    }
}

/// Parquet may be read as either kind of text.
pub(crate) fn text_at(column: &ArrayRef, row: usize) -> Result<Option<&str>, DataFusionError> {
    if column.is_null(row) {
        return Ok(None);
    }
    if let Some(texts) = column.as_string_opt::<i32>() {
        Ok(Some(texts.value(row)))
    } else if let Some(texts) = column.as_string_view_opt() {
        Ok(Some(texts.value(row)))
    } else {
        Err(misshapen())
    }
}

/// Texts that repeat over millions of lists, each held once.
#[derive(Debug, Default)]
struct Names(HashMap<String, Arc<str>>);

impl Names {
    fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        self.0.insert(text.to_owned(), Arc::clone(&name));
        name
    }
}

const LIST_COLUMNS: [&str; 16] = [
    "kafka_partition",
    "kafka_offset",
    "request_id",
    "user_id",
    "timestamp",
    "endpoint",
    "surface",
    "model_version",
    "policy",
    "experiment",
    "arm",
    "feature_version",
    "candidates",
    "seeds",
    "filters",
    "items",
];

/// How a request without filters is stored.
const NO_FILTERS: &str = "{}";

/// The piece's lists, each request once.
pub(super) async fn lists(
    context: &SessionContext,
    piece: Piece,
    held: &MemoryReservation,
) -> Result<Vec<List>, DataFusionError> {
    let filter = between(piece.from_ms, piece.to_ms).and(seen());
    let filter = of(piece.whose).into_iter().fold(filter, Expr::and);
    let mut names = Names::default();
    let mut lists: Vec<(Place, List)> = Vec::new();
    let mut batches = rows(context, "request_logs", &LIST_COLUMNS, filter).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let before = lists.len();
        let columns = Columns(&batch);
        let place = columns.places()?;
        let users = columns.numbers::<UInt64Type>("user_id")?;
        let times = columns.numbers::<TimestampMillisecondType>("timestamp")?;
        let versions = columns.numbers::<UInt64Type>("feature_version")?;
        let candidates = columns.numbers::<UInt32Type>("candidates")?;
        let seeds = columns
            .column("seeds")?
            .as_list_opt::<i32>()
            .ok_or_else(misshapen)?;
        let items = columns
            .column("items")?
            .as_list_opt::<i32>()
            .ok_or_else(misshapen)?;
        for row in 0..batch.num_rows() {
            let request_id = columns.text("request_id", row)?.ok_or_else(misshapen)?;
            let mut name = |column: &str| -> Result<Option<Arc<str>>, DataFusionError> {
                Ok(columns.text(column, row)?.map(|text| names.of(text)))
            };
            let list = List {
                request_id: request_id.to_owned(),
                time_ms: times.value(row),
                endpoint: name("endpoint")?.ok_or_else(misshapen)?,
                user_id: users.is_valid(row).then(|| users.value(row)),
                surface: name("surface")?,
                model_version: name("model_version")?,
                policy: name("policy")?.ok_or_else(misshapen)?,
                experiment: name("experiment")?,
                arm: name("arm")?,
                feature_version: versions.is_valid(row).then(|| versions.value(row)),
                candidates: candidates.value(row),
                is_restricted: !seeds.value(row).is_empty()
                    || columns.text("filters", row)? != Some(NO_FILTERS),
                items: shown(&items.value(row))?,
            };
            lists.push((place(row), list));
        }
        let bytes = |(_, list): &(Place, List)| {
            size_of::<(Place, List)>() + list.request_id.len() + size_of_val(&list.items[..])
        };
        held.try_grow(lists[before..].iter().map(bytes).sum())?;
    }
    let mut lists = in_order(lists);
    let mut known = HashSet::with_capacity(lists.len());
    let is_first: Vec<bool> = lists.iter().map(|list| known.insert(&*list.request_id)).collect();
    drop(known);
    let mut is_first = is_first.into_iter();
    lists.retain(|_| is_first.next().unwrap_or(true));
    Ok(lists)
}

/// Which lists can compete.
pub(super) struct Wanted<'a> {
    /// Those of these users.
    pub(super) users: HashSet<u64>,
    /// Those of these requests.
    pub(super) named: HashSet<&'a str>,
}

/// Lists beside the piece that compete for what may answer its own.
pub(super) async fn rivals(
    context: &SessionContext,
    piece: Piece,
    window_ms: i64,
    held: &MemoryReservation,
    wanted: &Wanted<'_>,
) -> Result<Rivals, DataFusionError> {
    let (from_ms, to_ms) = (
        piece.from_ms.saturating_sub(window_ms),
        piece.to_ms.saturating_add(window_ms),
    );
    let outside = col("timestamp")
        .lt(at(piece.from_ms))
        .or(col("timestamp").gt_eq(at(piece.to_ms)));
    let competing = match of(piece.whose) {
        None => outside,
        // A list of no user belongs to another piece, but an interaction may name it.
        Some(own) => outside.and(own).or(col("user_id").is_null()),
    };
    let filter = between(from_ms, to_ms).and(seen()).and(competing);
    let mut rivals = Rivals::default();
    let mut movies = Vec::new();
    let columns = ["request_id", "user_id", "timestamp", "items"];
    let mut batches = rows(context, "request_logs", &columns, filter).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let columns = Columns(&batch);
        let users = columns.numbers::<UInt64Type>("user_id")?;
        let times = columns.numbers::<TimestampMillisecondType>("timestamp")?;
        let items = columns
            .column("items")?
            .as_list_opt::<i32>()
            .ok_or_else(misshapen)?;
        let mut bytes = 0;
        for row in 0..batch.num_rows() {
            let user = users.is_valid(row).then(|| users.value(row));
            let request_id = columns.text("request_id", row)?.ok_or_else(misshapen)?;
            let named = wanted.named.contains(request_id);
            if !named && !user.is_some_and(|user| wanted.users.contains(&user)) {
                continue;
            }
            movies.clear();
            let shown = items.value(row);
            let shown = shown.as_struct_opt().ok_or_else(misshapen)?;
            let shown = shown.column_by_name("movie_id").ok_or_else(misshapen)?;
            let shown = shown.as_primitive_opt::<UInt32Type>().ok_or_else(misshapen)?;
            movies.extend(shown.values());
            let request_id: Option<Box<str>> = named.then(|| request_id.into());
            bytes += Rivals::BYTES
                + size_of_val(&movies[..])
                + request_id.as_ref().map_or(0, |request| request.len());
            rivals.push(times.value(row), user, request_id, &movies);
        }
        held.try_grow(bytes)?;
    }
    Ok(rivals)
}

fn shown(items: &ArrayRef) -> Result<Vec<Shown>, DataFusionError> {
    let items = items.as_struct_opt().ok_or_else(misshapen)?;
    let column = |name: &str| items.column_by_name(name).ok_or_else(misshapen);
    let movies = column("movie_id")?
        .as_primitive_opt::<UInt32Type>()
        .ok_or_else(misshapen)?;
    let ranks = column("rank")?
        .as_primitive_opt::<UInt32Type>()
        .ok_or_else(misshapen)?;
    let propensities = column("propensity")?
        .as_primitive_opt::<Float64Type>()
        .ok_or_else(misshapen)?;
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&at| ranks.value(at));
    Ok(order
        .into_iter()
        .map(|at| Shown {
            movie_id: movies.value(at),
            propensity: propensities.value(at),
        })
        .collect())
}

/// Whether an act of this kind says that the user took up a movie.
pub(crate) fn answers_a_list(kind: Kind) -> bool {
    kind.is_history() && kind != Kind::Dislike
}

/// Interactions that may answer a list of the piece: those that `may` says so of, by their user and the request that they
/// name.
pub(super) async fn answers(
    context: &SessionContext,
    piece: Piece,
    window_ms: i64,
    held: &MemoryReservation,
    may: impl Fn(u64, Option<&str>) -> bool,
) -> Result<Vec<Answer>, DataFusionError> {
    let kinds = Kind::ALL
        .into_iter()
        .filter(|&kind| answers_a_list(kind))
        .map(|kind| lit(kind.as_str()))
        .collect();
    let from_ms = piece.from_ms.saturating_sub(SKEW_MS);
    // The last list's window includes its last moment.
    let to_ms = piece.to_ms.saturating_add(window_ms).saturating_add(1);
    let filter = between(from_ms, to_ms).and(col("kind").in_list(kinds, false));
    let whose = match piece.whose {
        // Anybody may name a list of no user.
        Whose::Nobodys => Some(col("request_id").is_not_null()),
        whose => of(whose),
    };
    let filter = whose.into_iter().fold(filter, Expr::and);
    let columns = [
        "kafka_partition",
        "kafka_offset",
        "event_id",
        "user_id",
        "movie_id",
        "kind",
        "rating",
        "timestamp",
        "request_id",
    ];
    let mut answers: Vec<(Place, Answer)> = Vec::new();
    let mut batches = rows(context, "interactions", &columns, filter).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let before = answers.len();
        let columns = Columns(&batch);
        let place = columns.places()?;
        let users = columns.numbers::<UInt64Type>("user_id")?;
        let movies = columns.numbers::<UInt32Type>("movie_id")?;
        let ratings = columns.numbers::<Float32Type>("rating")?;
        let times = columns.numbers::<TimestampMillisecondType>("timestamp")?;
        for row in 0..batch.num_rows() {
            let request_id = columns.text("request_id", row)?;
            if !may(users.value(row), request_id) {
                continue;
            }
            let kind = columns.text("kind", row)?.ok_or_else(misshapen)?;
            let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
            let answer = Answer {
                event_id: columns.text("event_id", row)?.ok_or_else(misshapen)?.to_owned(),
                user_id: users.value(row),
                movie_id: movies.value(row),
                kind: kind.ok_or_else(misshapen)?,
                rating: ratings.is_valid(row).then(|| ratings.value(row)),
                time_ms: times.value(row),
                request_id: request_id.map(str::to_owned),
            };
            answers.push((place(row), answer));
        }
        let bytes = |(_, answer): &(Place, Answer)| {
            size_of::<(Place, Answer)>()
                + answer.event_id.len()
                + answer.request_id.as_ref().map_or(0, String::len)
        };
        held.try_grow(answers[before..].iter().map(bytes).sum())?;
    }
    Ok(in_order(answers))
}
