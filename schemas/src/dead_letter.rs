//! Records that were refused, with everything needed to mend and resend them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::{Record, SchemaVersion, Topic};

/// The most of a refused record's value that a dead letter keeps. In base64, and with everything else in a letter, it
/// stays below what the topic and its producers take: a letter that nobody takes would hold up all that come after it.
pub const MAX_LETTER_PAYLOAD_BYTES: usize = 2 * 1024 * 1024;
/// The same of its key ...
const MAX_LETTER_KEY_BYTES: usize = 64 * 1024;
/// ... and of the sentence about it, which may quote the record.
const MAX_DETAIL_CHARS: usize = 2_000;

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

/// A record that is to be refused, as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Topic it was read from; `http` for one refused at the door.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
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
    /// Its key, as it was; of a long one the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes64>,
    /// Its value, as it was; of a large one the first 2 MiB.
    pub payload: Bytes64,
    /// Whether key or value are only the beginning. The whole record lies at its origin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Where it is truncated: length of the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// Where it is truncated: SHA-256 of the whole value, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_sha256: Option<String>,
    /// When it was refused, ms.
    pub at_ms: i64,
}

impl DeadLetter {
    /// What `stage` refused at `at_ms`, with as much of it as a letter holds.
    #[must_use]
    pub fn of(stage: &str, origin: &Origin<'_>, reason: Reason, detail: &str, at_ms: i64) -> Self {
        let value = origin.value.unwrap_or_default();
        let payload = beginning(value, MAX_LETTER_PAYLOAD_BYTES);
        let key = origin.key.map(|key| beginning(key, MAX_LETTER_KEY_BYTES));
        let truncated = payload.len() < value.len() || key.map(<[u8]>::len) < origin.key.map(<[u8]>::len);
        Self {
            schema_version: SchemaVersion,
            topic: origin.topic.to_owned(),
            partition: origin.partition,
            offset: origin.offset,
            stage: stage.to_owned(),
            reason,
            detail: detail.chars().take(MAX_DETAIL_CHARS).collect(),
            key: key.map(|key| Bytes64(key.to_vec())),
            payload: Bytes64(payload.to_vec()),
            truncated,
            payload_bytes: truncated.then_some(value.len() as u64),
            payload_sha256: truncated.then(|| hexadecimal(&Sha256::digest(value))),
            at_ms,
        }
    }
}

fn beginning(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Record for DeadLetter {
    const TOPIC: Topic = Topic::DeadLetters;

    fn key(&self) -> Vec<u8> {
        format!("{}/{}/{}", self.topic, self.partition, self.offset).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    fn letter(key: &[u8], value: &[u8], detail: &str) -> DeadLetter {
        let origin = Origin {
            topic: "interactions",
            partition: 3,
            offset: i64::MAX,
            key: Some(key),
            value: Some(value),
        };
        DeadLetter::of("feature-processor", &origin, Reason::TooLarge, detail, i64::MAX)
    }

    #[test]
    fn a_record_that_fits_is_kept_whole_and_without_further_words() {
        let value = vec![b'x'; MAX_LETTER_PAYLOAD_BYTES];
        let whole = letter(b"7", &value, "why");
        assert_eq!(whole.payload.0, value);
        assert_eq!((whole.truncated, whole.payload_bytes), (false, None));
        assert!(!String::from_utf8(encode(&whole)).unwrap().contains("truncated"));
    }

    #[test]
    fn of_a_large_record_the_beginning_is_kept_with_length_and_checksum_of_the_whole() {
        let mut value = vec![b'x'; MAX_LETTER_PAYLOAD_BYTES];
        value.push(b'y');
        let cut = letter(b"7", &value, "why");
        assert_eq!(cut.payload.0, value[..MAX_LETTER_PAYLOAD_BYTES]);
        assert_eq!(
            (cut.truncated, cut.payload_bytes),
            (true, Some(value.len() as u64))
        );
        assert_eq!(cut.payload_sha256, Some(hexadecimal(&Sha256::digest(&value))));
        assert_eq!(decode::<DeadLetter>(&encode(&cut)).unwrap(), cut);
    }

    #[test]
    fn the_checksum_is_written_as_everybody_writes_it() {
        assert_eq!(
            hexadecimal(&Sha256::digest(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_largest_letter_is_below_what_its_topic_takes() {
        // Of all characters these take the most bytes in JSON.
        let largest = letter(&vec![0; 4 << 20], &vec![0; 8 << 20], &"\u{1}".repeat(1 << 20));
        assert!(largest.truncated);
        let bytes = encode(&largest).len() + largest.key().len();
        assert!(
            bytes < Topic::DeadLetters.spec().max_message_bytes * 3 / 4,
            "{bytes}"
        );
    }
}
