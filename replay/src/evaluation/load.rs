//! Lists and answers out of the lake.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{TimestampMillisecondType, UInt32Type, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionContext, col, lit};
use marquee_schemas::Kind;

use super::attribution::{Answer, List};
use crate::error::Error;
use crate::sql::SqlError;

fn fail(error: DataFusionError) -> Error {
    Error::Sql(SqlError::Execution(error.to_string()))
}

fn misshapen() -> Error {
    Error::Sql(SqlError::Execution(
        "a column of the lake has an unexpected type".into(),
    ))
}

fn between(from_ms: i64, to_ms: i64) -> Expr {
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
) -> Result<Vec<RecordBatch>, Error> {
    let frame = context.table(table).await.map_err(fail)?;
    let frame = frame.filter(filter).map_err(fail)?;
    let frame = frame
        // In the order of the log, so that ties fall the same way every time.
        .sort(vec![
            col("kafka_partition").sort(true, false),
            col("kafka_offset").sort(true, false),
        ])
        .map_err(fail)?;
    frame
        .select_columns(columns)
        .map_err(fail)?
        .collect()
        .await
        .map_err(fail)
}

fn text(batch: &RecordBatch, column: usize, row: usize) -> Result<Option<String>, Error> {
    let column = batch.column(column);
    if column.is_null(row) {
        return Ok(None);
    }
    // Parquet may be read as either kind of text.
    let text = if let Some(texts) = column.as_string_opt::<i32>() {
        texts.value(row)
    } else if let Some(texts) = column.as_string_view_opt() {
        texts.value(row)
    } else {
        return Err(misshapen());
    };
    Ok(Some(text.to_owned()))
}

/// Lists served to known users by `POST /recommend`, each request once.
pub(super) async fn lists(context: &SessionContext, from_ms: i64, to_ms: i64) -> Result<Vec<List>, Error> {
    let filter = between(from_ms, to_ms)
        .and(col("endpoint").eq(lit("recommend")))
        .and(col("status").eq(lit(200_u16)))
        .and(col("user_id").is_not_null());
    let columns = ["request_id", "user_id", "timestamp", "model_version", "items"];
    let mut seen = std::collections::HashSet::new();
    let mut lists = Vec::new();
    for batch in rows(context, "request_logs", &columns, filter).await? {
        let users = batch
            .column(1)
            .as_primitive_opt::<UInt64Type>()
            .ok_or_else(misshapen)?;
        let times = batch
            .column(2)
            .as_primitive_opt::<TimestampMillisecondType>()
            .ok_or_else(misshapen)?;
        let items = batch.column(4).as_list_opt::<i32>().ok_or_else(misshapen)?;
        for row in 0..batch.num_rows() {
            let request_id = text(&batch, 0, row)?.ok_or_else(misshapen)?;
            let entries = items.value(row);
            let entries = entries.as_struct_opt().ok_or_else(misshapen)?;
            let number = |name: &str| {
                entries
                    .column_by_name(name)
                    .and_then(|column| column.as_primitive_opt::<UInt32Type>())
                    .ok_or_else(misshapen)
            };
            let (movies, ranks) = (number("movie_id")?, number("rank")?);
            let mut order: Vec<usize> = (0..entries.len()).collect();
            order.sort_by_key(|&at| ranks.value(at));
            if seen.insert(request_id.clone()) {
                lists.push(List {
                    request_id,
                    user_id: users.value(row),
                    time_ms: times.value(row),
                    model_version: text(&batch, 3, row)?,
                    movies: order.into_iter().map(|at| movies.value(at)).collect(),
                });
            }
        }
    }
    Ok(lists)
}

/// Interactions that may answer a list.
pub(super) async fn answers(
    context: &SessionContext,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<Answer>, Error> {
    let kinds = Kind::ALL
        .into_iter()
        .filter(|&kind| kind.is_history() && kind != Kind::Dislike)
        .map(|kind| lit(kind.as_str()))
        .collect();
    // The last list's window includes its last moment.
    let filter = between(from_ms, to_ms.saturating_add(1)).and(col("kind").in_list(kinds, false));
    let columns = ["event_id", "user_id", "movie_id", "timestamp", "request_id"];
    let mut answers = Vec::new();
    for batch in rows(context, "interactions", &columns, filter).await? {
        let users = batch
            .column(1)
            .as_primitive_opt::<UInt64Type>()
            .ok_or_else(misshapen)?;
        let movies = batch
            .column(2)
            .as_primitive_opt::<UInt32Type>()
            .ok_or_else(misshapen)?;
        let times = batch
            .column(3)
            .as_primitive_opt::<TimestampMillisecondType>()
            .ok_or_else(misshapen)?;
        for row in 0..batch.num_rows() {
            answers.push(Answer {
                event_id: text(&batch, 0, row)?.ok_or_else(misshapen)?,
                user_id: users.value(row),
                movie_id: movies.value(row),
                time_ms: times.value(row),
                request_id: text(&batch, 4, row)?,
            });
        }
    }
    Ok(answers)
}
