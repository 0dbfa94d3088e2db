//! Columns of `interactions`.

use std::sync::Arc;

use datafusion::arrow::array::{
    Float32Builder, Int32Builder, Int64Builder, StringBuilder, UInt32Builder, UInt64Builder,
};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::Interaction;

use super::{Poison, Rows, Texts, Times, dated, read};
use crate::table::Table;

#[derive(Debug, Default)]
pub(super) struct InteractionRows {
    partition: Int32Builder,
    offset: Int64Builder,
    event_id: StringBuilder,
    user_id: UInt64Builder,
    movie_id: UInt32Builder,
    kind: StringBuilder,
    rating: Float32Builder,
    genres: Texts,
    timestamp: Times,
    session_id: StringBuilder,
    request_id: StringBuilder,
    source: StringBuilder,
}

impl Rows for InteractionRows {
    fn push(&mut self, record: &RawRecord) -> Result<i64, Poison> {
        let row: Interaction = read(record)?;
        let time = dated(row.timestamp)?;
        self.partition.append_value(record.partition);
        self.offset.append_value(record.offset);
        self.event_id.append_value(&row.event_id);
        self.user_id.append_value(row.user_id.0);
        self.movie_id.append_option(row.movie_id.map(|id| id.0));
        self.kind.append_value(row.kind.as_str());
        self.rating.append_option(row.rating);
        self.genres.append(&row.genres);
        self.timestamp.0.append_value(time);
        self.session_id.append_option(row.session_id);
        self.request_id.append_option(row.request_id);
        self.source.append_option(row.source);
        Ok(time)
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(
            Table::Interactions.schema(),
            vec![
                Arc::new(self.partition.finish()),
                Arc::new(self.offset.finish()),
                Arc::new(self.event_id.finish()),
                Arc::new(self.user_id.finish()),
                Arc::new(self.movie_id.finish()),
                Arc::new(self.kind.finish()),
                Arc::new(self.rating.finish()),
                Arc::new(self.genres.0.finish()),
                Arc::new(self.timestamp.0.finish()),
                Arc::new(self.session_id.finish()),
                Arc::new(self.request_id.finish()),
                Arc::new(self.source.finish()),
            ],
        )
    }
}
