//! Request and event ids: UUIDv7, ordered by time, from an injected clock and a seeded generator.

use std::sync::Mutex;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use uuid::{Builder, Uuid};

/// Makes UUIDv7 ids (RFC 9562, section 5.7). Two sources with the same seed and clock make the same ids, so a
/// process seeds it with something that differs between processes.
#[derive(Debug)]
pub struct IdSource(Mutex<ChaCha12Rng>);

impl IdSource {
    /// A source whose random part follows from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(ChaCha12Rng::seed_from_u64(seed)))
    }

    /// The next id at `now_ms`.
    pub fn next(&self, now_ms: i64) -> Uuid {
        let mut random = [0_u8; 10];
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .fill_bytes(&mut random);
        Builder::from_unix_timestamp_millis(u64::try_from(now_ms).unwrap_or(0), &random).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_sort_by_time() {
        let source = IdSource::seeded(1);
        let (first, second) = (source.next(1_000), source.next(1_001));
        assert_eq!(first.get_version_num(), 7);
        assert!(first < second);
    }
}
