//! The bytes of the state files: little-endian fixed-width numbers, LEB128 for counts, length-prefixed lists.

use marquee_schemas::Kind;

/// Bytes that are not what was written.
pub(crate) fn corrupt(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("unreadable {what}"))
}

/// Appends values.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn count(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    pub(crate) fn len(&mut self, value: usize) {
        self.count(value as u64);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.len(value.len());
        self.0.extend_from_slice(value);
    }
}

/// Reads values back in the order they were written. Every read says `None` when the bytes end early.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads a part that has no version byte of its own.
    #[cfg(test)]
    pub(crate) fn bare(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Splits off the version byte.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<(u8, Self)> {
        let (&version, rest) = bytes.split_first()?;
        Some((version, Self(rest)))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn count(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A length of items that take at least `item_bytes` each: one that the bytes left cannot hold is refused before
    /// anything is allocated for it.
    pub(crate) fn len(&mut self, item_bytes: usize) -> Option<usize> {
        let len = usize::try_from(self.count()?).ok()?;
        (len.checked_mul(item_bytes)? <= self.0.len()).then_some(len)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.len(1)?;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    /// Everything has been read.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The stored number of a kind; never reused, never reordered.
pub(crate) fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Impression => 0,
        Kind::View => 1,
        Kind::Click => 2,
        Kind::Like => 3,
        Kind::Dislike => 4,
        Kind::Rating => 5,
        Kind::WatchlistAdd => 6,
        Kind::WatchlistRemove => 7,
        Kind::Preference => 8,
    }
}

/// The kind of a stored number.
pub(crate) fn kind_of(code: u8) -> Option<Kind> {
    Kind::ALL.into_iter().find(|&kind| kind_code(kind) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_numbers() {
        let codes: Vec<u8> = Kind::ALL.into_iter().map(kind_code).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(
            Kind::ALL
                .into_iter()
                .all(|kind| kind_of(kind_code(kind)) == Some(kind))
        );
        assert_eq!(kind_of(9), None);
    }

    proptest::proptest! {
        #[test]
        fn values_come_back_as_they_were_written(a: u64, b: i64, c: f64, d: Vec<u8>) {
            let mut writer = Writer::new(1);
            writer.count(a);
            writer.i64(b);
            writer.f64(c);
            writer.bytes(&d);
            let (version, mut reader) = Reader::new(&writer.0).unwrap();
            proptest::prop_assert_eq!(version, 1);
            proptest::prop_assert_eq!(reader.count(), Some(a));
            proptest::prop_assert_eq!(reader.i64(), Some(b));
            proptest::prop_assert_eq!(reader.f64().map(f64::to_bits), Some(c.to_bits()));
            proptest::prop_assert_eq!(reader.bytes(), Some(d.as_slice()));
            proptest::prop_assert!(reader.end().is_some());
        }

        #[test]
        fn arbitrary_bytes_are_read_without_panic(bytes: Vec<u8>) {
            if let Some((_, mut reader)) = Reader::new(&bytes) {
                while reader.count().is_some() {}
                drop((reader.bytes(), reader.u32(), reader.f32(), reader.string()));
            }
        }
    }
}
