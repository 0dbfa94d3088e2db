//! `attributions`: which interaction answers which list, joined while a query runs.
//!
//! The join is that of the evaluation ([`crate::evaluation`]), an hour at a time and in smaller pieces where that takes more
//! than the query's memory, so a query sees what `marquee replay` counts and needs no more memory for a month than for a
//! day. Filters on `timestamp` and `date` decide which hours are
//! joined at all.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float32Builder, Int64Builder, StringBuilder,
    TimestampMillisecondBuilder, UInt32Builder, UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::SessionContext;
use marquee_schemas::arrow::timestamp;

use super::provider::{DATE, LakeTable, narrowing};
use crate::date;
use crate::evaluation::{Chunk, Pieces, load_chunk};
use crate::table::Table;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The table.
#[derive(Debug)]
pub(super) struct Attributions {
    schema: SchemaRef,
    request_logs: Arc<LakeTable>,
    interactions: Arc<LakeTable>,
    /// How long after a list an interaction may answer it, ms.
    window_ms: i64,
}

fn schema() -> SchemaRef {
    let required = |name: &str, kind| Field::new(name, kind, false);
    let optional = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        required("request_id", DataType::Utf8),
        required("timestamp", timestamp()),
        required(DATE, DataType::Date32),
        required("endpoint", DataType::Utf8),
        optional("surface", DataType::Utf8),
        optional("model_version", DataType::Utf8),
        required("policy", DataType::Utf8),
        optional("experiment", DataType::Utf8),
        optional("arm", DataType::Utf8),
        required("user_id", DataType::UInt64),
        required("event_id", DataType::Utf8),
        required("movie_id", DataType::UInt32),
        required("kind", DataType::Utf8),
        optional("rating", DataType::Float32),
        required("event_time", timestamp()),
        required("delay_ms", DataType::Int64),
        required("attributed_by", DataType::Utf8),
        optional("rank", DataType::UInt32),
        required("is_first", DataType::Boolean),
    ]))
}

impl Attributions {
    pub(super) fn new(request_logs: Arc<LakeTable>, interactions: Arc<LakeTable>, window_ms: i64) -> Self {
        Self {
            schema: schema(),
            request_logs,
            interactions,
            window_ms,
        }
    }
}

#[async_trait]
impl TableProvider for Attributions {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(narrowing(filters))
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let (from_ms, to_ms) = period(filters);
        let pieces = Pieces::of(from_ms, to_ms, self.window_ms, &self.request_logs.spans());
        let partition = Joined {
            schema: self.schema(),
            request_logs: Arc::clone(&self.request_logs),
            interactions: Arc::clone(&self.interactions),
            window_ms: self.window_ms,
            pieces,
        };
        Ok(Arc::new(StreamingTableExec::try_new(
            self.schema(),
            vec![Arc::new(partition)],
            projection,
            [],
            false,
            None,
        )?))
    }
}

#[derive(Debug)]
struct Joined {
    schema: SchemaRef,
    request_logs: Arc<LakeTable>,
    interactions: Arc<LakeTable>,
    window_ms: i64,
    pieces: Pieces,
}

