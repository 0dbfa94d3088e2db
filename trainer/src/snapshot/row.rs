//! One interaction as the snapshot keeps it: decoded, fixed in size.

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{DecodeError, Interaction, Kind, Limits, MAX_INTERACTION_BYTES, MovieId, UserId};
use sha2::{Digest, Sha256};

/// One decoded record of `interactions`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// First 16 bytes of the event id's SHA-256: deduplication needs equality only.
    pub event: u128,
    /// Who.
    pub user: UserId,
    /// Which movie; absent for preferences.
    pub movie: Option<MovieId>,
    /// What.
    pub kind: Kind,
    /// Stars.
    pub rating: Option<f32>,
    /// Event time, ms.
    pub time_ms: i64,
}

/// Bytes of an encoded row.
pub(super) const ROW_BYTES: usize = 8 + 16 + 8 + 1 + 4 + 1 + 4 + 8;

impl Row {
    /// Decodes a record. The event's time is held against the time at which the broker got it, not against the
    /// present: the verdict must not depend on when the snapshot is read.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn decode(record: &RawRecord) -> Result<Self, DecodeError> {
        let bytes = record.value.as_deref().unwrap_or_default();
        if bytes.len() > MAX_INTERACTION_BYTES {
            return Err(DecodeError::TooLarge {
                bytes: bytes.len(),
                limit: MAX_INTERACTION_BYTES,
            });
        }
        let event: Interaction = marquee_schemas::decode(bytes)?;
        if record.timestamp_ms > 0 {
            event.check_time(record.timestamp_ms, Limits::default())?;
        }
        Ok(Self::of(&event, record.partition, record.offset))
    }

    /// The row of a decoded interaction.
    #[must_use]
    pub fn of(event: &Interaction, partition: i32, offset: i64) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(event.event_id.as_bytes())[..16]);
        Self {
            partition,
            offset,
            event: u128::from_le_bytes(id),
            user: event.user_id,
            movie: event.movie_id,
            kind: event.kind,
            rating: event.rating,
            time_ms: event.timestamp,
        }
    }

    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.event.to_le_bytes());
        out.extend_from_slice(&self.user.0.to_le_bytes());
        out.push(u8::from(self.movie.is_some()));
        out.extend_from_slice(&self.movie.map_or(0, |movie| movie.0).to_le_bytes());
        let kind = Kind::ALL
            .iter()
            .position(|&kind| kind == self.kind)
            .unwrap_or_default();
        out.push(kind as u8);
        // Ratings are 0.5 to 5, so NaN is free to mean none.
        out.extend_from_slice(&self.rating.unwrap_or(f32::NAN).to_le_bytes());
        out.extend_from_slice(&self.time_ms.to_le_bytes());
    }

    pub(super) fn read_from(partition: i32, bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let offset = i64::from_le_bytes(take(&mut rest)?);
        let event = u128::from_le_bytes(take(&mut rest)?);
        let user = UserId(u64::from_le_bytes(take(&mut rest)?));
        let [has_movie] = take(&mut rest)?;
        let movie = MovieId(u32::from_le_bytes(take(&mut rest)?));
        let [kind] = take(&mut rest)?;
        let rating = f32::from_le_bytes(take(&mut rest)?);
        let time_ms = i64::from_le_bytes(take(&mut rest)?);
        Some(Self {
            partition,
            offset,
            event,
            user,
            movie: (has_movie == 1).then_some(movie),
            kind: *Kind::ALL.get(usize::from(kind))?,
            rating: (!rating.is_nan()).then_some(rating),
            time_ms,
        })
    }
}

/// The next `N` bytes.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
