//! Rows to Parquet bytes and back.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, new_null_array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;

use crate::error::Error;

/// Rows of one row group: small enough that a filter on time skips much of a compacted file.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// The bytes of one Parquet file, zstd-compressed.
pub(crate) fn write_file(batches: &[RecordBatch]) -> Result<Vec<u8>, Error> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("marquee ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let schema = batches
        .first()
        .map(RecordBatch::schema)
        .ok_or_else(|| Error::Config("a file needs rows".into()))?;
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// All rows of a committed file, in the form of `schema`.
pub(crate) fn read_file(path: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>, Error> {
    let file = File::open(path).map_err(|e| Error::damaged(path, e.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(64 * 1024).build())
        .map_err(|e| Error::damaged(path, e.to_string()))?;
    reader
        .map(|batch| {
            batch
                .map_err(|e| e.to_string())
                .and_then(|batch| conform(&batch, schema))
                .map_err(|why| Error::damaged(path, why))
        })
        .collect()
}

/// The batch with exactly the columns of `schema`: one that an older file does not have yet is null where it may be.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let columns: Result<Vec<ArrayRef>, String> = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Err(format!(
                "column {} is {} where {} is expected",
                field.name(),
                column.data_type(),
                field.data_type()
            )),
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
            None => Err(format!("column {} is missing", field.name())),
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns?).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int64Array};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
        let fields: Vec<Field> = fields
            .iter()
            .map(|(name, kind, optional)| Field::new(*name, kind.clone(), *optional))
            .collect();
        Arc::new(Schema::new(fields))
    }

    #[test]
    fn a_file_from_before_a_column_was_added_reads_with_nulls_and_any_other_difference_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.parquet");
        let old = schema(&[("gone", DataType::Int64, false), ("a", DataType::Int64, false)]);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_new(old, vec![Arc::clone(&column), column]).unwrap();
        std::fs::write(&path, write_file(&[batch]).unwrap()).unwrap();

        let new = schema(&[("a", DataType::Int64, false), ("b", DataType::Utf8, true)]);
        let read = read_file(&path, &new).unwrap();
        assert_eq!(read[0].schema(), new);
        assert_eq!(read[0].column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
        assert_eq!(read[0].column(1).null_count(), 2);

        for impossible in [
            schema(&[("b", DataType::Utf8, false)]),
            schema(&[("a", DataType::Utf8, true)]),
        ] {
            let error = read_file(&path, &impossible).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
    }
}
