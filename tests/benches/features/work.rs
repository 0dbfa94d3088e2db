//! The processor's own work, without a broker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use marquee_feature_processor::{
    Config, Error, MemoryCatalogue, NoFaults, Processor, Sink, Store, StoreOptions, judge,
};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::{Handler, Outgoing, RawRecord};
use marquee_schemas::{Limits, Topic};
use serde_json::{Value, json};

use crate::stream::{Log, PARTITIONS, Stream, USERS, catalogue};
use crate::{Outcome, files_mib, number, peak_rss_mib, worker};

/// After everything simulated, ms.
const NOW_MS: i64 = 4_000_000_000_000;

/// Records per batch over all partitions, and how many batches at most, so that the small ones end in time.
const BATCHES: [(u64, u64); 5] = [
    (1_000, 300),
    (5_000, 400),
    (10_000, 400),
    (20_000, 400),
    (50_000, 400),
];

/// Mean events of a session.
const SESSION: &str = "30";

pub(crate) fn batch_sizes(events: u64, figures: &mut BTreeMap<String, Value>) -> Outcome<()> {
    println!("decode + fold + commit      batch     events   events/s   ms/commit  peak MiB  file MiB");
    let row = |name: &str, batch: u64, result: &Value| -> Outcome<()> {
        println!(
            "{name:<24} {batch:>8} {:>10} {:>10.0} {:>11.1} {:>9.0} {:>9.0}",
            number(result, "events")?,
            number(result, "events_per_second")?,
            number(result, "batch_ms")?,
            number(result, "peak_rss_mib")?,
            number(result, "files_mib")?,
        );
        Ok(())
    };
    let usual = Config::default().max_batch_records as u64;
    for (batch, most) in BATCHES {
        let events = events.min(batch * most);
        let sizes = [events.to_string(), USERS.to_string(), batch.to_string()];
        let run =
            |mode: &str, session: &str| worker(&["work", mode, session, &sizes[0], &sizes[1], &sizes[2]]);
        let result = run("stores", SESSION)?;
        row("in sessions", batch, &result)?;
        let name = format!("work_batch_{batch}");
        figures.insert(
            format!("{name}_events_per_second"),
            result["events_per_second"].clone(),
        );
        figures.insert(format!("{name}_batch_ms"), result["batch_ms"].clone());
        if batch != usual {
            continue;
        }
        figures.insert("work_peak_rss_mib".into(), result["peak_rss_mib"].clone());
        figures.insert("work_files_mib".into(), result["files_mib"].clone());
        let shuffled = run("stores", "1")?;
        row("no sessions", batch, &shuffled)?;
        figures.insert(
            format!("{name}_no_sessions_events_per_second"),
            shuffled["events_per_second"].clone(),
        );
        let whole = run("processor", SESSION)?;
        row("whole processor", batch, &whole)?;
        figures.insert(
            format!("{name}_whole_processor_events_per_second"),
            whole["events_per_second"].clone(),
        );
        figures.insert(
            "whole_processor_peak_rss_mib".into(),
            whole["peak_rss_mib"].clone(),
        );
    }
    Ok(())
}

pub(crate) fn growth(figures: &mut BTreeMap<String, Value>) -> Outcome<()> {
    println!("growth         users   events/s    seconds  peak MiB  file MiB");
    let batch = Config::default().max_batch_records.to_string();
    for (name, events) in [("100k", 100_000_u64), ("1m", 1_000_000), ("10m", 10_000_000)] {
        let users = (USERS * events / 2_000_000).max(100);
        let sizes = [events.to_string(), users.to_string()];
        let result = worker(&["work", "stores", SESSION, &sizes[0], &sizes[1], &batch])?;
        println!(
            "{name:<10} {users:>9} {:>10.0} {:>10.2} {:>9.0} {:>9.0}",
            number(&result, "events_per_second")?,
            number(&result, "seconds")?,
            number(&result, "peak_rss_mib")?,
            number(&result, "files_mib")?,
        );
        for figure in ["events_per_second", "seconds", "peak_rss_mib", "files_mib"] {
            figures.insert(format!("growth_{name}_{figure}"), result[figure].clone());
        }
    }
    Ok(())
}

