//! How often each user fell into each bin: the unit of evidence is the user, not the event.

use std::collections::BTreeMap;

use crate::wire::{Reader, Writer};

/// Decides which users a full tally keeps.
const SAMPLE_SALT: u64 = 0x6d61_7271_7565_6531;

/// A bijection that scatters ids (the finaliser of splitmix64): equal hashes are equal users.
pub(crate) fn scatter(id: u64) -> u64 {
    let mut hash = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Counts by user and bin, of at most `capacity` users.
///
/// A full tally keeps the users with the smallest hashes: a uniform sample of users, whole users or none of them, and
/// the same one in whatever order the events come and however tallies are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    capacity: usize,
    bins: usize,
    /// By the user's hash.
    users: BTreeMap<u64, Vec<u32>>,
}

impl Tally {
    /// An empty tally over `bins` bins that keeps at most `capacity` users.
    #[must_use]
    pub fn new(bins: usize, capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            bins,
            users: BTreeMap::new(),
        }
    }

    /// Counts `user` in `bin`; a bin that does not exist is not counted.
    pub fn add(&mut self, user: u64, bin: usize) {
        if bin < self.bins
            && let Some(counts) = self.entry(scatter(user ^ SAMPLE_SALT))
        {
            counts[bin] = counts[bin].saturating_add(1);
        }
    }

    /// Adds everything that `other`, of the same bins, has counted.
    pub fn merge(&mut self, other: &Self) {
        for (&hash, theirs) in &other.users {
            if let Some(ours) = self.entry(hash) {
                for (our, their) in ours.iter_mut().zip(theirs) {
                    *our = our.saturating_add(*their);
                }
            }
        }
    }

    fn entry(&mut self, hash: u64) -> Option<&mut Vec<u32>> {
        if self.users.len() >= self.capacity && !self.users.contains_key(&hash) {
            if self.users.last_key_value().is_some_and(|(&last, _)| hash > last) {
                return None;
            }
            self.users.pop_last();
        }
        let bins = self.bins;
        Some(self.users.entry(hash).or_insert_with(|| vec![0; bins]))
    }

    /// Number of bins.
    #[must_use]
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Number of users kept.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The counts of each user kept, in an order that depends on the users alone.
    pub fn counts(&self) -> impl Iterator<Item = &[u32]> {
        self.users.values().map(Vec::as_slice)
    }

    /// The sum over users, by bin.
    #[must_use]
    pub fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0; self.bins];
        for counts in self.counts() {
            for (total, &count) in totals.iter_mut().zip(counts) {
                *total += u64::from(count);
            }
        }
        totals
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.len(self.capacity);
        writer.len(self.bins);
        writer.len(self.users.len());
        for (&hash, counts) in &self.users {
            writer.i64(hash.cast_signed());
            for &count in counts {
                writer.count(u64::from(count));
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let capacity = usize::try_from(reader.count()?).ok()?;
        let bins = usize::try_from(reader.count()?).ok()?;
        let mut tally = Self::new(bins, capacity);
        for _ in 0..reader.len(bins.checked_add(8)?)? {
            let hash = reader.i64()?.cast_unsigned();
            let counts = (0..bins)
                .map(|_| u32::try_from(reader.count()?).ok())
                .collect::<Option<Vec<u32>>>()?;
            tally.users.insert(hash, counts);
        }
        Some(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_tally_keeps_whole_users_whatever_the_order() {
        let events: Vec<(u64, usize)> = (0..600).map(|n| (n % 30, (n % 7) as usize)).collect();
        let fold = |events: &mut dyn Iterator<Item = &(u64, usize)>| {
            let mut tally = Tally::new(7, 10);
            for &(user, bin) in events {
                tally.add(user, bin);
            }
            tally
        };
        let forward = fold(&mut events.iter());
        assert_eq!(forward.users(), 10);
        assert_eq!(forward.totals().iter().sum::<u64>(), 10 * 20);
        assert_eq!(fold(&mut events.iter().rev()), forward);
        let (head, tail) = events.split_at(217);
        let mut merged = fold(&mut tail.iter());
        merged.merge(&fold(&mut head.iter()));
        assert_eq!(merged, forward);
    }

    #[test]
    fn a_bin_beyond_the_last_is_not_counted() {
        let mut tally = Tally::new(2, 5);
        tally.add(1, 2);
        assert_eq!((tally.users(), tally.totals()), (0, vec![0, 0]));
    }

    #[test]
    fn bytes_read_back_and_truncated_ones_are_refused() {
        let mut tally = Tally::new(3, 50);
        for n in 0..200_u64 {
            tally.add(n * n, (n % 3) as usize);
        }
        let mut writer = Writer::default();
        tally.encode(&mut writer);
        assert_eq!(Tally::decode(&mut Reader::bare(&writer.0)), Some(tally));
        for end in 0..writer.0.len() {
            assert_eq!(Tally::decode(&mut Reader::bare(&writer.0[..end])), None);
        }
    }
}
