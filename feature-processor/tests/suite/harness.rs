//! A log in memory, and processors that live and die over it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use marquee_feature_processor::triggers::{SignalReader, signals};
use marquee_feature_processor::{
    Config, CrashPoint, Error, Faults, MemoryCatalogue, MemorySink, NoFaults, Processor, TriggerConfig,
};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::{Handler, Outgoing, RawRecord, Start};
use marquee_schemas::{
    Interaction, Kind, ModelEvent, ModelEventKind, ModelVersion, MovieId, SchemaVersion, Topic, UserId,
    encode,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The clock of every test, ms: after everything in the data sets.
pub(crate) const NOW_MS: i64 = 2_000_000_000_000;

/// A view of movie 1 by user 1; tests change what they are about.
pub(crate) fn view(event_id: &str, user: u64, movie: u32, timestamp: i64) -> Interaction {
    Interaction {
        schema_version: SchemaVersion,
        event_id: event_id.into(),
        user_id: UserId(user),
        movie_id: Some(MovieId(movie)),
        kind: Kind::View,
        rating: None,
        genres: vec![],
        timestamp,
        session_id: None,
        request_id: None,
        source: None,
    }
}

pub(crate) fn rating(event_id: &str, user: u64, movie: u32, stars: f32, timestamp: i64) -> Interaction {
    Interaction {
        kind: Kind::Rating,
        rating: Some(stars),
        ..view(event_id, user, movie, timestamp)
    }
}

/// Movies 1 to `n` with two or three genres each.
pub(crate) fn catalogue(n: u32) -> MemoryCatalogue {
    let mut movies = MemoryCatalogue::default();
    for movie in 1..=n {
        let genres: BTreeSet<String> = [movie % 18, movie % 5, movie % 7]
            .iter()
            .map(|genre| format!("genre {genre}"))
            .collect();
        movies.insert(MovieId(movie), &genres.into_iter().collect::<Vec<_>>());
    }
    movies
}

/// Partitions and their records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(pub(crate) BTreeMap<i32, Vec<RawRecord>>);

impl Log {
    pub(crate) fn push(&mut self, partition: i32, value: Option<Vec<u8>>) {
        let records = self.0.entry(partition).or_default();
        // No log begins at zero for ever.
        let offset = records.last().map_or(100, RawRecord::next_offset);
        records.push(RawRecord {
            topic: Topic::Interactions,
            partition,
            offset,
            timestamp_ms: -1,
            key: Some(b"key".to_vec()),
            value,
        });
    }

    pub(crate) fn event(&mut self, partitions: u64, event: &Interaction) {
        let partition = i32::try_from(event.user_id.0 % partitions).unwrap();
        self.push(partition, Some(encode(event)));
    }

    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.0.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn at(&self, partition: i32, start: Start) -> usize {
        match start {
            Start::At(offset) => usize::try_from(offset - self.0[&partition][0].offset).unwrap(),
            Start::Earliest => 0,
            Start::Latest => unreachable!("the processor never skips"),
        }
    }
}

pub(crate) fn config(folder: &Path) -> Config {
    Config {
        state_dir: folder.to_owned(),
        dedupe_window_events: 1 << 20,
        cache_bytes_per_partition: 16 << 20,
        movie_features_every_ms: 0,
        copy_rows_every_ms: 0,
        triggers: TriggerConfig {
            bootstrap_min_interactions: 200,
            bootstrap_min_users: 10,
            volume_interactions: 1_000,
            ..TriggerConfig::default()
        },
        ..Config::default()
    }
}

pub(crate) type TestProcessor = Processor<MemoryCatalogue, MemorySink>;

pub(crate) fn processor(config: &Config, movies: &MemoryCatalogue, sink: &MemorySink) -> TestProcessor {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    Processor::new(config.clone(), clock, movies.clone(), sink.clone()).unwrap()
}

/// Ends every training as soon as it is asked for, without a new champion.
#[derive(Debug)]
struct Trainer {
    sink: MemorySink,
    reader: SignalReader,
    looked_at: usize,
    told: Vec<Vec<u8>>,
}

impl Trainer {
    /// A processor that hears of this trainer.
    fn with(processor: TestProcessor, sink: &MemorySink) -> (Self, TestProcessor) {
        let (reader, heard) = signals(processor.signal_positions());
        let trainer = Self {
            sink: sink.clone(),
            reader,
            looked_at: 0,
            told: Vec::new(),
        };
        (trainer, processor.with_signals(heard))
    }

    /// Tells of every request made so far; what the processor has heard before, it passes over.
    fn answer(&mut self) {
        let mut told = Vec::new();
        for record in self.sink.since(self.looked_at) {
            self.looked_at += 1;
            let request = record.key;
            if record.topic != Topic::RetrainEvents || self.told.contains(&request) {
                continue;
            }
            let number = self.told.len();
            self.told.push(request.clone());
            let event = ModelEvent {
                schema_version: SchemaVersion,
                event_id: format!("rejected/{number}"),
                version: ModelVersion::from_ordinal(1 + number as u64),
                kind: ModelEventKind::Rejected,
                reason: "no better".into(),
                bundle_uri: None,
                bundle_sha256: None,
                offsets: vec![],
                numbers: BTreeMap::new(),
                retrain_event_id: Some(String::from_utf8(request).unwrap()),
                joined_retrain_event_ids: vec![],
                previous: None,
                checks: vec![],
                command_id: None,
                at_ms: NOW_MS,
            };
            told.push(RawRecord {
                topic: Topic::ModelEvents,
                partition: 0,
                offset: i64::try_from(number).unwrap(),
                timestamp_ms: -1,
                key: None,
                value: Some(encode(&event)),
            });
        }
        // In one batch: the channel holds few of them, and nobody takes them before the processor looks.
        self.reader.handle(told).unwrap();
    }
}

/// What is left after a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) hashes: BTreeMap<i32, String>,
    pub(crate) published: Vec<Outgoing>,
}

