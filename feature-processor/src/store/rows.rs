//! The rows of the state under names that other processes know, and a checksum over them.

use std::fmt;
use std::str::FromStr;

/// Names a row of any table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RowKey {
    User(u64),
    History(u64, u32),
    Movie(u32),
    Transitions(u32),
    Global,
    Genre(u32),
    Erased(u64),
    EventIds(u64),
    Observations(u64),
    /// Not a row of the file: it says up to which offset the rows before it are complete.
    Mark,
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "u/{user}"),
            Self::History(user, chunk) => write!(f, "h/{user}/{chunk}"),
            Self::Movie(movie) => write!(f, "m/{movie}"),
            Self::Transitions(movie) => write!(f, "t/{movie}"),
            Self::Global => f.write_str("g"),
            Self::Genre(number) => write!(f, "n/{number}"),
            Self::Erased(user) => write!(f, "x/{user}"),
            Self::EventIds(segment) => write!(f, "e/{segment}"),
            Self::Observations(segment) => write!(f, "o/{segment}"),
            Self::Mark => f.write_str("mark"),
        }
    }
}

/// A name that is none of the above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRow;

impl FromStr for RowKey {
    type Err = NoRow;

    fn from_str(text: &str) -> Result<Self, NoRow> {
        fn number<T: FromStr>(part: Option<&str>) -> Result<T, NoRow> {
            part.and_then(|part| part.parse().ok()).ok_or(NoRow)
        }
        let mut parts = text.split('/');
        let key = match parts.next() {
            Some("u") => Self::User(number(parts.next())?),
            Some("h") => Self::History(number(parts.next())?, number(parts.next())?),
            Some("m") => Self::Movie(number(parts.next())?),
            Some("t") => Self::Transitions(number(parts.next())?),
            Some("g") => Self::Global,
            Some("n") => Self::Genre(number(parts.next())?),
            Some("x") => Self::Erased(number(parts.next())?),
            Some("e") => Self::EventIds(number(parts.next())?),
            Some("o") => Self::Observations(number(parts.next())?),
            Some("mark") => Self::Mark,
            _ => return Err(NoRow),
        };
        if parts.next().is_some() {
            Err(NoRow)
        } else {
            Ok(key)
        }
    }
}

impl RowKey {
    /// Where a row's bytes belong in the checksum.
    fn seed(self) -> u64 {
        let (table, key) = match self {
            Self::User(user) => (1, user),
            Self::History(user, chunk) => (2, user ^ u64::from(chunk).rotate_left(40)),
            Self::Movie(movie) => (3, movie.into()),
            Self::Transitions(movie) => (4, movie.into()),
            Self::Global => (5, 0),
            Self::Genre(number) => (6, number.into()),
            Self::EventIds(segment) => (7, segment),
            Self::Observations(segment) => (8, segment),
            Self::Mark => (9, 0),
            Self::Erased(user) => (10, user),
        };
        mix(mix(table, key), !key)
    }

    /// A 64-bit hash of the row: against accidents, not against malice.
    fn hash(self, bytes: &[u8]) -> u64 {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let hash = words
            .iter()
            .fold(self.seed(), |hash, word| mix(hash, u64::from_le_bytes(*word)));
        mix(mix(hash, u64::from_le_bytes(last)), bytes.len() as u64)
    }
}

fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Number and checksum of the rows that are not segments. A sum of hashes, so that it follows each change without
/// reading the other rows, and does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rows {
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl Rows {
    pub(crate) fn add(&mut self, key: RowKey, bytes: &[u8]) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(key.hash(bytes));
    }

    pub(crate) fn remove(&mut self, key: RowKey, bytes: &[u8]) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(key.hash(bytes));
    }

    pub(crate) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (count, sum) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            count: u64::from_le_bytes(*count),
            sum: u64::from_le_bytes(sum.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_anything_else_is_refused() {
        for key in [
            RowKey::User(u64::MAX),
            RowKey::History(7, 3),
            RowKey::Movie(9),
            RowKey::Transitions(9),
            RowKey::Global,
            RowKey::Genre(1),
            RowKey::Erased(7),
            RowKey::EventIds(5),
            RowKey::Observations(5),
            RowKey::Mark,
        ] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for bad in ["", "u", "u/x", "h/1", "h/1/2/3", "g/1", "q/1", "mark/2"] {
            assert_eq!(bad.parse::<RowKey>(), Err(NoRow), "{bad}");
        }
    }

    #[test]
    fn the_checksum_follows_changes_in_any_order_and_tells_tables_keys_and_lengths_apart() {
        let rows = |all: &[(RowKey, &[u8])]| {
            let mut rows = Rows::default();
            all.iter().for_each(|(key, bytes)| rows.add(*key, bytes));
            rows
        };
        let one: (RowKey, &[u8]) = (RowKey::User(1), b"abcdefghij");
        let two: (RowKey, &[u8]) = (RowKey::Movie(1), b"x");
        let both = rows(&[one, two]);
        assert_eq!(rows(&[two, one]), both);
        assert_eq!(Rows::decode(&both.encode()), Some(both));
        let mut less = both;
        less.remove(two.0, two.1);
        assert_eq!(less, rows(&[one]));
        for other in [
            (RowKey::User(2), one.1),
            (RowKey::History(1, 0), one.1),
            (RowKey::Transitions(1), one.1),
            (RowKey::User(1), b"abcdefghik"),
            (RowKey::User(1), b"abcdefghij\0"),
        ] {
            assert_ne!(rows(&[other, two]).sum, both.sum, "{other:?}");
        }
    }
}
