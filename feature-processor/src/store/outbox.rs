//! What a committed batch still has to tell the world.
//!
//! A row names the changelog keys that the batch touched, not their values: the changelog is compacted, so what goes
//! out is the value that the store holds when it is sent, and a key touched a hundred times goes out once. Dead
//! letters are stored as the bytes they will have, time stamp included, so that a repetition is the same record.

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{FeatureKey, MovieId, Topic, UserId};

use crate::wire::{Reader, Writer, corrupt};

const VERSION: u8 = 2;

/// One row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Row {
    /// Changelog keys touched.
    pub(super) keys: Vec<FeatureKey>,
    /// Movies whose transitions were touched; they are not in the changelog, but among the rows for the next owner.
    pub(super) transitions: Vec<MovieId>,
    /// Dead letters: key and value.
    pub(super) letters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.len(self.keys.len());
        for key in &self.keys {
            match *key {
                FeatureKey::User(user) => {
                    writer.u8(b'u');
                    writer.count(user.0);
                }
                FeatureKey::History(user, chunk) => {
                    writer.u8(b'h');
                    writer.count(user.0);
                    writer.count(u64::from(chunk));
                }
                FeatureKey::Movie(movie) => {
                    writer.u8(b'm');
                    writer.count(u64::from(movie.0));
                }
            }
        }
        writer.len(self.letters.len());
        for (key, value) in &self.letters {
            writer.bytes(key);
            writer.bytes(value);
        }
        writer.len(self.transitions.len());
        for movie in &self.transitions {
            writer.count(u64::from(movie.0));
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, redb::Error> {
        match Reader::new(bytes) {
            // Version 1 had no transitions.
            Some((version @ 1..=VERSION, mut reader)) => Self::read(&mut reader, version > 1),
            _ => None,
        }
        .ok_or_else(|| corrupt("outbox row"))
    }

    fn read(reader: &mut Reader<'_>, since_v2: bool) -> Option<Self> {
        let small = |value: u64| u32::try_from(value).ok();
        let mut row = Self::default();
        for _ in 0..reader.len(2)? {
            row.keys.push(match reader.u8()? {
                b'u' => FeatureKey::User(UserId(reader.count()?)),
                b'h' => FeatureKey::History(UserId(reader.count()?), small(reader.count()?)?),
                b'm' => FeatureKey::Movie(MovieId(small(reader.count()?)?)),
                _ => return None,
            });
        }
        for _ in 0..reader.len(2)? {
            row.letters
                .push((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()));
        }
        if since_v2 {
            for _ in 0..reader.len(1)? {
                row.transitions.push(MovieId(small(reader.count()?)?));
            }
        }
        reader.end()?;
        Some(row)
    }
}

/// A dead letter as it is sent.
pub(super) fn letter(key: Vec<u8>, value: Vec<u8>) -> Outgoing {
    Outgoing {
        topic: Topic::DeadLetters,
        partition: None,
        key,
        value: Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_damaged_ones_are_refused() {
        let row = Row {
            keys: vec![
                FeatureKey::User(UserId(7)),
                FeatureKey::History(UserId(7), 3),
                FeatureKey::Movie(MovieId(u32::MAX)),
            ],
            transitions: vec![MovieId(5)],
            letters: vec![(b"k".to_vec(), vec![0; 300])],
        };
        let bytes = row.encode();
        assert_eq!(Row::decode(&bytes).unwrap(), row);
        for end in 0..bytes.len() {
            assert!(Row::decode(&bytes[..end]).is_err());
        }
        let old = [&[1], &bytes[1..bytes.len() - 2]].concat();
        let without = Row {
            transitions: vec![],
            ..row
        };
        assert_eq!(Row::decode(&old).unwrap(), without);
    }
}
