//! A user's history in chunks, as stored bytes.
//!
//! A chunk is a version byte, the user's feature version after its newest entry (`u64`), and 17 bytes per entry:
//! movie (`u32`), kind with bit 7 set where stars follow, stars (`f32`), event time (`i64`). Fixed width, so that one
//! more entry is appended without reading the others.

use marquee_schemas::{
    HISTORY_CHUNK_LEN, HistoryChunk, HistoryEntry, Interaction, MovieId, SchemaVersion, UserId,
};

use crate::wire::{Reader, corrupt, kind_code, kind_of};

const VERSION: u8 = 1;
const HEADER: usize = 1 + 8;
const RATED: u8 = 0x80;

/// The bytes of one chunk, open for one more entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChunkBytes(Vec<u8>);

impl ChunkBytes {
    /// A chunk without entries.
    pub(super) fn empty() -> Self {
        let mut bytes = vec![VERSION];
        bytes.resize(HEADER, 0);
        Self(bytes)
    }

    /// A stored chunk.
    pub(super) fn stored(bytes: &[u8]) -> Result<Self, redb::Error> {
        match bytes.first() {
            Some(&VERSION) if bytes.len() >= HEADER => Ok(Self(bytes.to_vec())),
            _ => Err(corrupt("history chunk")),
        }
    }

    /// Appends an event about `movie`, which makes `seq` the user's feature version.
    pub(super) fn push(&mut self, event: &Interaction, movie: MovieId, seq: u64) {
        self.0[1..HEADER].copy_from_slice(&seq.to_le_bytes());
        self.0.extend_from_slice(&movie.0.to_le_bytes());
        let rated = if event.rating.is_some() { RATED } else { 0 };
        self.0.push(kind_code(event.kind) | rated);
        self.0
            .extend_from_slice(&event.rating.unwrap_or(0.0).to_le_bytes());
        self.0.extend_from_slice(&event.timestamp.to_le_bytes());
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Which chunk the entry with this number lies in.
pub(super) fn chunk_of(entry: u64) -> u32 {
    u32::try_from(entry / HISTORY_CHUNK_LEN).unwrap_or(u32::MAX)
}

/// Reads a stored chunk, which does not say to which epoch it belongs.
pub(super) fn decode(user_id: UserId, chunk: u32, bytes: &[u8]) -> Result<HistoryChunk, redb::Error> {
    read(user_id, chunk, bytes).ok_or_else(|| corrupt("history chunk"))
}

fn read(user_id: UserId, chunk: u32, bytes: &[u8]) -> Option<HistoryChunk> {
    let (version, mut reader) = Reader::new(bytes)?;
    if version != VERSION {
        return None;
    }
    let seq = reader.i64()?.cast_unsigned();
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let movie_id = MovieId(reader.u32()?);
        let code = reader.u8()?;
        let stars = reader.f32()?;
        entries.push(HistoryEntry {
            movie_id,
            kind: kind_of(code & !RATED)?,
            rating: (code & RATED != 0).then_some(stars),
            timestamp: reader.i64()?,
        });
    }
    Some(HistoryChunk {
        schema_version: SchemaVersion,
        user_id,
        chunk,
        seq,
        entries,
        epoch: None,
    })
}

#[cfg(test)]
mod tests {
    use marquee_schemas::Kind;

    use super::*;

    #[test]
    fn entries_read_back_in_the_order_they_were_appended() {
        let mut event = Interaction {
            schema_version: SchemaVersion,
            event_id: "e".into(),
            user_id: UserId(1),
            movie_id: Some(MovieId(1)),
            kind: Kind::Rating,
            rating: Some(3.5),
            genres: vec![],
            timestamp: 99,
            session_id: None,
            request_id: None,
            source: None,
        };
        let mut chunk = ChunkBytes::empty();
        chunk.push(&event, MovieId(1), 5);
        event.kind = Kind::View;
        event.rating = None;
        event.timestamp = 7;
        chunk.push(&event, MovieId(2), 9);
        let mut chunk = ChunkBytes::stored(chunk.as_bytes()).unwrap();
        chunk.push(&event, MovieId(3), 10);
        let read = decode(UserId(1), 4, chunk.as_bytes()).unwrap();
        assert_eq!((read.seq, read.chunk), (10, 4));
        let seen: Vec<_> = read
            .entries
            .iter()
            .map(|entry| (entry.movie_id.0, entry.kind, entry.rating, entry.timestamp))
            .collect();
        assert_eq!(
            seen,
            [
                (1, Kind::Rating, Some(3.5), 99),
                (2, Kind::View, None, 7),
                (3, Kind::View, None, 7)
            ]
        );
        assert!(decode(UserId(1), 4, &chunk.as_bytes()[..20]).is_err());
        assert!(ChunkBytes::stored(b"\x07").is_err());
    }
}