/// `stores` or `processor`, events per session, events, users, records per batch.
pub(crate) fn run(words: &[&str]) -> Outcome<Value> {
    let &[mode, session, events, users, batch] = words else {
        return Err(format!("{words:?} is no work").into());
    };
    let (events, users, batch): (u64, u64, usize) = (events.parse()?, users.parse()?, batch.parse()?);
    let mut log = Log::new(Stream::new(users, session.parse()?));
    let folder = tempfile::tempdir()?;
    let mut handler = Worker::open(mode, folder.path())?;
    let (mut took, mut batches, mut left) = (Duration::ZERO, 0_u32, events);
    while left > 0 {
        let count = left.min(batch as u64);
        let records = log.batch(count as usize);
        left -= count;
        batches += 1;
        let begun = Instant::now();
        handler.fold(records)?;
        took += begun.elapsed();
    }
    let seconds = took.as_secs_f64();
    handler.check(events)?;
    Ok(json!({
        "events": events,
        "events_per_second": events as f64 / seconds,
        "seconds": seconds,
        "batch_ms": seconds * 1e3 / f64::from(batches),
        "peak_rss_mib": peak_rss_mib()?,
        "files_mib": files_mib(folder.path())?,
    }))
}

#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn publish(&mut self, _: &[Outgoing]) -> Result<bool, Error> {
        Ok(true)
    }
}

enum Worker {
    /// Decode, fold and commit, nothing else.
    Stores(BTreeMap<i32, Store>, MemoryCatalogue),
    /// Everything but sending.
    Processor(Box<Processor<MemoryCatalogue, Nowhere>>),
}

impl Worker {
    fn open(mode: &str, folder: &Path) -> Outcome<Self> {
        let partitions: Vec<i32> = (0..PARTITIONS as i32).collect();
        match mode {
            "stores" => {
                let mut stores = BTreeMap::new();
                for partition in partitions {
                    let store = Store::open(folder, partition, StoreOptions::default())?;
                    stores.insert(partition, store);
                }
                Ok(Self::Stores(stores, catalogue()))
            }
            "processor" => {
                let config = Config {
                    state_dir: folder.to_owned(),
                    copy_rows_every_ms: 0,
                    ..Config::default()
                };
                let clock = Arc::new(ManualClock::at(NOW_MS));
                let mut processor = Processor::new(config, clock, catalogue(), Nowhere)?;
                processor.assigned(Topic::Interactions, &partitions)?;
                Ok(Self::Processor(Box::new(processor)))
            }
            other => Err(format!("no mode {other}").into()),
        }
    }

    fn fold(&mut self, mut batch: BTreeMap<i32, Vec<RawRecord>>) -> Outcome<()> {
        match self {
            Self::Stores(stores, movies) => {
                let movies = &*movies;
                std::thread::scope(|scope| {
                    let threads: Vec<_> = stores
                        .iter_mut()
                        .filter_map(|(partition, store)| Some((store, batch.remove(partition)?)))
                        .map(|(store, records)| scope.spawn(move || fold(store, records, movies)))
                        .collect();
                    threads
                        .into_iter()
                        .try_for_each(|thread| thread.join().expect("a fold that does not panic"))
                })?;
            }
            Self::Processor(processor) => {
                processor.handle(batch.into_values().flatten().collect())?;
                processor.tick()?;
            }
        }
        Ok(())
    }

    /// Nothing was lost or refused.
    fn check(&self, events: u64) -> Outcome<()> {
        let stores = match self {
            Self::Stores(stores, _) => stores,
            Self::Processor(processor) => processor.stores(),
        };
        let applied: u64 = stores.values().map(|store| store.counters().applied).sum();
        if applied == events {
            Ok(())
        } else {
            Err(format!("{applied} of {events} events were applied").into())
        }
    }
}

fn fold(store: &mut Store, records: Vec<RawRecord>, movies: &MemoryCatalogue) -> Result<(), Error> {
    let judged: Vec<_> = records
        .into_iter()
        .map(|record| judge(record, NOW_MS, Limits::default()))
        .collect();
    store.apply(&judged, movies, NOW_MS, &NoFaults)?;
    store.published(true);
    Ok(())
}
