//! From raw records to valid interactions, or the reason why not.

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{
    DeadLetter, DecodeError, Interaction, Limits, MAX_INTERACTION_BYTES, Reason, UserId, decode,
};

/// The name under which this service signs dead letters.
const STAGE: &str = "feature-processor";

/// Why a record is not folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For machines.
    pub reason: Reason,
    /// For people.
    pub detail: String,
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self {
            reason: error.reason(),
            detail: error.to_string(),
        }
    }
}

impl Refusal {
    /// The dead letter of `record`, refused for this reason at `now_ms`.
    #[must_use]
    pub fn dead_letter(&self, record: &RawRecord, now_ms: i64) -> DeadLetter {
        DeadLetter::of(STAGE, &record.origin(), self.reason, &self.detail, now_ms)
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Well formed. Whether it is a repetition or about an unknown movie is seen when it is folded.
    Valid(Interaction),
    /// A tombstone under a user's key: everything known of this user goes.
    Erasure(UserId),
    /// Poison.
    Refused(Refusal),
}

/// A record with its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// As it lies in the log.
    pub record: RawRecord,
    /// What it is.
    pub verdict: Verdict,
}

/// Decodes and checks a record by everything that depends on it and the clock alone. Never fails: what is wrong with
/// the record is in the verdict.
///
/// Whether an event lies too far ahead is judged by the time at which its record was written, as far as that is known and
/// not ahead of `now_ms` itself. A record is then judged alike whenever it is read, also in a later rebuild.
#[must_use]
pub fn judge(record: RawRecord, now_ms: i64, limits: Limits) -> Judged {
    let verdict = match Interaction::erased(record.key.as_deref(), record.value.as_deref()) {
        Some(user) => Verdict::Erasure(user),
        None => match read(record.value.as_deref(), written_ms(&record, now_ms), limits) {
            Ok(interaction) => Verdict::Valid(interaction),
            Err(refusal) => Verdict::Refused(refusal),
        },
    };
    Judged { record, verdict }
}

fn written_ms(record: &RawRecord, now_ms: i64) -> i64 {
    Some(record.timestamp_ms)
        .filter(|&at| at >= 0)
        .map_or(now_ms, |at| at.min(now_ms))
}

fn read(value: Option<&[u8]>, now_ms: i64, limits: Limits) -> Result<Interaction, Refusal> {
    let bytes = match value {
        None | Some([]) => {
            return Err(Refusal {
                reason: Reason::Empty,
                detail: "an empty record whose key is no user id".into(),
            });
        }
        Some(bytes) => bytes,
    };
    if bytes.len() > MAX_INTERACTION_BYTES {
        return Err(DecodeError::TooLarge {
            bytes: bytes.len(),
            limit: MAX_INTERACTION_BYTES,
        }
        .into());
    }
    let interaction: Interaction = decode(bytes)?;
    interaction.check_time(now_ms, limits)?;
    Ok(interaction)
}

#[cfg(test)]
mod tests {
    use marquee_schemas::{Bytes64, Topic};

    use super::*;

    fn reason(value: Option<&[u8]>) -> Option<Reason> {
        let record = RawRecord {
            topic: Topic::Interactions,
            partition: 3,
            offset: 7,
            timestamp_ms: -1,
            key: Some(b"k".to_vec()),
            value: value.map(<[u8]>::to_vec),
        };
        match judge(record, 2_000, Limits { max_future_ms: 0 }).verdict {
            Verdict::Valid(_) | Verdict::Erasure(_) => None,
            Verdict::Refused(refusal) => Some(refusal.reason),
        }
    }