impl PartitionStream for Joined {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let context = SessionContext::new_with_config_rt(task.session_config().clone(), task.runtime_env());
        let tables = [
            (Table::RequestLogs, Arc::clone(&self.request_logs)),
            (Table::Interactions, Arc::clone(&self.interactions)),
        ];
        let registered = tables
            .into_iter()
            .try_for_each(|(table, provider)| context.register_table(table.name(), provider).map(drop));
        let (schema, window_ms) = (Arc::clone(&self.schema), self.window_ms);
        let start = registered.map(|()| (context, self.pieces.clone()));
        let batches = futures::stream::unfold(Some(start), move |state| {
            let schema = Arc::clone(&schema);
            async move {
                let (context, mut open) = match state? {
                    Ok(state) => state,
                    Err(error) => return Some((Err(error), None)),
                };
                loop {
                    let piece = open.next()?;
                    match load_chunk(&context, piece, window_ms).await {
                        Ok(chunk) => {
                            let batch = batch(&schema, &chunk).map_err(DataFusionError::from);
                            return Some((batch, Some(Ok((context, open)))));
                        }
                        Err(error) => {
                            let is_too_much =
                                matches!(error.find_root(), DataFusionError::ResourcesExhausted(_));
                            if !(is_too_much && open.divide(piece)) {
                                return Some((Err(error), None));
                            }
                        }
                    }
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

fn times() -> TimestampMillisecondBuilder {
    TimestampMillisecondBuilder::new().with_timezone("UTC")
}

fn batch(schema: &SchemaRef, chunk: &Chunk) -> Result<RecordBatch, ArrowError> {
    let mut texts: [StringBuilder; 10] = std::array::from_fn(|_| StringBuilder::new());
    let (mut time, mut event_time) = (times(), times());
    let mut day = Date32Builder::new();
    let mut user_id = UInt64Builder::new();
    let mut movie_id = UInt32Builder::new();
    let mut rating = Float32Builder::new();
    let mut delay_ms = Int64Builder::new();
    let mut rank = UInt32Builder::new();
    let mut is_first = BooleanBuilder::new();
    let mut acted = HashSet::new();
    for found in &chunk.attributions {
        let (list, answer) = (&chunk.lists[found.list], &chunk.answers[found.answer]);
        let values = [
            Some(list.request_id.as_str()),
            Some(&*list.endpoint),
            list.surface.as_deref(),
            list.model_version.as_deref(),
            Some(&*list.policy),
            list.experiment.as_deref(),
            list.arm.as_deref(),
            Some(answer.event_id.as_str()),
            Some(answer.kind.as_str()),
            Some(found.by.name()),
        ];
        for (builder, value) in texts.iter_mut().zip(values) {
            builder.append_option(value);
        }
        time.append_value(list.time_ms);
        event_time.append_value(answer.time_ms);
        // Every row has a date: the sink refuses times without one.
        day.append_value(date::day_of(list.time_ms).unwrap_or_default());
        user_id.append_value(answer.user_id);
        movie_id.append_value(answer.movie_id);
        rating.append_option(answer.rating);
        delay_ms.append_value(answer.time_ms.saturating_sub(list.time_ms));
        rank.append_option(found.rank.and_then(|rank| u32::try_from(rank).ok()));
        is_first.append_value(acted.insert((found.list, answer.movie_id)));
    }
    let [
        mut request_id,
        mut endpoint,
        mut surface,
        mut model_version,
        mut policy,
        mut experiment,
        mut arm,
        mut event_id,
        mut kind,
        mut by,
    ] = texts;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(request_id.finish()),
        Arc::new(time.finish()),
        Arc::new(day.finish()),
        Arc::new(endpoint.finish()),
        Arc::new(surface.finish()),
        Arc::new(model_version.finish()),
        Arc::new(policy.finish()),
        Arc::new(experiment.finish()),
        Arc::new(arm.finish()),
        Arc::new(user_id.finish()),
        Arc::new(event_id.finish()),
        Arc::new(movie_id.finish()),
        Arc::new(kind.finish()),
        Arc::new(rating.finish()),
        Arc::new(event_time.finish()),
        Arc::new(delay_ms.finish()),
        Arc::new(by.finish()),
        Arc::new(rank.finish()),
        Arc::new(is_first.finish()),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// The lists' times that `filters` let pass: from (inclusive) to (exclusive), ms. What cannot be judged here lets
/// everything pass; the plan above applies every filter in any case.
fn period(filters: &[Expr]) -> (i64, i64) {
    let mut period = (0, i64::MAX);
    for filter in filters {
        narrow(filter, &mut period);
    }
    period
}

fn narrow(filter: &Expr, period: &mut (i64, i64)) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
        return;
    };
    if *op == Operator::And {
        narrow(left, period);
        narrow(right, period);
        return;
    }
    let (column, op, literal) = match (&**left, &**right) {
        (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
        (Expr::Literal(literal, _), Expr::Column(column)) => match op.swap() {
            Some(op) => (column, op, literal),
            None => return,
        },
        _ => return,
    };
    // The moments that the literal names: first (inclusive) and end (exclusive), ms.
    let named = match (column.name.as_str(), literal) {
        (DATE, ScalarValue::Date32(Some(day))) => {
            let first = i64::from(*day) * DAY_MS;
            (first, first + DAY_MS)
        }
        ("timestamp", ScalarValue::TimestampSecond(Some(at), _)) => {
            let at = at.saturating_mul(1_000);
            (at, at.saturating_add(1))
        }
        ("timestamp", ScalarValue::TimestampMillisecond(Some(at), _)) => (*at, at.saturating_add(1)),
        ("timestamp", ScalarValue::TimestampMicrosecond(Some(at), _)) => {
            (at.div_euclid(1_000), at.div_euclid(1_000) + 1)
        }
        ("timestamp", ScalarValue::TimestampNanosecond(Some(at), _)) => {
            (at.div_euclid(1_000_000), at.div_euclid(1_000_000) + 1)
        }
        _ => return,
    };
    match op {
        Operator::Eq => *period = (period.0.max(named.0), period.1.min(named.1)),
        Operator::Gt | Operator::GtEq => period.0 = period.0.max(named.0),
        Operator::Lt | Operator::LtEq => period.1 = period.1.min(named.1),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    #[test]
    fn filters_on_time_and_date_narrow_the_period_and_others_do_not() {
        let at = |ms| lit(ScalarValue::TimestampMillisecond(Some(ms), Some("UTC".into())));
        let day = |day| lit(ScalarValue::Date32(Some(day)));
        assert_eq!(period(&[]), (0, i64::MAX));
        let both = col("timestamp").gt_eq(at(5)).and(lit(9_i64).eq(col("delay_ms")));
        assert_eq!(period(&[both, col("timestamp").lt(at(90))]), (5, 91));
        assert_eq!(period(&[at(7).lt(col("timestamp"))]), (7, i64::MAX));
        assert_eq!(period(&[col("date").eq(day(2))]), (2 * DAY_MS, 3 * DAY_MS));
        assert_eq!(
            period(&[col("date").gt(day(2)).or(col("rank").eq(lit(1)))]),
            (0, i64::MAX)
        );
    }
}
