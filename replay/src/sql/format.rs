//! Results as text.

use std::str::FromStr;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches;

use std::sync::Arc;

use super::{QueryResult, SqlError};

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A drawn table, for people.
    #[default]
    Table,
    /// RFC 4180 with a header; nested values in brackets.
    Csv,
    /// One JSON object per line; absent values are left out.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(format!("unknown format {text:?}: choose table, csv or json")),
        }
    }
}

impl QueryResult {
    /// The result as text, ending with a line break.
    ///
    /// # Errors
    /// [`SqlError::Execution`] for a value that has no text form.
    pub fn render(&self, format: Format) -> Result<String, SqlError> {
        let fail = |error: ArrowError| SqlError::Execution(error.to_string());
        // Without a batch there is still a header.
        let empty;
        let batches = if self.batches.is_empty() {
            empty = [RecordBatch::new_empty(Arc::clone(&self.schema))];
            &empty[..]
        } else {
            &self.batches[..]
        };
        match format {
            Format::Table => {
                let table = pretty_format_batches(batches).map_err(fail)?;
                Ok(format!("{table}\n"))
            }
            Format::Csv => {
                let mut bytes = Vec::new();
                let mut writer = WriterBuilder::new().with_header(true).build(&mut bytes);
                for batch in batches {
                    writer.write(&flat(batch).map_err(fail)?).map_err(fail)?;
                }
                drop(writer);
                text(bytes)
            }
            Format::Json => {
                let mut writer = LineDelimitedWriter::new(Vec::new());
                for batch in batches {
                    writer.write(batch).map_err(fail)?;
                }
                writer.finish().map_err(fail)?;
                text(writer.into_inner())
            }
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, SqlError> {
    String::from_utf8(bytes).map_err(|error| SqlError::Execution(error.to_string()))
}

/// CSV knows no nested values.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default())?;
            let texts: StringArray = (0..column.len())
                .map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()))
                .collect();
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(Arc::new(texts));
        } else {
            fields.push(field.as_ref().clone());
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
