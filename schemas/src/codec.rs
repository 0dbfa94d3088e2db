//! JSON bytes of a record, and what can be wrong with them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Reason, Topic};

/// A record that travels on a topic.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The topic it travels on.
    const TOPIC: Topic;

    /// The record's key: decides the partition, and on compacted topics which older record it replaces.
    fn key(&self) -> Vec<u8>;

    /// Rules that the types cannot express (ranges, fields required by another field's value).
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] naming the first broken rule.
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON at all, or not a JSON object.
    #[error("malformed JSON: {0}")]
    Malformed(String),
    /// A version that this build does not read.
    #[error("unknown schema_version {found}, this build reads {supported}")]
    UnknownVersion {
        /// What the record said.
        found: String,
        /// What is read here.
        supported: u16,
    },
    /// The `kind` is none of the known ones.
    #[error("unknown kind: {0}")]
    UnknownKind(String),
    /// A required field is absent.
    #[error("{0}")]
    MissingField(String),
    /// A field holds a value outside its domain.
    #[error("invalid {field}: {detail}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A field has the wrong type or shape.
    #[error("wrong type: {0}")]
    WrongType(String),
    /// More bytes than the record may have.
    #[error("{bytes} bytes are more than the {limit} allowed")]
    TooLarge {
        /// Size found.
        bytes: usize,
        /// Size allowed.
        limit: usize,
    },
}

impl DecodeError {
    /// The machine-readable reason under which such a record is dead-lettered.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::MalformedJson,
            Self::UnknownVersion { .. } => Reason::UnknownSchemaVersion,
            Self::UnknownKind(_) => Reason::UnknownKind,
            Self::MissingField(_) => Reason::MissingField,
            Self::Invalid {
                field: "timestamp", ..
            } => Reason::TimestampOutOfRange,
            Self::Invalid { .. } => Reason::OutOfRange,
            Self::WrongType(_) => Reason::WrongType,
            Self::TooLarge { .. } => Reason::TooLarge,
        }
    }
}

/// The constant `schema_version` of a record type; any other number is refused on read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SchemaVersion<const N: u16>;

impl<const N: u16> Serialize for SchemaVersion<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(N)
    }
}

impl<'de, const N: u16> Deserialize<'de> for SchemaVersion<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = u64::deserialize(deserializer)?;
        if found == u64::from(N) {
            Ok(Self)
        } else {
            Err(serde::de::Error::custom(format_args!(
                "{UNKNOWN_VERSION} {found} supported {N}"
            )))
        }
    }
}

impl<const N: u16> JsonSchema for SchemaVersion<N> {
    fn schema_name() -> Cow<'static, str> {
        format!("SchemaVersion{N}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "const": N })
    }
}

const UNKNOWN_VERSION: &str = "unknown schema_version";

/// The record's bytes.
///
/// Total for every record type of this crate: their maps have string keys and their floats are checked or options,
/// so serialisation cannot fail.
#[must_use]
pub fn encode<T: Record>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("record types serialise")
}

/// Reads and checks a record.
///
/// # Errors
/// A [`DecodeError`] that says which rule the bytes break; the fast path costs one parse, the diagnosis a second.
pub fn decode<T: Record>(bytes: &[u8]) -> Result<T, DecodeError> {
    match serde_json::from_slice::<T>(bytes) {
        Ok(record) => {
            record.check()?;
            Ok(record)
        }
        Err(error) => Err(diagnose(bytes, &error)),
    }
}

/// The version decides first: a record of another version may well lack this version's fields.
fn diagnose(bytes: &[u8], error: &serde_json::Error) -> DecodeError {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        schema_version: Option<&'a serde_json::value::RawValue>,
    }

    let message = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return DecodeError::Malformed(message);
    }
    let Ok(probe) = serde_json::from_slice::<Probe<'_>>(bytes) else {
        return DecodeError::Malformed(message);
    };
    if let Some(rest) = message.strip_prefix(UNKNOWN_VERSION) {
        let supported = rest
            .split_whitespace()
            .nth(2)
            .and_then(|n| n.parse().ok())
            .unwrap_or_default();
        let found = probe
            .schema_version
            .map_or_else(String::new, |v| v.get().to_owned());
        return DecodeError::UnknownVersion { found, supported };
    }
    if message.starts_with("missing field") {
        DecodeError::MissingField(message)
    } else if message.starts_with("unknown variant") {
        DecodeError::UnknownKind(message)
    } else {
        DecodeError::WrongType(message)
    }
}
