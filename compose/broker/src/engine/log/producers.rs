//! Which batches idempotent producers have sent: none is appended twice, none before its predecessor.

use std::collections::{HashMap, VecDeque};

use tansu_sans_io::ErrorCode;

use super::segment::Header;

/// Batches remembered per producer: it never has more on the way at once.
const RECENT: usize = 5;
/// Producers remembered per partition; beyond, the one silent for longest is forgotten, and what it sends next is
/// accepted as it comes.
const KEPT: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Producers(HashMap<i64, Producer>);

#[derive(Debug)]
struct Producer {
    epoch: i16,
    recent: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    first: i32,
    last: i32,
    offset: i64,
}

/// What a batch is to those before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Next,
    /// It was appended before, beginning at `offset`.
    Repeat {
        offset: i64,
    },
}

/// Sequence numbers count records and wrap behind the largest.
fn later(sequence: i32, by: i32) -> i32 {
    match sequence.checked_add(by) {
        Some(sum) => sum,
        None => by - (i32::MAX - sequence) - 1,
    }
}

impl Producers {
    /// Whether the batch may be appended now.
    ///
    /// # Errors
    /// The code the protocol has for it: an older incarnation of the producer, a gap, a repetition from long ago.
    pub(super) fn order(&self, header: &Header) -> Result<Order, ErrorCode> {
        if !header.is_idempotent() {
            return Ok(Order::Next);
        }
        let Some(known) = self.0.get(&header.producer_id) else {
            return Ok(Order::Next);
        };
        if header.producer_epoch < known.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if header.producer_epoch > known.epoch {
            return match header.base_sequence {
                0 => Ok(Order::Next),
                _ => Err(ErrorCode::OutOfOrderSequenceNumber),
            };
        }
        let last = later(header.base_sequence, header.last_offset_delta);
        if let Some(sent) = known
            .recent
            .iter()
            .find(|sent| sent.first == header.base_sequence && sent.last == last)
        {
            return Ok(Order::Repeat { offset: sent.offset });
        }
        let Some(newest) = known.recent.back() else {
            return Ok(Order::Next);
        };
        if header.base_sequence == later(newest.last, 1) {
            Ok(Order::Next)
        } else if header.base_sequence <= newest.last {
            Err(ErrorCode::DuplicateSequenceNumber)
        } else {
            Err(ErrorCode::OutOfOrderSequenceNumber)
        }
    }

    /// A batch of the log.
    pub(super) fn remember(&mut self, header: &Header) {
        if !header.is_idempotent() {
            return;
        }
        if self.0.len() >= KEPT && !self.0.contains_key(&header.producer_id) {
            let silent = self
                .0
                .iter()
                .min_by_key(|(_, producer)| producer.recent.back().map(|sent| sent.offset))
                .map(|(id, _)| *id);
            if let Some(silent) = silent {
                self.0.remove(&silent);
            }
        }
        let producer = self.0.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            recent: VecDeque::with_capacity(RECENT),
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.recent.clear();
        }
        if producer.recent.len() == RECENT {
            producer.recent.pop_front();
        }
        producer.recent.push_back(Sent {
            first: header.base_sequence,
            last: later(header.base_sequence, header.last_offset_delta),
            offset: header.base_offset,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_id: i64, producer_epoch: i16, base_sequence: i32, records: i32) -> Header {
        Header {
            producer_id,
            producer_epoch,
            base_sequence,
            last_offset_delta: records - 1,
            base_offset: 0,
            max_timestamp: 0,
        }
    }

    fn appended(producers: &mut Producers, mut batch: Header, offset: i64) {
        batch.base_offset = offset;
        assert_eq!(producers.order(&batch), Ok(Order::Next));
        producers.remember(&batch);
    }

    #[test]
    fn a_repetition_is_found_and_a_gap_refused() {
        let mut producers = Producers::default();
        for n in 0..7 {
            appended(&mut producers, batch(1, 0, n * 3, 3), i64::from(n) * 3);
        }
        assert_eq!(
            producers.order(&batch(1, 0, 18, 3)),
            Ok(Order::Repeat { offset: 18 })
        );
        assert_eq!(
            producers.order(&batch(1, 0, 6, 3)),
            Ok(Order::Repeat { offset: 6 })
        );
        // Known to have been sent, but no longer where.
        assert_eq!(
            producers.order(&batch(1, 0, 3, 3)),
            Err(ErrorCode::DuplicateSequenceNumber)
        );
        assert_eq!(
            producers.order(&batch(1, 0, 24, 3)),
            Err(ErrorCode::OutOfOrderSequenceNumber)
        );
        assert_eq!(producers.order(&batch(2, 0, 24, 3)), Ok(Order::Next));
    }

    #[test]
    fn a_new_epoch_begins_anew_and_ends_the_old_one() {
        let mut producers = Producers::default();
        appended(&mut producers, batch(1, 4, 0, 2), 0);
        assert_eq!(
            producers.order(&batch(1, 5, 2, 2)),
            Err(ErrorCode::OutOfOrderSequenceNumber)
        );
        appended(&mut producers, batch(1, 5, 0, 2), 2);
        assert_eq!(
            producers.order(&batch(1, 4, 2, 2)),
            Err(ErrorCode::InvalidProducerEpoch)
        );
    }

    #[test]
    fn sequences_wrap_behind_the_largest() {
        let mut producers = Producers::default();
        appended(&mut producers, batch(1, 0, i32::MAX - 1, 4), 0);
        appended(&mut producers, batch(1, 0, 2, 1), 4);
    }

    #[test]
    fn who_was_silent_for_longest_is_forgotten() {
        let mut producers = Producers::default();
        for id in 0..=i64::try_from(KEPT).unwrap() {
            appended(&mut producers, batch(id, 0, 0, 1), id);
        }
        assert_eq!(producers.0.len(), KEPT);
        assert!(!producers.0.contains_key(&0));
    }
}
