//! Rows to Parquet bytes and back.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, new_null_array};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::arrow::{ArrowWriter, ProjectionMask};
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::schema::types::ColumnPath;

use crate::error::Error;

/// Rows of one row group: small enough that a filter on time skips much of a compacted file.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Columns of ids that are hardly ever the same twice.
const IDS: [&str; 3] = ["request_id", "event_id", "metric_id"];

/// How each column is written. Texts and numbers that repeat are best in a dictionary, which is the default; a column in
/// which every value is new only pays for building one.
fn properties(schema: &Schema) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("marquee ", env!("CARGO_PKG_VERSION")).to_owned());
    let mut plain = |path: Vec<String>, encoding: Encoding| {
        let path = ColumnPath::new(path);
        let builder = std::mem::take(&mut properties);
        properties = builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, encoding);
    };
    for field in schema.fields() {
        let own = vec![field.name().clone()];
        match field.data_type() {
            // Times and offsets rise by little.
            DataType::Timestamp(..) => plain(own, Encoding::DELTA_BINARY_PACKED),
            DataType::Int64 if field.name() == "kafka_offset" => plain(own, Encoding::DELTA_BINARY_PACKED),
            // Ids begin with their time.
            DataType::Utf8 if IDS.contains(&field.name().as_str()) => plain(own, Encoding::DELTA_BYTE_ARRAY),
            DataType::Float64 if field.name() == "latency_ms" => plain(own, Encoding::BYTE_STREAM_SPLIT),
            DataType::List(item) if field.name() == "items" => {
                let score = ["items", "list", item.name(), "score"].map(str::to_owned);
                plain(score.into(), Encoding::BYTE_STREAM_SPLIT);
            }
            _ => {}
        }
    }
    properties.build()
}

/// The bytes of one Parquet file, zstd-compressed.
pub(crate) fn write_file(batches: &[RecordBatch]) -> Result<Vec<u8>, Error> {
    let schema = batches
        .first()
        .map(RecordBatch::schema)
        .ok_or_else(|| Error::Config("a file needs rows".into()))?;
    let properties = properties(&schema);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// All rows of a committed file, in the form of `schema`; other columns are not read.
pub(crate) fn read_file(path: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>, Error> {
    let file = File::open(path).map_err(|e| Error::damaged(path, e.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let wanted = ProjectionMask::columns(builder.parquet_schema(), names);
            builder.with_projection(wanted).with_batch_size(64 * 1024).build()
        })
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
    use datafusion::arrow::datatypes::{Field, Int64Type};

    use super::*;
    use crate::table::Table;

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

    #[test]
    fn columns_that_never_repeat_are_written_without_a_dictionary_and_come_back() {
        let mut rows = Table::RequestLogs.rows().unwrap();
        for offset in 0..1_000_i64 {
            let json = format!(
                r#"{{"schema_version":1,"request_id":"0190-{offset}","timestamp":{offset},"endpoint":"recommend",
                "status":200,"policy":"ranked","k":1,"candidates":9,"latency_ms":0.{offset},"items":[
                {{"movie_id":1,"rank":0,"score":1.{offset},"source":"blend","propensity":1.0}}]}}"#
            );
            let record = marquee_runtime::bus::RawRecord {
                topic: Table::RequestLogs.topic(),
                partition: 0,
                offset,
                timestamp_ms: -1,
                key: None,
                value: Some(json.into_bytes()),
            };
            rows.push(&record).unwrap();
        }
        let batch = rows.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs.parquet");
        std::fs::write(&path, write_file(std::slice::from_ref(&batch)).unwrap()).unwrap();
        assert_eq!(read_file(&path, &batch.schema()).unwrap(), [batch]);

        let file = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let encodings: std::collections::BTreeMap<String, Vec<Encoding>> = file
            .metadata()
            .row_group(0)
            .columns()
            .iter()
            .map(|column| (column.column_path().string(), column.encodings().collect()))
            .collect();
        for (path, encoding) in [
            ("kafka_offset", Encoding::DELTA_BINARY_PACKED),
            ("timestamp", Encoding::DELTA_BINARY_PACKED),
            ("request_id", Encoding::DELTA_BYTE_ARRAY),
            ("latency_ms", Encoding::BYTE_STREAM_SPLIT),
            ("items.list.item.score", Encoding::BYTE_STREAM_SPLIT),
            ("items.list.item.movie_id", Encoding::RLE_DICTIONARY),
            ("endpoint", Encoding::RLE_DICTIONARY),
        ] {
            assert!(
                encodings[path].contains(&encoding),
                "{path}: {:?}",
                encodings[path]
            );
        }
        assert!(!encodings["request_id"].contains(&Encoding::RLE_DICTIONARY));
    }
}
