//! One record of the log as drift and data quality see it.

use marquee_schemas::{Kind, Reason};

use super::tally::scatter;
use crate::store::{reason_code, reason_of};
use crate::wire::{Reader, Writer, kind_code, kind_of};

/// Bytes of a stored observation.
pub(crate) const OBSERVATION_BYTES: usize = 8 + 4 + 1 + 1 + 1 + 8 + 8;

const REFUSED: u8 = 0x40;
const DUPLICATE: u8 = 0x80;
const ERASURE: u8 = 0x81;
const FIRST: u8 = 1;
const LATE: u8 = 2;

/// What became of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Folded.
    Applied(Kind),
    /// A repetition of an event id.
    Duplicate,
    /// Asked to forget a user, and was followed.
    Erasure,
    /// Dead-lettered.
    Refused(Reason),
}

/// One record of `interactions`, applied or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Who; for a record that names nobody readable, a hash of its key.
    pub user: u64,
    /// The movie's id, 0 where there is none.
    pub movie: u32,
    /// What became of it.
    pub fate: Fate,
    /// Twice the stars, rounded up; 0 where there are none.
    pub half_stars: u8,
    /// Whether it is the first event of its user.
    pub first: bool,
    /// Whether it is older than the newest event its user had.
    pub late: bool,
    /// Event time since its user's first event, ms.
    pub tenure_ms: i64,
    /// Event time, ms; 0 where there is none.
    pub timestamp_ms: i64,
}

impl Observation {
    /// A record that was not folded.
    #[must_use]
    pub fn not_applied(fate: Fate, key: Option<&[u8]>) -> Self {
        Self {
            user: user_of(key),
            movie: 0,
            fate,
            half_stars: 0,
            first: false,
            late: false,
            tenure_ms: 0,
            timestamp_ms: 0,
        }
    }

    /// Whether it entered its user's history.
    #[must_use]
    pub fn is_history(&self) -> bool {
        matches!(self.fate, Fate::Applied(kind) if kind.is_history())
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.i64(self.user.cast_signed());
        writer.0.extend_from_slice(&self.movie.to_le_bytes());
        writer.u8(match self.fate {
            Fate::Applied(kind) => kind_code(kind),
            Fate::Refused(reason) => reason_code(reason) | REFUSED,
            Fate::Duplicate => DUPLICATE,
            Fate::Erasure => ERASURE,
        });
        writer.u8(self.half_stars);
        writer.u8(if self.first { FIRST } else { 0 } | if self.late { LATE } else { 0 });
        writer.i64(self.tenure_ms);
        writer.i64(self.timestamp_ms);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let user = reader.i64()?.cast_unsigned();
        let movie = reader.u32()?;
        let fate = match reader.u8()? {
            DUPLICATE => Fate::Duplicate,
            ERASURE => Fate::Erasure,
            code if code & REFUSED != 0 => Fate::Refused(reason_of(code & !REFUSED)?),
            code => Fate::Applied(kind_of(code)?),
        };
        let half_stars = reader.u8()?;
        let flags = reader.u8()?;
        Some(Self {
            user,
            movie,
            fate,
            half_stars,
            first: flags & FIRST != 0,
            late: flags & LATE != 0,
            tenure_ms: reader.i64()?,
            timestamp_ms: reader.i64()?,
        })
    }
}

/// The user that a record's key names; a key that is no user id stands for itself, a missing one for nobody.
fn user_of(key: Option<&[u8]>) -> u64 {
    let key = key.unwrap_or_default();
    std::str::from_utf8(key)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| key.iter().fold(0, |hash, &byte| scatter(hash ^ u64::from(byte))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_read_back() {
        let applied = Observation {
            user: u64::MAX >> 11,
            movie: u32::MAX,
            fate: Fate::Applied(Kind::Rating),
            half_stars: 9,
            first: true,
            late: true,
            tenure_ms: -5,
            timestamp_ms: 7,
        };
        for observation in [
            applied,
            Observation::not_applied(Fate::Duplicate, Some(b"42")),
            Observation::not_applied(Fate::Erasure, None),
            Observation::not_applied(Fate::Refused(Reason::TooLarge), Some(b"\xff")),
        ] {
            let mut writer = Writer::default();
            observation.encode(&mut writer);
            assert_eq!(writer.0.len(), OBSERVATION_BYTES);
            assert_eq!(
                Observation::decode(&mut Reader::bare(&writer.0)),
                Some(observation)
            );
        }
    }

    #[test]
    fn a_refused_record_counts_for_the_user_its_key_names() {
        let of = |key: Option<&[u8]>| Observation::not_applied(Fate::Duplicate, key).user;
        assert_eq!(of(Some(b"42")), 42);
        assert_ne!(of(Some(b"x")), of(Some(b"y")));
        assert_eq!(of(None), of(Some(b"")));
    }
}
