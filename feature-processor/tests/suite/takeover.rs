//! A new owner of a partition: from the rows that the old one has copied, and whatever is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use marquee_feature_processor::{Config, Error, MemorySink, Processor, RowSource};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::{Handler, RawRecord, Start};
use marquee_schemas::{Topic, UserId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::disturbance::mixed_log;
use crate::harness::{Log, NOW_MS, TestProcessor, catalogue, compacted, config, rating, undisturbed};

/// What was published to the topic of rows, as a broker would give it back.
#[derive(Debug, Clone, Default)]
struct Rows(Vec<RawRecord>);

impl Rows {
    fn of(sink: &MemorySink) -> Self {
        let mut rows: Vec<RawRecord> = Vec::new();
        for record in sink.records() {
            if record.topic == Topic::FeatureRows {
                rows.push(RawRecord {
                    topic: record.topic,
                    partition: record.partition.unwrap(),
                    offset: rows.len() as i64,
                    timestamp_ms: -1,
                    key: Some(record.key),
                    value: record.value,
                });
            }
        }
        Self(rows)
    }

    /// Without what newer records of the first `share` of all have replaced.
    fn compacted(mut self, share: f64) -> Self {
        let cut = (self.0.len() as f64 * share) as usize;
        let mut newer = BTreeSet::new();
        let mut keep: Vec<bool> = vec![true; self.0.len()];
        for (at, record) in self.0.iter().enumerate().take(cut).rev() {
            keep[at] = newer.insert((record.partition, record.key.clone()));
        }
        let mut keep = keep.into_iter();
        self.0.retain(|_| keep.next().unwrap());
        self
    }
}

impl RowSource for Rows {
    fn last(&mut self, partition: i32) -> Result<Option<RawRecord>, Error> {
        let mut records = self.0.iter().filter(|record| record.partition == partition);
        Ok(records.next_back().cloned())
    }

    fn read(&mut self, partition: i32, each: &mut dyn FnMut(RawRecord)) -> Result<(), Error> {
        let records = self.0.iter().filter(|record| record.partition == partition);
        records.cloned().for_each(each);
        Ok(())
    }
}

const MOVIES: u32 = 40;
const EVERY_MS: i64 = 1_000;

fn copying(folder: &Path) -> Config {
    Config {
        copy_rows_every_ms: EVERY_MS,
        dedupe_window_events: 500,
        observations_per_partition: 1_024,
        ..config(folder)
    }
}

/// A life of one process: it owns everything, begins where its file or the rows say, and folds up to `until` of each
/// partition. The clock makes a copy due after every fourth batch.
fn live(folder: &Path, log: &Log, sink: &MemorySink, rows: Rows, until: f64) -> (TestProcessor, Vec<i64>) {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let mut processor = Processor::new(copying(folder), clock.clone(), catalogue(MOVIES), sink.clone())
        .unwrap()
        .with_rows(Box::new(rows));
    let starts = processor
        .assigned(Topic::Interactions, &log.partitions())
        .unwrap();
    let mut begun = Vec::new();
    for (partition, start) in starts {
        let records = &log.0[&partition];
        let from = match start {
            Start::At(offset) => offset,
            _ => records[0].offset,
        };
        begun.push(from);
        let end = (records.len() as f64 * until) as usize;
        let left = records[..end].iter().filter(|record| record.offset >= from);
        for batch in left.cloned().collect::<Vec<_>>().chunks(97) {
            processor.handle(batch.to_vec()).unwrap();
            clock.advance(EVERY_MS / 4);
            processor.tick().unwrap();
        }
    }
    (processor, begun)
}

fn hashes(processor: &TestProcessor) -> Vec<String> {
    let stores = processor.stores().values();
    stores.map(|store| store.state_hash().unwrap()).collect()
}

struct Peace {
    log: Log,
    hashes: Vec<String>,
    changelog: Compacted,
}

/// The newest value, or tombstone, by partition and key.
type Compacted = BTreeMap<(Option<i32>, Vec<u8>), Option<Vec<u8>>>;

fn newest(sink: &MemorySink, topic: Topic) -> Compacted {
    let records = sink.records().into_iter().filter(|record| record.topic == topic);
    records
        .map(|record| ((record.partition, record.key), record.value))
        .collect()
}

fn peace(seed: u64) -> Peace {
    let log = mixed_log(6_000, seed);
    let folder = tempfile::tempdir().unwrap();
    let sink = MemorySink::default();
    let (processor, _) = live(folder.path(), &log, &sink, Rows::default(), 1.0);
    Peace {
        hashes: hashes(&processor),
        changelog: newest(&sink, Topic::Features),
        log,
    }
}

#[test]
fn copying_rows_changes_neither_state_nor_changelog() {
    let peace = peace(3);
    let folder = tempfile::tempdir().unwrap();
    let mut plain = copying(folder.path());
    plain.copy_rows_every_ms = 0;
    let (processor, outcome) = undisturbed(&plain, &catalogue(MOVIES), &peace.log, 300);
    assert_eq!(hashes(&processor), peace.hashes);
    let changelog: BTreeMap<_, _> = compacted(&outcome.published, Topic::Features)
        .into_iter()
        .map(|(key, value)| (key, Some(value)))
        .collect();
    assert_eq!(changelog, peace.changelog);
}

#[test]
fn a_new_owner_begins_with_the_copy_and_ends_as_the_old_one_would_have() {
    let peace = peace(4);
    for (compaction, cut) in [(0.0, 0.0), (1.0, 0.0), (0.5, 0.02), (0.0, 0.1)] {
        let sink = MemorySink::default();
        let old = tempfile::tempdir().unwrap();
        drop(live(old.path(), &peace.log, &sink, Rows::default(), 0.7));
        let mut rows = Rows::of(&sink).compacted(compaction);
        // The last copy was cut short by the end of its process.
        let left = (rows.0.len() as f64 * (1.0 - cut)) as usize;
        rows.0.truncate(left);

        let new = tempfile::tempdir().unwrap();
        let (processor, begun) = live(new.path(), &peace.log, &sink, rows.clone(), 1.0);
        assert_eq!(hashes(&processor), peace.hashes, "{compaction} {cut}");
        assert_eq!(newest(&sink, Topic::Features), peace.changelog);
        let first = peace.log.0[&0][0].offset;
        if cut == 0.0 {
            assert!(begun.iter().all(|&from| from > first), "restored: {begun:?}");
        }
        drop(processor);

        // The old owner comes back with a file that is older than what the new one has copied.
        let (processor, begun_again) = live(old.path(), &peace.log, &sink, Rows::of(&sink), 1.0);
        assert_eq!(hashes(&processor), peace.hashes);
        assert!(begun_again >= begun, "{begun_again:?}");
    }
}

#[test]
fn a_new_owner_knows_who_was_erased() {
    let mut log = Log::default();
    let mut acts = |user: u64, ids: std::ops::Range<u32>, erased: bool| {
        for id in ids {
            let time = 1_000_000_000_000 + i64::from(id);
            log.event(1, &rating(&format!("{user}/{id}"), user, 1 + id % 40, 4.0, time));
        }
        if erased {
            log.push(0, None);
            let record = log.0.get_mut(&0).and_then(|records| records.last_mut()).unwrap();
            record.key = Some(user.to_string().into_bytes());
        }
    };
    acts(7, 0..300, true);
    acts(8, 0..300, false);
    acts(7, 300..310, false);
    let folder = tempfile::tempdir().unwrap();
    let sink = MemorySink::default();
    let (owner, _) = live(folder.path(), &log, &sink, Rows::default(), 1.0);
    let changelog = newest(&sink, Topic::Features);
    for until in [0.5, 0.7, 1.0] {
        let sink = MemorySink::default();
        let old = tempfile::tempdir().unwrap();
        drop(live(old.path(), &log, &sink, Rows::default(), until));
        let new = tempfile::tempdir().unwrap();
        let rows = Rows::of(&sink).compacted(1.0);
        let (processor, begun) = live(new.path(), &log, &sink, rows, 1.0);
        assert!(begun[0] > log.0[&0][0].offset, "restored: {begun:?}");
        assert_eq!(hashes(&processor), hashes(&owner), "{until}");
        assert_eq!(newest(&sink, Topic::Features), changelog, "{until}");
        let user = processor.stores()[&0].snapshot().unwrap().user(UserId(7));
        assert_eq!(user.unwrap().unwrap().epoch, Some(400));
    }
}

#[test]
fn rows_that_do_not_make_up_the_state_are_not_taken_and_the_log_is_folded_instead() {
    let peace = peace(5);
    let sink = MemorySink::default();
    let old = tempfile::tempdir().unwrap();
    drop(live(old.path(), &peace.log, &sink, Rows::default(), 1.0));
    let whole = Rows::of(&sink).compacted(1.0);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let first = peace.log.0[&0][0].offset;
    for round in 0..12 {
        let mut rows = whole.clone();
        let mark = |record: &RawRecord| record.key.as_deref() == Some(b"mark".as_slice());
        let partition_0 =
            |record: &RawRecord| record.partition == 0 && record.value.is_some() && !mark(record);
        let candidates: Vec<usize> = (0..rows.0.len()).filter(|&at| partition_0(&rows.0[at])).collect();
        let victim = candidates[rng.next_u64() as usize % candidates.len()];
        if round % 2 == 0 {
            rows.0.remove(victim);
        } else {
            // Bytes of another row, as after a process that had been given up for lost.
            let other = candidates[rng.next_u64() as usize % candidates.len()];
            if rows.0[other].value == rows.0[victim].value {
                continue;
            }
            rows.0[victim].value = rows.0[other].value.clone();
        }
        let new = tempfile::tempdir().unwrap();
        let again = MemorySink::default();
        let (processor, begun) = live(new.path(), &peace.log, &again, rows, 1.0);
        let key = String::from_utf8(whole.0[victim].key.clone().unwrap()).unwrap();
        assert_eq!(begun[0], first, "{key}: partition 0 is folded from the log");
        assert!(begun[1] > first, "{key}: partition 1 is restored");
        assert_eq!(hashes(&processor), peace.hashes, "{key}");
    }
}

#[test]
fn a_process_that_was_given_up_for_lost_and_writes_on_harms_nobody() {
    let peace = peace(6);
    let sink = MemorySink::default();
    let (lost, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(live(lost.path(), &peace.log, &sink, Rows::default(), 0.4));
    let rows = Rows::of(&sink);
    drop(live(new.path(), &peace.log, &sink, rows, 0.8));
    // It does not look at the rows, and copies older ones over newer ones.
    drop(live(lost.path(), &peace.log, &sink, Rows::default(), 0.6));
    for compaction in [0.0, 0.6, 1.0] {
        let third = tempfile::tempdir().unwrap();
        let rows = Rows::of(&sink).compacted(compaction);
        let (processor, _) = live(third.path(), &peace.log, &MemorySink::default(), rows, 1.0);
        assert_eq!(hashes(&processor), peace.hashes, "{compaction}");
    }
}
