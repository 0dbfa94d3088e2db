//! Columns of `quality_metrics`.

use std::sync::Arc;

use datafusion::arrow::array::{Float64Builder, Int32Builder, Int64Builder, StringBuilder, UInt64Builder};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::QualityMetric;

use super::{Poison, Rows, Times, dated, read};
use crate::table::Table;

#[derive(Debug, Default)]
pub(super) struct QualityMetricRows {
    partition: Int32Builder,
    offset: Int64Builder,
    metric_id: StringBuilder,
    name: StringBuilder,
    scope: StringBuilder,
    population: StringBuilder,
    model_version: StringBuilder,
    value: Float64Builder,
    lo: Float64Builder,
    hi: Float64Builder,
    n: UInt64Builder,
    window_start: Times,
    window_end: Times,
}

impl Rows for QualityMetricRows {
    fn push(&mut self, record: &RawRecord) -> Result<i64, Poison> {
        let row: QualityMetric = read(record)?;
        let start = dated(row.window_start_ms)?;
        let end = dated(row.window_end_ms)?;
        self.partition.append_value(record.partition);
        self.offset.append_value(record.offset);
        self.metric_id.append_value(&row.metric_id);
        self.name.append_value(&row.name);
        self.scope.append_value(&row.scope);
        self.population.append_value(&row.population);
        self.model_version
            .append_option(row.model_version.map(|version| version.0));
        self.value.append_value(row.value);
        self.lo.append_option(row.lo);
        self.hi.append_option(row.hi);
        self.n.append_value(row.n);
        self.window_start.0.append_value(start);
        self.window_end.0.append_value(end);
        Ok(end)
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(
            Table::QualityMetrics.schema(),
            vec![
                Arc::new(self.partition.finish()),
                Arc::new(self.offset.finish()),
                Arc::new(self.metric_id.finish()),
                Arc::new(self.name.finish()),
                Arc::new(self.scope.finish()),
                Arc::new(self.population.finish()),
                Arc::new(self.model_version.finish()),
                Arc::new(self.value.finish()),
                Arc::new(self.lo.finish()),
                Arc::new(self.hi.finish()),
                Arc::new(self.n.finish()),
                Arc::new(self.window_start.0.finish()),
                Arc::new(self.window_end.0.finish()),
            ],
        )
    }
}
