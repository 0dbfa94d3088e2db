//! Records that were refused, with everything needed to mend and resend them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Record, SchemaVersion, Topic};

/// Why a record was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not JSON, or not an object.
    MalformedJson,
    /// A version this build does not read.
    UnknownSchemaVersion,
    /// A `kind` this build does not know.
    UnknownKind,
    /// A required field is absent.
    MissingField,
    /// A field holds a value outside its domain.
    OutOfRange,
    /// A field has the wrong type.
    WrongType,
    /// The event time lies before 1970 or too far in the future.
    TimestampOutOfRange,
    /// Larger than any valid record.
    TooLarge,
    /// An empty record where a value is required.
    Empty,
    /// A movie that the catalogue does not hold; picked up again by the training after it does.
    UnknownMovie,
    /// Too late to be applied in order.
    TooLate,
}

impl Reason {
    /// The name on the wire, also used as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::UnknownSchemaVersion => "unknown_schema_version",
            Self::UnknownKind => "unknown_kind",
            Self::MissingField => "missing_field",
            Self::OutOfRange => "out_of_range",
            Self::WrongType => "wrong_type",
            Self::TimestampOutOfRange => "timestamp_out_of_range",
            Self::TooLarge => "too_large",
            Self::Empty => "empty",
            Self::UnknownMovie => "unknown_movie",
            Self::TooLate => "too_late",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes that travel as base64 text in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes64(pub Vec<u8>);

impl Serialize for Bytes64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Bytes64 {
    fn schema_name() -> Cow<'static, str> {
        "Bytes64".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}

/// One refused record. Keyed by its origin, so that a repeated refusal is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Topic it was read from; `http` for one refused at the door.
    pub topic: String,
    /// Partition it was read from.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The service that refused it.
    pub stage: String,
    /// Why.
    pub reason: Reason,
    /// Why, in a sentence.
    pub detail: String,
    /// Its key, as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes64>,
    /// Its value, as it was.
    pub payload: Bytes64,
    /// When it was refused, ms.
    pub at_ms: i64,
}

impl Record for DeadLetter {
    const TOPIC: Topic = Topic::DeadLetters;

    fn key(&self) -> Vec<u8> {
        format!("{}/{}/{}", self.topic, self.partition, self.offset).into_bytes()
    }
}
