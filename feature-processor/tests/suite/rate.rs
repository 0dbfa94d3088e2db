//! How fast decode, fold and commit are. Prints; asserts nothing about time.

use std::collections::BTreeMap;
use std::time::Instant;

use marquee_feature_processor::{Error, NoFaults, Processor, Sink, Store, StoreOptions, judge};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::{Handler, Outgoing, RawRecord};
use marquee_schemas::{Limits, Topic};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::harness::{Log, NOW_MS, catalogue, config, rating};

const EVENTS: u32 = 1_000_000;
const PARTITIONS: u64 = 4;

/// Users and movies as many as in ml-1m; popularity falls off as a power; users come in any order, which is the
/// worst case for batching.
fn log() -> Log {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut log = Log::default();
    for n in 0..EVENTS {
        let user = 1 + rng.next_u64() % 6_040;
        let unit = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let movie = 1 + (3_705.0 * unit.powi(3)) as u32;
        let time = 960_000_000_000 + i64::from(n) * 60_000;
        log.event(
            PARTITIONS,
            &rating(&format!("ml-1m/{user}/{n}"), user, movie, 4.0, time),
        );
    }
    log
}

#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn publish(&mut self, _: &[Outgoing]) -> Result<bool, Error> {
        Ok(true)
    }
}

fn chunks(log: &Log, batch: usize) -> Vec<Vec<RawRecord>> {
    let share = batch / log.0.len();
    let most = log
        .0
        .values()
        .map(|records| records.len().div_ceil(share))
        .max()
        .unwrap();
    (0..most)
        .map(|n| {
            log.0
                .values()
                .flat_map(|records| records.iter().skip(n * share).take(share).cloned())
                .collect()
        })
        .collect()
}

#[test]
#[ignore = "a measurement"]
fn events_per_second() {
    let (log, movies) = (log(), catalogue(3_706));
    for batch in [1_250, 2_500, 5_000, 20_000] {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let shares: BTreeMap<i32, Vec<Vec<RawRecord>>> = log
            .0
            .iter()
            .map(|(&partition, records)| (partition, records.chunks(batch).map(<[_]>::to_vec).collect()))
            .collect();
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for (&partition, batches) in &shares {
                let (folder, movies) = (folder.path(), &movies);
                scope.spawn(move || {
                    let mut store = Store::open(folder, partition, StoreOptions::default()).unwrap();
                    for records in batches {
                        let judged: Vec<_> = records
                            .iter()
                            .cloned()
                            .map(|record| judge(record, NOW_MS, limits))
                            .collect();
                        store.apply(&judged, movies, NOW_MS, &NoFaults).unwrap();
                        store.published(true);
                    }
                });
            }
        });
        let took = begin.elapsed();
        let bytes: u64 = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        println!(
            "decode + fold + commit, {batch} per partition and commit: {:.0} events/s, files {} MiB",
            f64::from(EVENTS) / took.as_secs_f64(),
            bytes >> 20
        );
    }
    for batch in [5_000, 10_000] {
        let folder = tempfile::tempdir().unwrap();
        let batches = chunks(&log, batch);
        let clock = std::sync::Arc::new(ManualClock::at(NOW_MS));
        let mut fold = Processor::new(config(folder.path()), clock, movies.clone(), Nowhere).unwrap();
        fold.assigned(Topic::Interactions, &log.partitions()).unwrap();
        let begin = Instant::now();
        for batch in batches {
            fold.handle(batch).unwrap();
        }
        println!(
            "the same and changelog encoding, {batch} per batch over all partitions: {:.0} events/s",
            f64::from(EVENTS) / begin.elapsed().as_secs_f64()
        );
    }
}
