//! Columns of `request_logs`.

use std::sync::Arc;

use datafusion::arrow::array::{
    BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListArray, ListBuilder,
    StringBuilder, StructArray, UInt16Builder, UInt32Builder, UInt64Builder,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{LoggedItem, RequestLog, arrow};

use super::{Poison, Rows, Texts, Times, dated, item, json, read};
use crate::table::Table;

#[derive(Debug)]
struct Seeds(ListBuilder<UInt32Builder>);

impl Default for Seeds {
    fn default() -> Self {
        Self(ListBuilder::new(UInt32Builder::new()).with_field(item(DataType::UInt32)))
    }
}

#[derive(Debug, Default)]
struct Items {
    lengths: Vec<usize>,
    movie_id: UInt32Builder,
    rank: UInt32Builder,
    score: Float32Builder,
    source: StringBuilder,
    propensity: Float64Builder,
    explored: BooleanBuilder,
}

impl Items {
    fn append(&mut self, items: &[LoggedItem]) {
        for item in items {
            self.movie_id.append_value(item.movie_id.0);
            self.rank.append_value(item.rank);
            self.score.append_value(item.score);
            self.source.append_value(&item.source);
            self.propensity.append_value(item.propensity);
            self.explored.append_value(item.explored);
        }
        self.lengths.push(items.len());
    }

    fn finish(&mut self) -> Result<ListArray, ArrowError> {
        let fields = arrow::logged_item_fields();
        let entries = StructArray::try_new(
            fields.clone(),
            vec![
                Arc::new(self.movie_id.finish()),
                Arc::new(self.rank.finish()),
                Arc::new(self.score.finish()),
                Arc::new(self.source.finish()),
                Arc::new(self.propensity.finish()),
                Arc::new(self.explored.finish()),
            ],
            None,
        )?;
        ListArray::try_new(
            Arc::new(item(DataType::Struct(fields))),
            OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths)),
            Arc::new(entries),
            None,
        )
    }
}

#[derive(Debug, Default)]
pub(super) struct RequestLogRows {
    partition: Int32Builder,
    offset: Int64Builder,
    request_id: StringBuilder,
    timestamp: Times,
    endpoint: StringBuilder,
    status: UInt16Builder,
    user_id: UInt64Builder,
    surface: StringBuilder,
    model_version: StringBuilder,
    policy: StringBuilder,
    experiment: StringBuilder,
    arm: StringBuilder,
    assignment_hash: UInt32Builder,
    feature_version: UInt64Builder,
    k: UInt32Builder,
    candidates: UInt32Builder,
    seeds: Seeds,
    filters: StringBuilder,
    items: Items,
    fallback_reason: StringBuilder,
    latency_ms: Float64Builder,
    stages: StringBuilder,
    left_out: Texts,
}

impl Rows for RequestLogRows {
    fn push(&mut self, record: &RawRecord) -> Result<i64, Poison> {
        let row: RequestLog = read(record)?;
        let time = dated(row.timestamp)?;
        self.partition.append_value(record.partition);
        self.offset.append_value(record.offset);
        self.request_id.append_value(&row.request_id);
        self.timestamp.0.append_value(time);
        self.endpoint.append_value(row.endpoint.as_str());
        self.status.append_value(row.status);
        self.user_id.append_option(row.user_id.map(|id| id.0));
        self.surface.append_option(row.surface);
        self.model_version
            .append_option(row.model_version.map(|version| version.0));
        self.policy.append_value(&row.policy);
        self.experiment.append_option(row.experiment);
        self.arm.append_option(row.arm);
        self.assignment_hash.append_option(row.assignment_hash);
        self.feature_version.append_option(row.feature_version);
        self.k.append_value(row.k);
        self.candidates.append_value(row.candidates);
        for seed in &row.seeds {
            self.seeds.0.values().append_value(seed.0);
        }
        self.seeds.0.append(true);
        self.filters.append_value(json(&row.filters));
        self.items.append(&row.items);
        self.fallback_reason.append_option(row.fallback_reason);
        self.latency_ms.append_value(row.latency_ms);
        self.stages.append_value(json(&row.stages));
        self.left_out.append(&row.left_out);
        Ok(time)
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(
            Table::RequestLogs.schema(),
            vec![
                Arc::new(self.partition.finish()),
                Arc::new(self.offset.finish()),
                Arc::new(self.request_id.finish()),
                Arc::new(self.timestamp.0.finish()),
                Arc::new(self.endpoint.finish()),
                Arc::new(self.status.finish()),
                Arc::new(self.user_id.finish()),
                Arc::new(self.surface.finish()),
                Arc::new(self.model_version.finish()),
                Arc::new(self.policy.finish()),
                Arc::new(self.experiment.finish()),
                Arc::new(self.arm.finish()),
                Arc::new(self.assignment_hash.finish()),
                Arc::new(self.feature_version.finish()),
                Arc::new(self.k.finish()),
                Arc::new(self.candidates.finish()),
                Arc::new(self.seeds.0.finish()),
                Arc::new(self.filters.finish()),
                Arc::new(self.items.finish()?),
                Arc::new(self.fallback_reason.finish()),
                Arc::new(self.latency_ms.finish()),
                Arc::new(self.stages.finish()),
                Arc::new(self.left_out.0.finish()),
            ],
        )
    }
}
