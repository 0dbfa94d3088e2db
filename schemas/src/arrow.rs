//! Arrow schemas of the batch side: the columns of the Parquet lake.
//!
//! Every table begins with the record's origin (`kafka_partition`, `kafka_offset`), which identifies a row for ever.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

fn required(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn origin() -> [Field; 2] {
    [
        required("kafka_partition", DataType::Int32),
        required("kafka_offset", DataType::Int64),
    ]
}

/// Event times are UTC, ms.
#[must_use]
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn list_of(kind: DataType) -> DataType {
    DataType::List(Arc::new(required("item", kind)))
}

/// Fields of one entry of `request_logs.items`.
#[must_use]
pub fn logged_item_fields() -> Fields {
    Fields::from(vec![
        required("movie_id", DataType::UInt32),
        required("rank", DataType::UInt32),
        required("score", DataType::Float32),
        required("source", DataType::Utf8),
        required("propensity", DataType::Float64),
        required("explored", DataType::Boolean),
    ])
}

/// Columns of `interactions`.
#[must_use]
pub fn interactions() -> SchemaRef {
    let mut fields = origin().to_vec();
    fields.extend([
        required("event_id", DataType::Utf8),
        required("user_id", DataType::UInt64),
        optional("movie_id", DataType::UInt32),
        required("kind", DataType::Utf8),
        optional("rating", DataType::Float32),
        required("genres", list_of(DataType::Utf8)),
        required("timestamp", timestamp()),
        optional("session_id", DataType::Utf8),
        optional("request_id", DataType::Utf8),
        optional("source", DataType::Utf8),
    ]);
    Arc::new(Schema::new(fields))
}

/// Columns of `request_logs`.
#[must_use]
pub fn request_logs() -> SchemaRef {
    let mut fields = origin().to_vec();
    fields.extend([
        required("request_id", DataType::Utf8),
        required("timestamp", timestamp()),
        required("endpoint", DataType::Utf8),
        required("status", DataType::UInt16),
        optional("user_id", DataType::UInt64),
        optional("surface", DataType::Utf8),
        optional("model_version", DataType::Utf8),
        required("policy", DataType::Utf8),
        optional("experiment", DataType::Utf8),
        optional("arm", DataType::Utf8),
        optional("assignment_hash", DataType::UInt32),
        optional("feature_version", DataType::UInt64),
        required("k", DataType::UInt32),
        required("candidates", DataType::UInt32),
        required("seeds", list_of(DataType::UInt32)),
        required("filters", DataType::Utf8),
        required("items", list_of(DataType::Struct(logged_item_fields()))),
        optional("fallback_reason", DataType::Utf8),
        required("latency_ms", DataType::Float64),
        required("stages", DataType::Utf8),
        // Added later: absent in older files.
        optional("left_out", list_of(DataType::Utf8)),
    ]);
    Arc::new(Schema::new(fields))
}

/// Columns of `model_events`.
#[must_use]
pub fn model_events() -> SchemaRef {
    let mut fields = origin().to_vec();
    fields.extend([
        required("event_id", DataType::Utf8),
        required("version", DataType::Utf8),
        required("kind", DataType::Utf8),
        required("reason", DataType::Utf8),
        optional("bundle_uri", DataType::Utf8),
        optional("bundle_sha256", DataType::Utf8),
        required("offsets", DataType::Utf8),
        required("numbers", DataType::Utf8),
        optional("retrain_event_id", DataType::Utf8),
        optional("previous", DataType::Utf8),
        required("timestamp", timestamp()),
    ]);
    Arc::new(Schema::new(fields))
}

/// Columns of `quality_metrics`.
#[must_use]
pub fn quality_metrics() -> SchemaRef {
    let mut fields = origin().to_vec();
    fields.extend([
        required("metric_id", DataType::Utf8),
        required("name", DataType::Utf8),
        required("scope", DataType::Utf8),
        required("population", DataType::Utf8),
        optional("model_version", DataType::Utf8),
        required("value", DataType::Float64),
        optional("lo", DataType::Float64),
        optional("hi", DataType::Float64),
        required("n", DataType::UInt64),
        required("window_start", timestamp()),
        required("window_end", timestamp()),
    ]);
    Arc::new(Schema::new(fields))
}

/// Columns of `movies`.
#[must_use]
pub fn movies() -> SchemaRef {
    Arc::new(Schema::new(vec![
        required("movie_id", DataType::UInt32),
        required("title", DataType::Utf8),
        optional("year", DataType::UInt16),
        required("genres", list_of(DataType::Utf8)),
        optional("imdb_id", DataType::Utf8),
        optional("tmdb_id", DataType::UInt32),
    ]))
}
