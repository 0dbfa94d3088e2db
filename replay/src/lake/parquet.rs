//! Rows to Parquet bytes and back.

use std::fs::File;
use std::path::Path;

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

/// All rows of a committed file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<RecordBatch>, Error> {
    let file = File::open(path).map_err(|e| Error::damaged(path, e.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(64 * 1024).build())
        .map_err(|e| Error::damaged(path, e.to_string()))?;
    reader
        .collect::<Result<_, _>>()
        .map_err(|e| Error::damaged(path, e.to_string()))
}