    #[test]
    fn every_kind_of_poison_has_its_reason() {
        let valid =
            br#"{"schema_version":1,"event_id":"e","user_id":1,"movie_id":2,"kind":"view","timestamp":2000}"#;
        assert_eq!(reason(Some(valid)), None);
        assert_eq!(reason(None), Some(Reason::Empty));
        assert_eq!(reason(Some(b"")), Some(Reason::Empty));
        assert_eq!(reason(Some(b"{")), Some(Reason::MalformedJson));
        assert_eq!(
            reason(Some(&vec![b' '; MAX_INTERACTION_BYTES + 1])),
            Some(Reason::TooLarge)
        );
        let text = std::str::from_utf8(valid).unwrap();
        for (from, to, expected) in [
            ("_version\":1", "_version\":2", Reason::UnknownSchemaVersion),
            ("view", "stare", Reason::UnknownKind),
            ("\"user_id\":1,", "", Reason::MissingField),
            ("2000", "2001", Reason::TimestampOutOfRange),
            ("\"user_id\":1", "\"user_id\":\"one\"", Reason::WrongType),
        ] {
            assert_eq!(
                reason(Some(text.replace(from, to).as_bytes())),
                Some(expected),
                "{to}"
            );
        }
    }

    #[test]
    fn an_event_ahead_of_its_own_record_is_refused_however_late_it_is_read() {
        let is_valid = |written_ms: i64, now_ms: i64| {
            let record = RawRecord {
                topic: Topic::Interactions,
                partition: 0,
                offset: 0,
                timestamp_ms: written_ms,
                key: None,
                value: Some(
                    br#"{"schema_version":1,"event_id":"e","user_id":1,"movie_id":2,"kind":"view","timestamp":2000}"#
                        .to_vec(),
                ),
            };
            let limits = Limits { max_future_ms: 100 };
            matches!(judge(record, now_ms, limits).verdict, Verdict::Valid(_))
        };
        for now_ms in [1_899, 5_000] {
            assert!(!is_valid(1_899, now_ms), "read at {now_ms}");
        }
        for now_ms in [1_900, 5_000] {
            assert!(is_valid(1_900, now_ms), "read at {now_ms}");
        }
        // A producer whose clock is ahead cannot vouch for itself; one that names no time is judged by the reader's.
        assert!(!is_valid(9_000, 1_899));
        assert!(!is_valid(-1, 1_899));
        assert!(is_valid(-1, 1_900));
    }

    #[test]
    fn an_empty_record_under_a_users_key_is_an_erasure_and_under_any_other_key_poison() {
        let verdict = |key: Option<&[u8]>, value: Option<&[u8]>| {
            let record = RawRecord {
                topic: Topic::Interactions,
                partition: 0,
                offset: 0,
                timestamp_ms: -1,
                key: key.map(<[u8]>::to_vec),
                value: value.map(<[u8]>::to_vec),
            };
            judge(record, 0, Limits::default()).verdict
        };
        assert_eq!(verdict(Some(b"42"), None), Verdict::Erasure(UserId(42)));
        assert_eq!(verdict(Some(b"42"), Some(b"")), Verdict::Erasure(UserId(42)));
        for key in [&b"042"[..], b"+42", b"", b"x", b"\xff", b"9007199254740992"] {
            assert!(matches!(verdict(Some(key), None), Verdict::Refused(_)), "{key:?}");
        }
        assert!(matches!(verdict(None, None), Verdict::Refused(_)));
        assert!(matches!(verdict(Some(b"42"), Some(b"{")), Verdict::Refused(_)));
    }

    #[test]
    fn a_dead_letter_carries_origin_key_and_bytes() {
        let record = RawRecord {
            topic: Topic::Interactions,
            partition: 3,
            offset: 7,
            timestamp_ms: -1,
            key: Some(b"k".to_vec()),
            value: Some(b"\xff\x00".to_vec()),
        };
        let judged = judge(record, 5, Limits::default());
        let Verdict::Refused(refusal) = &judged.verdict else {
            panic!("accepted")
        };
        let letter = refusal.dead_letter(&judged.record, 5);
        assert_eq!(
            (letter.topic.as_str(), letter.partition, letter.offset),
            ("interactions", 3, 7)
        );
        assert_eq!(letter.key, Some(Bytes64(b"k".to_vec())));
        assert_eq!(letter.payload, Bytes64(b"\xff\x00".to_vec()));
    }
}
