//! What users do: the one input of the whole system.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DecodeError, MovieId, Record, SchemaVersion, Topic, UserId};

/// The largest interaction accepted, in bytes; the fields are bounded, so a larger one is a mistake or an attack.
pub const MAX_INTERACTION_BYTES: usize = 64 * 1024;

/// What happened between the user and the movie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The movie was shown in a list.
    Impression,
    /// The movie's page was opened or the movie watched.
    View,
    /// An entry of a served list was clicked.
    Click,
    /// Explicit approval.
    Like,
    /// Explicit disapproval.
    Dislike,
    /// A rating on the scale 0.5 to 5 (`rating` is required).
    Rating,
    /// Put on the watchlist.
    WatchlistAdd,
    /// Taken off the watchlist.
    WatchlistRemove,
    /// Genres chosen while signing up (`genres` is required, `movie_id` is not).
    Preference,
}

impl Kind {
    /// All kinds, in wire order.
    pub const ALL: [Kind; 9] = [
        Kind::Impression,
        Kind::View,
        Kind::Click,
        Kind::Like,
        Kind::Dislike,
        Kind::Rating,
        Kind::WatchlistAdd,
        Kind::WatchlistRemove,
        Kind::Preference,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Impression => "impression",
            Kind::View => "view",
            Kind::Click => "click",
            Kind::Like => "like",
            Kind::Dislike => "dislike",
            Kind::Rating => "rating",
            Kind::WatchlistAdd => "watchlist_add",
            Kind::WatchlistRemove => "watchlist_remove",
            Kind::Preference => "preference",
        }
    }

    /// Whether the event makes its movie part of the user's history (and so of the seen set). Being shown a movie
    /// or wishing to see it does not.
    #[must_use]
    pub fn is_history(self) -> bool {
        !matches!(
            self,
            Kind::Impression | Kind::Preference | Kind::WatchlistAdd | Kind::WatchlistRemove
        )
    }
}

/// One thing a user did. Keyed by user, so that one user's interactions stay in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interaction {
    /// Always 1.
    pub schema_version: SchemaVersion<1>,
    /// Chosen by the producer, unique per event, 1 to 128 bytes; a repeated id is applied once.
    pub event_id: String,
    /// Who.
    pub user_id: UserId,
    /// Which movie; required for every kind but `preference`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub movie_id: Option<MovieId>,
    /// What.
    pub kind: Kind,
    /// Stars, 0.5 to 5; required for `rating`, absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<f32>,
    /// Genres chosen; required for `preference`, absent otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genres: Vec<String>,
    /// Event time, milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The client's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The served list that this answers, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Where the event comes from, for example `web`, `replay`, `simulator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Limits that depend on the time of arrival, not on the record alone.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How far an event's time may lie ahead of the clock, ms.
    pub max_future_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_future_ms: 24 * 60 * 60 * 1000,
        }
    }
}

impl Interaction {
    /// The user that a record without a value asks to forget. (Some clients cannot tell no value from an empty one.)
    #[must_use]
    pub fn erased(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<UserId> {
        let empty = value.is_none_or(<[u8]>::is_empty);
        let key = std::str::from_utf8(key.filter(|_| empty)?).ok()?;
        // Only as it is written by producers of interactions: "+7" and "007" name nobody.
        let user = key.parse().ok().map(UserId).filter(|&user| user <= UserId::MAX)?;
        (user.to_string() == key).then_some(user)
    }

    /// The earliest event time accepted, ms: the first of January 1970 itself is a missing value in disguise.
    pub const MIN_TIMESTAMP_MS: i64 = 1;

    /// Refuses an event that claims to come from the future.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for `timestamp`.
    pub fn check_time(&self, now_ms: i64, limits: Limits) -> Result<(), DecodeError> {
        if self.timestamp > now_ms.saturating_add(limits.max_future_ms) {
            return Err(invalid(
                "timestamp",
                format!(
                    "{} lies more than {} ms in the future",
                    self.timestamp, limits.max_future_ms
                ),
            ));
        }
        Ok(())
    }
}

fn invalid(field: &'static str, detail: impl Into<String>) -> DecodeError {
    DecodeError::Invalid {
        field,
        detail: detail.into(),
    }
}

fn check_len(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), DecodeError> {
    if (min..=max).contains(&text.len()) {
        Ok(())
    } else {
        Err(invalid(
            field,
            format!("{} bytes, allowed are {min} to {max}", text.len()),
        ))
    }
}

impl Record for Interaction {
    const TOPIC: Topic = Topic::Interactions;

    fn key(&self) -> Vec<u8> {
        self.user_id.to_string().into_bytes()
    }

