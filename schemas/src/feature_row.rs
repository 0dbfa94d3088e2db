//! The feature store's rows, as a new owner of a partition takes them over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes64, Offset, Record, SchemaVersion, Topic};

/// One row of a partition's feature store. Only the feature processor reads it: what others need is in `features`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureRow {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Which row.
    pub row: String,
    /// The store's next offset when the row held these bytes.
    pub next_offset: Offset,
    /// The row's bytes.
    pub bytes: Bytes64,
}

impl Record for FeatureRow {
    const TOPIC: Topic = Topic::FeatureRows;

    fn key(&self) -> Vec<u8> {
        self.row.clone().into_bytes()
    }
}