pub(crate) fn outcome(processor: &TestProcessor, sink: &MemorySink) -> Outcome {
    Outcome {
        hashes: processor
            .stores()
            .iter()
            .map(|(&partition, store)| {
                assert!(store.counters().reconcile(), "{:?}", store.counters());
                (partition, store.state_hash().unwrap())
            })
            .collect(),
        published: sink.records(),
    }
}

/// Folds the log in batches of `batch`, in peace. The processor is given back open.
pub(crate) fn undisturbed(
    config: &Config,
    movies: &MemoryCatalogue,
    log: &Log,
    batch: usize,
) -> (TestProcessor, Outcome) {
    let sink = MemorySink::default();
    let (mut trainer, mut processor) = Trainer::with(processor(config, movies, &sink), &sink);
    processor
        .assigned(Topic::Interactions, &log.partitions())
        .unwrap();
    let mut left: BTreeMap<i32, &[RawRecord]> = log
        .0
        .iter()
        .map(|(&partition, records)| (partition, records.as_slice()))
        .collect();
    while left.values().any(|records| !records.is_empty()) {
        let share = batch.div_ceil(left.len());
        let mut together = Vec::new();
        for records in left.values_mut() {
            let (now, later) = records.split_at(share.min(records.len()));
            together.extend_from_slice(now);
            *records = later;
        }
        processor.handle(together).unwrap();
        trainer.answer();
        processor.tick().unwrap();
    }
    let outcome = outcome(&processor, &sink);
    (processor, outcome)
}

/// Crashes at the n-th crash point passed.
#[derive(Debug)]
struct Countdown(AtomicI64);

impl Faults for Countdown {
    fn crash(&self, _: CrashPoint) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) == 0
    }
}

fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound as u64).unwrap()
}

/// Folds the log while everything goes wrong that may: crashes at any crash point, batches of any size and mixture,
/// redelivery from an older offset, partitions taken away and given back. Returns the number of crashes, too.
pub(crate) fn disturbed(
    config: &Config,
    movies: &MemoryCatalogue,
    log: &Log,
    max_batch: usize,
    crash_every: usize,
    seed: u64,
) -> (TestProcessor, Outcome, u32) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sink = MemorySink::default();
    let config = &Config {
        // The clock stands still: movies' records go out with the first batch of each life, or with every batch.
        movie_features_every_ms: [0, 60_000][below(&mut rng, 2)],
        ..config.clone()
    };
    let mut crashes = 0;
    loop {
        let countdown = i64::try_from(below(&mut rng, crash_every)).unwrap();
        let faults: Arc<dyn Faults> = Arc::new(Countdown(AtomicI64::new(countdown)));
        let processor = processor(config, movies, &sink).with_faults(faults);
        let (mut trainer, mut processor) = Trainer::with(processor, &sink);
        trainer.answer();
        match live(&mut processor, &mut trainer, log, max_batch, &mut rng) {
            Ok(()) => break,
            Err(Error::Injected(_)) => crashes += 1,
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    let processor = processor(config, movies, &sink).with_faults(Arc::new(NoFaults));
    let (mut trainer, mut processor) = Trainer::with(processor, &sink);
    trainer.answer();
    processor
        .assigned(Topic::Interactions, &log.partitions())
        .unwrap();
    processor.tick().unwrap();
    trainer.answer();
    processor.tick().unwrap();
    let outcome = outcome(&processor, &sink);
    (processor, outcome, crashes)
}

fn live(
    processor: &mut TestProcessor,
    trainer: &mut Trainer,
    log: &Log,
    max_batch: usize,
    rng: &mut ChaCha8Rng,
) -> Result<(), Error> {
    let mut positions: BTreeMap<i32, usize> = processor
        .assigned(Topic::Interactions, &log.partitions())?
        .into_iter()
        .map(|(partition, start)| (partition, log.at(partition, start)))
        .collect();
    if below(rng, 4) > 0 {
        processor.tick()?;
    }
    while positions
        .iter()
        .any(|(partition, &at)| at < log.0[partition].len())
    {
        if below(rng, 20) == 0 {
            let partition = log.partitions()[below(rng, positions.len())];
            processor.revoked(Topic::Interactions, &[partition]);
            if below(rng, 2) == 0 {
                // Records read before the partition was taken away.
                processor.handle(log.0[&partition][..1].to_vec())?;
            }
            let start = processor.assigned(Topic::Interactions, &[partition])?[&partition];
            positions.insert(partition, log.at(partition, start));
        }
        let mut batch = Vec::new();
        for (&partition, at) in &mut positions {
            let records = &log.0[&partition];
            if below(rng, 3) == 0 {
                continue;
            }
            let from = if below(rng, 10) == 0 {
                at.saturating_sub(below(rng, 2 * max_batch))
            } else {
                *at
            };
            let to = (*at + below(rng, max_batch + 1)).min(records.len());
            batch.extend_from_slice(&records[from..to]);
            *at = to;
        }
        if !batch.is_empty() {
            processor.handle(batch)?;
        }
        trainer.answer();
        processor.tick()?;
    }
    Ok(())
}

/// The newest value of every key of a compacted topic.
pub(crate) fn compacted(published: &[Outgoing], topic: Topic) -> BTreeMap<(Option<i32>, Vec<u8>), Vec<u8>> {
    published
        .iter()
        .filter(|record| record.topic == topic)
        .map(|record| {
            (
                (record.partition, record.key.clone()),
                record.value.clone().unwrap(),
            )
        })
        .collect()
}