    fn check(&self) -> Result<(), DecodeError> {
        check_len("event_id", &self.event_id, 1, 128)?;
        if self.user_id > UserId::MAX {
            return Err(invalid("user_id", format!("{} is above 2^53 - 1", self.user_id)));
        }
        if self.timestamp < Self::MIN_TIMESTAMP_MS {
            return Err(invalid(
                "timestamp",
                format!("{} is not a time in milliseconds", self.timestamp),
            ));
        }
        match (self.kind, self.movie_id) {
            (Kind::Preference, Some(_)) => {
                return Err(invalid("movie_id", "a preference is about genres, not a movie"));
            }
            (Kind::Preference, None) => {}
            (_, None) => return Err(DecodeError::MissingField("missing field `movie_id`".into())),
            (_, Some(_)) => {}
        }
        match (self.kind, self.rating) {
            (Kind::Rating, None) => return Err(DecodeError::MissingField("missing field `rating`".into())),
            (Kind::Rating, Some(stars)) if !(0.5..=5.0).contains(&stars) => {
                return Err(invalid("rating", format!("{stars} is outside 0.5 to 5")));
            }
            (Kind::Rating, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(invalid("rating", "only an event of kind `rating` carries one")),
        }
        match (self.kind, self.genres.len()) {
            (Kind::Preference, 0) => return Err(DecodeError::MissingField("missing field `genres`".into())),
            (Kind::Preference, 1..=32) => {}
            (Kind::Preference, n) => {
                return Err(invalid("genres", format!("{n} genres, allowed are 1 to 32")));
            }
            (_, 0) => {}
            (_, _) => {
                return Err(invalid(
                    "genres",
                    "only an event of kind `preference` carries them",
                ));
            }
        }
        for genre in &self.genres {
            check_len("genres", genre, 1, 64)?;
        }
        for (field, text) in [
            ("session_id", &self.session_id),
            ("request_id", &self.request_id),
            ("source", &self.source),
        ] {
            if let Some(text) = text {
                check_len(field, text, 1, 128)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reason, decode, encode};

    fn json(patch: &[(&str, serde_json::Value)]) -> Vec<u8> {
        let mut value = serde_json::json!({
            "schema_version": 1, "event_id": "e", "user_id": 1, "movie_id": 2, "kind": "rating",
            "rating": 4.5, "timestamp": 1_000
        });
        for (field, new) in patch {
            if new.is_null() {
                value.as_object_mut().unwrap().remove(*field);
            } else {
                value[*field] = new.clone();
            }
        }
        serde_json::to_vec(&value).unwrap()
    }

    fn reason(patch: &[(&str, serde_json::Value)]) -> Reason {
        decode::<Interaction>(&json(patch)).unwrap_err().reason()
    }

    #[test]
    fn each_broken_rule_is_named_by_its_reason() {
        use serde_json::json;
        let null = serde_json::Value::Null;
        assert_eq!(
            reason(&[("schema_version", json!(7))]),
            Reason::UnknownSchemaVersion
        );
        assert_eq!(reason(&[("schema_version", null.clone())]), Reason::MissingField);
        assert_eq!(reason(&[("kind", json!("stare"))]), Reason::UnknownKind);
        assert_eq!(reason(&[("rating", json!(7))]), Reason::OutOfRange);
        assert_eq!(reason(&[("rating", null.clone())]), Reason::MissingField);
        assert_eq!(reason(&[("user_id", null.clone())]), Reason::MissingField);
        assert_eq!(reason(&[("movie_id", null.clone())]), Reason::MissingField);
        assert_eq!(reason(&[("event_id", null)]), Reason::MissingField);
        assert_eq!(reason(&[("event_id", json!(""))]), Reason::OutOfRange);
        assert_eq!(reason(&[("user_id", json!("seven"))]), Reason::WrongType);
        assert_eq!(reason(&[("user_id", json!(1_u64 << 53))]), Reason::OutOfRange);
        assert_eq!(reason(&[("timestamp", json!(-5))]), Reason::TimestampOutOfRange);
        assert_eq!(reason(&[("kind", json!("like"))]), Reason::OutOfRange);
        for bytes in [&b"{\"schema"[..], b"", b"\xff\xfe", b"[1,2]", b"null"] {
            assert_eq!(
                decode::<Interaction>(bytes).unwrap_err().reason(),
                Reason::MalformedJson,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn an_event_from_the_far_future_is_refused_and_one_within_the_skew_is_not() {
        let event: Interaction = decode(&json(&[])).unwrap();
        let limits = Limits { max_future_ms: 10 };
        assert!(event.check_time(990, limits).is_ok());
        assert_eq!(
            event.check_time(989, limits).unwrap_err().reason(),
            Reason::TimestampOutOfRange
        );
    }

    #[test]
    fn unknown_fields_are_tolerated() {
        let event: Interaction = decode(&json(&[("mood", serde_json::json!("curious"))])).unwrap();
        assert_eq!(decode::<Interaction>(&encode(&event)).unwrap(), event);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_without_panic(bytes in proptest::collection::vec(0_u8.., 0..256)) {
            proptest::prop_assert!(decode::<Interaction>(&bytes).is_err());
        }

        #[test]
        fn every_valid_rating_survives_the_wire(user in 0..=UserId::MAX.0, movie: u32, halves in 1_u8..=10, at in 1_i64..) {
            let event = Interaction {
                schema_version: SchemaVersion,
                event_id: format!("{user}-{movie}"),
                user_id: UserId(user),
                movie_id: Some(MovieId(movie)),
                kind: Kind::Rating,
                rating: Some(f32::from(halves) / 2.0),
                genres: vec![],
                timestamp: at,
                session_id: None,
                request_id: None,
                source: None,
            };
            proptest::prop_assert_eq!(decode::<Interaction>(&encode(&event)).unwrap(), event);
        }
    }
}
