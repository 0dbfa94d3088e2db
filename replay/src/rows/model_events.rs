//! Columns of `model_events`.

use std::sync::Arc;

use datafusion::arrow::array::{Int32Builder, Int64Builder, StringBuilder};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::ModelEvent;

use super::{Poison, Rows, Times, dated, json, read};
use crate::table::Table;

#[derive(Debug, Default)]
pub(super) struct ModelEventRows {
    partition: Int32Builder,
    offset: Int64Builder,
    event_id: StringBuilder,
    version: StringBuilder,
    kind: StringBuilder,
    reason: StringBuilder,
    bundle_uri: StringBuilder,
    bundle_sha256: StringBuilder,
    offsets: StringBuilder,
    numbers: StringBuilder,
    retrain_event_id: StringBuilder,
    previous: StringBuilder,
    timestamp: Times,
}

impl Rows for ModelEventRows {
    fn push(&mut self, record: &RawRecord) -> Result<i64, Poison> {
        let row: ModelEvent = read(record)?;
        let time = dated(row.at_ms)?;
        self.partition.append_value(record.partition);
        self.offset.append_value(record.offset);
        self.event_id.append_value(&row.event_id);
        self.version.append_value(&row.version.0);
        self.kind.append_value(json(&row.kind).trim_matches('"'));
        self.reason.append_value(&row.reason);
        self.bundle_uri.append_option(row.bundle_uri);
        self.bundle_sha256.append_option(row.bundle_sha256);
        self.offsets.append_value(json(&row.offsets));
        self.numbers.append_value(json(&row.numbers));
        self.retrain_event_id.append_option(row.retrain_event_id);
        self.previous.append_option(row.previous.map(|version| version.0));
        self.timestamp.0.append_value(time);
        Ok(time)
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(
            Table::ModelEvents.schema(),
            vec![
                Arc::new(self.partition.finish()),
                Arc::new(self.offset.finish()),
                Arc::new(self.event_id.finish()),
                Arc::new(self.version.finish()),
                Arc::new(self.kind.finish()),
                Arc::new(self.reason.finish()),
                Arc::new(self.bundle_uri.finish()),
                Arc::new(self.bundle_sha256.finish()),
                Arc::new(self.offsets.finish()),
                Arc::new(self.numbers.finish()),
                Arc::new(self.retrain_event_id.finish()),
                Arc::new(self.previous.finish()),
                Arc::new(self.timestamp.0.finish()),
            ],
        )
    }
}
