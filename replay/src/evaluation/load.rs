//! Lists and answers out of the lake.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    Float32Type, Float64Type, TimestampMillisecondType, UInt32Type, UInt64Type,
};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionContext, col, lit};
use marquee_schemas::{Endpoint, Kind};

use super::list::{Answer, List, Shown};

pub(crate) fn misshapen() -> DataFusionError {
    DataFusionError::Execution("a column of the lake has an unexpected type".into())
}

/// Rows whose event time lies from `from_ms` (inclusive) to `to_ms` (exclusive).
pub(crate) fn between(from_ms: i64, to_ms: i64) -> Expr {
    let at = |ms| lit(ScalarValue::TimestampMillisecond(Some(ms), Some("UTC".into())));
    col("timestamp")
        .gt_eq(at(from_ms))
        .and(col("timestamp").lt(at(to_ms)))
}

async fn rows(
    context: &SessionContext,
    table: &str,
    columns: &[&str],
    filter: Expr,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    context
        .table(table)
        .await?
        .filter(filter)?
        // In the order of the log, so that ties fall the same way every time.
        .sort(vec![
            col("kafka_partition").sort(true, false),
            col("kafka_offset").sort(true, false),
        ])?
        .select_columns(columns)?
        .collect()
        .await
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

const LIST_COLUMNS: [&str; 14] = [
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

/// Lists that were served in the period, each request once.
pub(crate) async fn lists(
    context: &SessionContext,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<List>, DataFusionError> {
    let filter = between(from_ms, to_ms)
        .and(col("status").eq(lit(200_u16)))
        // Nobody saw a shadow list.
        .and(col("endpoint").not_eq(lit(Endpoint::Shadow.as_str())));
    let mut seen = HashSet::new();
    let mut names = Names::default();
    let mut lists = Vec::new();
    for batch in rows(context, "request_logs", &LIST_COLUMNS, filter).await? {
        let columns = Columns(&batch);
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
            if !seen.insert(request_id.to_owned()) {
                continue;
            }
            let mut name = |column: &str| -> Result<Option<Arc<str>>, DataFusionError> {
                Ok(columns.text(column, row)?.map(|text| names.of(text)))
            };
            lists.push(List {
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
            });
        }
    }
    Ok(lists)
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

/// Interactions of the period that may answer a list.
pub(crate) async fn answers(
    context: &SessionContext,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<Answer>, DataFusionError> {
    let kinds = Kind::ALL
        .into_iter()
        .filter(|&kind| answers_a_list(kind))
        .map(|kind| lit(kind.as_str()))
        .collect();
    // The last list's window includes its last moment.
    let filter = between(from_ms, to_ms.saturating_add(1)).and(col("kind").in_list(kinds, false));
    let columns = [
        "event_id",
        "user_id",
        "movie_id",
        "kind",
        "rating",
        "timestamp",
        "request_id",
    ];
    let mut answers = Vec::new();
    for batch in rows(context, "interactions", &columns, filter).await? {
        let columns = Columns(&batch);
        let users = columns.numbers::<UInt64Type>("user_id")?;
        let movies = columns.numbers::<UInt32Type>("movie_id")?;
        let ratings = columns.numbers::<Float32Type>("rating")?;
        let times = columns.numbers::<TimestampMillisecondType>("timestamp")?;
        for row in 0..batch.num_rows() {
            let kind = columns.text("kind", row)?.ok_or_else(misshapen)?;
            let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
            answers.push(Answer {
                event_id: columns.text("event_id", row)?.ok_or_else(misshapen)?.to_owned(),
                user_id: users.value(row),
                movie_id: movies.value(row),
                kind: kind.ok_or_else(misshapen)?,
                rating: ratings.is_valid(row).then(|| ratings.value(row)),
                time_ms: times.value(row),
                request_id: columns.text("request_id", row)?.map(str::to_owned),
            });
        }
    }
    Ok(answers)
}
