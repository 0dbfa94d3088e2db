//! Records into columns: one builder per table.

mod interactions;
mod model_events;
mod movies;
mod quality_metrics;
mod request_logs;

use datafusion::arrow::array::{ListBuilder, StringBuilder, TimestampMillisecondBuilder};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{DecodeError, Reason, Record, decode};

use crate::date;
use crate::table::Table;

pub(crate) use movies::{movies_batch, movies_of};

/// Why a record does not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Poison {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl From<DecodeError> for Poison {
    fn from(error: DecodeError) -> Self {
        Self {
            reason: error.reason(),
            detail: error.to_string(),
        }
    }
}

/// Rows of one table, growing.
pub(crate) trait Rows: Send {
    /// Appends one record and returns its event time in ms; a record that is refused leaves no trace.
    fn push(&mut self, record: &RawRecord) -> Result<i64, Poison>;

    /// The rows so far; the builder is empty afterwards.
    fn finish(&mut self) -> Result<RecordBatch, ArrowError>;
}

impl Table {
    /// An empty builder of a table of events; `None` for the catalogue, which is kept whole.
    pub(crate) fn rows(self) -> Option<Box<dyn Rows>> {
        match self {
            Self::RequestLogs => Some(Box::new(request_logs::RequestLogRows::default())),
            Self::Interactions => Some(Box::new(interactions::InteractionRows::default())),
            Self::ModelEvents => Some(Box::new(model_events::ModelEventRows::default())),
            Self::QualityMetrics => Some(Box::new(quality_metrics::QualityMetricRows::default())),
            Self::Movies => None,
        }
    }
}

/// The typed record of a message that must have a value.
pub(crate) fn read<T: Record>(record: &RawRecord) -> Result<T, Poison> {
    match record.value.as_deref() {
        None | Some([]) => Err(Poison {
            reason: Reason::Empty,
            detail: "an empty record where a value is required".into(),
        }),
        Some(bytes) => Ok(decode(bytes)?),
    }
}

/// An event time that has a date.
fn dated(ms: i64) -> Result<i64, Poison> {
    match date::day_of(ms) {
        Some(_) => Ok(ms),
        None => Err(Poison {
            reason: Reason::TimestampOutOfRange,
            detail: format!("event time {ms} ms lies outside the years 1970 to 9999"),
        }),
    }
}

#[derive(Debug)]
struct Times(TimestampMillisecondBuilder);

impl Default for Times {
    fn default() -> Self {
        Self(TimestampMillisecondBuilder::new().with_timezone("UTC"))
    }
}

#[derive(Debug)]
struct Texts(ListBuilder<StringBuilder>);

impl Default for Texts {
    fn default() -> Self {
        Self(ListBuilder::new(StringBuilder::new()).with_field(item(DataType::Utf8)))
    }
}

impl Texts {
    fn append<S: AsRef<str>>(&mut self, texts: &[S]) {
        for text in texts {
            self.0.values().append_value(text);
        }
        self.0.append(true);
    }
}

fn item(kind: DataType) -> Field {
    Field::new("item", kind, false)
}

/// JSON text of a nested value; the types that come here always serialise.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(table: Table, value: Option<&[u8]>) -> RawRecord {
        RawRecord {
            topic: table.topic(),
            partition: 0,
            offset: 0,
            timestamp_ms: -1,
            key: None,
            value: value.map(<[u8]>::to_vec),
        }
    }

    #[test]
    fn every_builder_makes_batches_of_its_tables_schema_even_when_empty() {
        for table in Table::ALL {
            let Some(mut rows) = table.rows() else { continue };
            let batch = rows.finish().unwrap();
            assert_eq!(batch.schema(), table.schema(), "{table}");
            assert_eq!(batch.num_rows(), 0);
        }
        assert_eq!(
            movies_batch(std::iter::empty()).unwrap().schema(),
            Table::Movies.schema()
        );
    }

    #[test]
    fn a_refused_record_leaves_no_trace_in_the_columns() {
        for table in Table::ALL {
            let Some(mut rows) = table.rows() else { continue };
            for value in [
                None,
                Some(&b""[..]),
                Some(b"{"),
                Some(b"{\"schema_version\":9}"),
                Some(b"7"),
            ] {
                assert!(rows.push(&record(table, value)).is_err(), "{table} {value:?}");
            }
            assert_eq!(rows.finish().unwrap().num_rows(), 0, "{table}");
        }
    }

    #[test]
    fn a_time_without_a_date_is_out_of_range() {
        let mut rows = Table::Interactions.rows().unwrap();
        let json = format!(
            r#"{{"schema_version":1,"event_id":"e","user_id":1,"movie_id":2,"kind":"view","timestamp":{}}}"#,
            i64::MAX
        );
        let poison = rows
            .push(&record(Table::Interactions, Some(json.as_bytes())))
            .unwrap_err();
        assert_eq!(poison.reason, Reason::TimestampOutOfRange);
    }
}
