//! The sink against killed processes: whatever the moment, each record is in the lake once or in the dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int32Type, Int64Type, UInt64Type};
use marquee_runtime::{BusError, ManualClock};
use marquee_schemas::{
    Interaction, Kind, Movie, MovieId, QualityMetric, Record, SchemaVersion, UserId, encode,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::disk::faulty::{FaultyDisk, Last};
use crate::disk::{Disk, OsDisk};
use crate::lake::{manifests, read_file};

mod erasures;

const DAY: i64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Clone, Default)]
struct Letters(Arc<Mutex<Vec<DeadLetter>>>);

impl DeadLetters for Letters {
    fn publish(&self, letters: &[DeadLetter]) -> Result<(), BusError> {
        self.0.lock().unwrap().extend_from_slice(letters);
        Ok(())
    }
}

impl Letters {
    fn offsets(&self) -> BTreeSet<(i32, i64)> {
        let letters = self.0.lock().unwrap();
        letters.iter().map(|l| (l.partition, l.offset)).collect()
    }
}

struct World {
    dir: tempfile::TempDir,
    clock: ManualClock,
    letters: Letters,
    flush: FlushConfig,
    compaction: CompactionConfig,
    retention: RetentionConfig,
    keep_replaced_ms: i64,
}

impl World {
    fn new(max_rows: usize, max_dates: usize, min_files: usize) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: ManualClock::at(0),
            letters: Letters::default(),
            flush: FlushConfig {
                max_rows,
                max_dates,
                ..FlushConfig::default()
            },
            compaction: CompactionConfig {
                min_files,
                ..CompactionConfig::default()
            },
            retention: RetentionConfig::default(),
            keep_replaced_ms: 0,
        }
    }

    fn sink(&self, disk: Arc<dyn Disk>) -> Result<Sink, Error> {
        let context = Context {
            flush: self.flush.clone(),
            compaction: self.compaction.clone(),
            retention: self.retention.clone(),
            keep_replaced_ms: self.keep_replaced_ms,
            clock: Arc::new(self.clock.clone()),
            dead_letters: Box::new(self.letters.clone()),
            counts: Arc::default(),
        };
        Ok(Sink::new(Lake::open(self.dir.path(), disk)?, context))
    }

    /// One process: reads `log` from where the lake says, in deliveries of `step` records, and stops cleanly.
    fn run(&self, disk: Arc<dyn Disk>, log: &[RawRecord], step: usize) -> Result<(), Error> {
        let mut sink = self.sink(disk)?;
        let mut rest = Vec::new();
        for (topic, partition) in log
            .iter()
            .map(|r| (r.topic, r.partition))
            .collect::<BTreeSet<_>>()
        {
            let from = match sink.assigned(topic, &[partition])?[&partition] {
                Start::Earliest => 0,
                Start::At(offset) => offset,
                Start::Latest => panic!("the sink never skips"),
            };
            rest.extend(
                log.iter()
                    .filter(|r| (r.topic, r.partition) == (topic, partition) && r.offset >= from)
                    .cloned(),
            );
        }
        for batch in rest.chunks(step) {
            sink.handle(batch.to_vec())?;
            sink.tick()?;
        }
        sink.flush_all()
    }

    /// Offsets of all committed rows, with repetitions.
    fn rows(&self, table: Table) -> Vec<(i32, i64)> {
        let mut rows = Vec::new();
        for manifest in manifests(self.dir.path(), table).unwrap() {
            for file in &manifest.files {
                let path = self.dir.path().join(table.name()).join(&file.path);
                let before = rows.len();
                for batch in read_file(&path, &table.schema()).unwrap() {
                    let partition = batch.column(0).as_primitive::<Int32Type>();
                    let offset = batch.column(1).as_primitive::<Int64Type>();
                    rows.extend((0..batch.num_rows()).map(|i| (partition.value(i), offset.value(i))));
                }
                assert_eq!(
                    rows.len() - before,
                    usize::try_from(file.rows).unwrap(),
                    "{file:?}"
                );
            }
        }
        rows.sort_unstable();
        rows
    }

    /// Files on disk, committed or not.
    fn data_files(&self, table: Table) -> BTreeSet<String> {
        fn walk(dir: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|e| e == "parquet" || e == "tmp") {
                    found.insert(path.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.dir.path().join(table.name()), &mut found);
        found
    }

    fn committed_files(&self, table: Table) -> BTreeSet<String> {
        manifests(self.dir.path(), table)
            .unwrap()
            .iter()
            .flat_map(|manifest| &manifest.files)
            .map(|file| file.path.rsplit('/').next().unwrap().to_owned())
            .collect()
    }

    /// Every record of `log` is a row once or a dead letter, and no file lies about.
    fn check(&self, table: Table, log: &[RawRecord], poison: &BTreeSet<(i32, i64)>) {
        let want: Vec<(i32, i64)> = log
            .iter()
            .map(|r| (r.partition, r.offset))
            .filter(|at| !poison.contains(at))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(self.rows(table), want);
        assert_eq!(&self.letters.offsets(), poison);
        assert_eq!(self.data_files(table), self.committed_files(table));
        let counted: u64 = manifests(self.dir.path(), table)
            .unwrap()
            .iter()
            .map(|m| m.poison)
            .sum();
        assert_eq!(counted, poison.len() as u64);
    }
}

fn raw(topic: Topic, partition: i32, offset: i64, value: Option<Vec<u8>>) -> RawRecord {
    RawRecord {
        topic,
        partition,
        offset,
        timestamp_ms: -1,
        key: None,
        value,
    }
}

fn view(user: u64, time: i64) -> Vec<u8> {
    encode(&Interaction {
        schema_version: SchemaVersion,
        event_id: format!("{user}-{time}"),
        user_id: UserId(user),
        movie_id: Some(MovieId(1)),
        kind: Kind::View,
        rating: None,
        genres: vec![],
        timestamp: time,
        session_id: None,
        request_id: None,
        source: None,
    })
}

/// Two partitions, several dates, a poison record now and then.
fn log(records: i64, dates: i64) -> (Vec<RawRecord>, BTreeSet<(i32, i64)>) {
    let mut poison = BTreeSet::new();
    let mut log = Vec::new();
    for partition in 0..2 {
        for offset in 0..records {
            let bad = offset % 13 == 7;
            if bad {
                poison.insert((partition, offset));
            }
            let value = if bad {
                b"{\"schema_version\":1,".to_vec()
            } else {
                view(1, 1 + (offset * 7 % dates) * DAY)
            };
            log.push(raw(Topic::Interactions, partition, offset, Some(value)));
        }
    }
    (log, poison)
}

#[test]
fn a_process_killed_at_any_operation_loses_and_doubles_nothing() {
    let (log, poison) = log(24, 2);
    let mut points = 0;
    for last in [Last::Undone, Last::Half, Last::Done] {
        for operations in 0.. {
            let world = World::new(6, 16, 2);
            let disk = FaultyDisk::dying_after(operations, last);
            drop(world.run(disk.clone(), &log, 7));
            if !disk.is_dead() {
                break;
            }
            points += 1;
            world.run(FaultyDisk::immortal(), &log, 7).unwrap();
            world.check(Table::Interactions, &log, &poison);
        }
    }
    assert!(points > 100, "only {points} points of death were tried");
}

#[test]
fn a_process_killed_again_and_again_still_gets_there() {
    let (log, poison) = log(80, 4);
    let world = World::new(8, 2, 2);
    let mut deaths = 0;
    for attempt in 0_u64.. {
        let last = [Last::Undone, Last::Half, Last::Done][usize::try_from(attempt % 3).unwrap()];
        let disk = FaultyDisk::dying_after(20 + attempt % 23, last);
        // `is_ok` alone would miss a death during the removal of merged files.
        if world.run(disk.clone(), &log, 5).is_ok() && !disk.is_dead() {
            break;
        }
        deaths += 1;
        assert!(deaths < 1_000, "no progress");
    }
    assert!(deaths > 5, "only {deaths}");
    world.run(FaultyDisk::immortal(), &log, 5).unwrap();
    world.check(Table::Interactions, &log, &poison);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_of_kills_and_redeliveries_ends_with_each_record_once(
        kills in proptest::collection::vec((0_u64..120, 0_u8..3, 1_usize..20), 0..6),
        max_rows in 1_usize..30,
        max_dates in 1_usize..5,
        min_files in 0_usize..5,
        dates in 1_i64..6,
    ) {
        let (log, poison) = log(50, dates);
        let world = World::new(max_rows, max_dates, min_files);
        for (operations, last, step) in kills {
            let last = [Last::Undone, Last::Half, Last::Done][usize::from(last)];
            drop(world.run(FaultyDisk::dying_after(operations, last), &log, step));
        }
        world.run(FaultyDisk::immortal(), &log, 9).unwrap();
        world.run(FaultyDisk::immortal(), &log, 9).unwrap();
        world.check(Table::Interactions, &log, &poison);
    }
}

#[test]
fn rows_lie_under_the_date_of_their_event_and_a_flush_of_many_dates_makes_one_file() {
    let world = World::new(1_000, 3, 0);
    let (few, _) = log(20, 3);
    world.run(FaultyDisk::immortal(), &few, 100).unwrap();
    let folders = |world: &World| -> BTreeSet<String> {
        manifests(world.dir.path(), Table::Interactions)
            .unwrap()
            .iter()
            .flat_map(|m| &m.files)
            .map(|f| f.folder().to_owned())
            .collect()
    };
    let days = ["date=1970-01-01", "date=1970-01-02", "date=1970-01-03"].map(str::to_owned);
    assert_eq!(folders(&world), BTreeSet::from(days));

    let world = World::new(1_000, 3, 0);
    let (many, poison) = log(40, 4);
    world.run(FaultyDisk::immortal(), &many, 100).unwrap();
    assert_eq!(folders(&world), BTreeSet::from([crate::lake::UNDATED.to_owned()]));
    assert_eq!(world.committed_files(Table::Interactions).len(), 2);
    world.check(Table::Interactions, &many, &poison);
}

#[test]
fn many_small_flushes_end_in_few_files() {
    let world = World::new(5, 16, 4);
    let (log, poison) = log(400, 1);
    world.run(OsDisk::shared(), &log, 5).unwrap();
    world.check(Table::Interactions, &log, &poison);
    let files = world.committed_files(Table::Interactions).len();
    assert!(files <= 8, "{files} files for 160 flushes");
}

#[test]
fn a_buffer_is_committed_by_age_even_when_nothing_follows() {
    let world = World::new(1_000, 16, 0);
    let mut sink = world.sink(FaultyDisk::immortal()).unwrap();
    sink.handle(vec![raw(Topic::Interactions, 0, 0, Some(view(1, 1)))])
        .unwrap();
    sink.tick().unwrap();
    assert!(world.rows(Table::Interactions).is_empty());
    world.clock.advance(world.flush.max_age_ms);
    sink.tick().unwrap();
    assert_eq!(world.rows(Table::Interactions), [(0, 0)]);
}

#[test]
fn shards_that_began_together_come_due_one_after_the_other_and_none_too_late() {
    const MAX_AGE_MS: i64 = 10_000;
    let mut due: Vec<i64> = [Table::RequestLogs, Table::Interactions]
        .into_iter()
        .flat_map(|table| (0..6).map(move |partition| patience_ms(MAX_AGE_MS, table, partition)))
        .collect();
    due.sort_unstable();
    assert!(due[0] >= MAX_AGE_MS / 2 && due[11] <= MAX_AGE_MS, "{due:?}");
    // Twelve in five seconds: evenly they would be 417 ms apart.
    let closest = due.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(closest >= 100, "{due:?}");
    assert_eq!(patience_ms(1, Table::Movies, 3), 1);
}

#[test]
fn records_delivered_again_are_counted_and_passed_over() {
    let world = World::new(1_000, 16, 0);
    let mut sink = world.sink(FaultyDisk::immortal()).unwrap();
    let record = raw(Topic::Interactions, 0, 0, Some(view(1, 1)));
    sink.handle(vec![record.clone(), record.clone()]).unwrap();
    sink.flush_all().unwrap();
    sink.handle(vec![record]).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(world.rows(Table::Interactions), [(0, 0)]);
    assert_eq!(
        (sink.context.counts.taken(), sink.context.counts.repeated()),
        (1, 2)
    );
    assert_eq!(
        (sink.context.counts.rows(), sink.context.counts.commits()),
        (1, 1)
    );
}

#[test]
fn a_partition_of_nothing_but_poison_still_moves_on() {
    let world = World::new(1_000, 16, 0);
    let log: Vec<RawRecord> = (0..3).map(|o| raw(Topic::RequestLogs, 0, o, None)).collect();
    world.run(FaultyDisk::immortal(), &log, 10).unwrap();
    let mut sink = world.sink(FaultyDisk::immortal()).unwrap();
    assert_eq!(sink.position(Topic::RequestLogs, 0).unwrap(), Some(3));
    world.check(
        Table::RequestLogs,
        &log,
        &BTreeSet::from([(0, 0), (0, 1), (0, 2)]),
    );
}

#[test]
fn a_dead_letter_carries_origin_reason_and_bytes() {
    let world = World::new(1_000, 16, 0);
    let log = [raw(
        Topic::Interactions,
        0,
        0,
        Some(b"{\"schema_version\":7}".to_vec()),
    )];
    world.run(FaultyDisk::immortal(), &log, 1).unwrap();
    let letters = world.letters.0.lock().unwrap();
    assert_eq!(letters[0].key(), b"interactions/0/0");
    assert_eq!(letters[0].reason, marquee_schemas::Reason::UnknownSchemaVersion);
    assert_eq!(letters[0].payload.0, b"{\"schema_version\":7}");
}

#[test]
fn a_dead_letter_that_cannot_be_sent_holds_the_position_back() {
    #[derive(Debug)]
    struct Down;
    impl DeadLetters for Down {
        fn publish(&self, _: &[DeadLetter]) -> Result<(), BusError> {
            Err(BusError::QueueFull)
        }
    }
    let world = World::new(1_000, 16, 0);
    let mut sink = world.sink(FaultyDisk::immortal()).unwrap();
    sink.context.dead_letters = Box::new(Down);
    let log = [
        raw(Topic::Interactions, 0, 0, Some(view(1, 1))),
        raw(Topic::Interactions, 0, 1, None),
    ];
    sink.handle(log.to_vec()).unwrap();
    assert!(sink.flush_all().is_err());
    drop(sink);
    assert!(world.rows(Table::Interactions).is_empty());
    world.run(FaultyDisk::immortal(), &log, 10).unwrap();
    world.check(Table::Interactions, &log, &BTreeSet::from([(0, 1)]));
}

#[test]
fn what_the_broker_deleted_is_passed_over_and_remembered() {
    let world = World::new(1_000, 16, 0);
    let first = [raw(Topic::Interactions, 0, 0, Some(view(1, 1)))];
    world.run(FaultyDisk::immortal(), &first, 10).unwrap();
    let mut sink = world.sink(FaultyDisk::immortal()).unwrap();
    sink.pass_deleted(Topic::Interactions, 0, 0).unwrap();
    sink.pass_deleted(Topic::Interactions, 0, 50).unwrap();
    sink.pass_deleted(Topic::Interactions, 1, 50).unwrap();
    assert_eq!(sink.position(Topic::Interactions, 0).unwrap(), Some(50));
    assert_eq!(sink.position(Topic::Interactions, 1).unwrap(), None);
    let manifest = &manifests(world.dir.path(), Table::Interactions).unwrap()[0];
    assert_eq!(manifest.gaps, [Gap { from: 1, to: 50 }]);
    assert_eq!(world.rows(Table::Interactions), [(0, 0)]);
}

#[test]
fn two_hundred_seeded_processes_with_a_kill_each_leave_every_record_once() {
    let (log, poison) = log(120, 5);
    for seed in 0..200_u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let world = World::new(
            rng.random_range(3..20),
            rng.random_range(1..6),
            rng.random_range(0..5),
        );
        let last = [Last::Undone, Last::Half, Last::Done][rng.random_range(0..3)];
        let disk = FaultyDisk::dying_after(rng.random_range(0..150), last);
        drop(world.run(disk, &log, rng.random_range(1..25)));
        world.run(FaultyDisk::immortal(), &log, 9).unwrap();
        world.check(Table::Interactions, &log, &poison);
        let rows = u64::try_from(log.len() - poison.len()).unwrap();
        let counted: u64 = manifests(world.dir.path(), Table::Interactions)
            .unwrap()
            .iter()
            .flat_map(|manifest| &manifest.files)
            .map(|file| file.rows)
            .sum();
        assert_eq!(counted, rows, "seed {seed}");
    }
}

#[test]
fn merged_files_stay_for_the_queries_that_began_before_and_go_in_time_or_at_the_end() {
    let mut world = World::new(5, 16, 2);
    world.keep_replaced_ms = 60_000;
    let (log, poison) = log(60, 1);
    let mut sink = world.sink(FaultyDisk::immortal()).unwrap();
    let seen_and_gone = |world: &World| {
        let on_disk = world.data_files(Table::Interactions);
        let committed = world.committed_files(Table::Interactions);
        assert!(committed.is_subset(&on_disk));
        on_disk.len() - committed.len()
    };
    sink.handle(log[..40].to_vec()).unwrap();
    sink.tick().unwrap();
    let first = seen_and_gone(&world);
    assert!(first > 2, "{first}");
    world.clock.advance(59_999);
    sink.handle(log[40..80].to_vec()).unwrap();
    sink.tick().unwrap();
    let both = seen_and_gone(&world);
    assert!(both > first, "{both}");
    world.clock.advance(1);
    sink.tick().unwrap();
    assert_eq!(seen_and_gone(&world), both - first);

    sink.handle(log[80..].to_vec()).unwrap();
    sink.flush_all().unwrap();
    world.check(Table::Interactions, &log, &poison);
}

#[test]
fn what_a_killed_process_had_still_kept_is_swept_away_by_the_next() {
    let mut world = World::new(5, 16, 2);
    world.keep_replaced_ms = i64::MAX;
    let (log, poison) = log(40, 1);
    let mut sink = world.sink(FaultyDisk::immortal()).unwrap();
    sink.handle(log.clone()).unwrap();
    sink.tick().unwrap();
    let kept = world.data_files(Table::Interactions);
    assert_ne!(kept, world.committed_files(Table::Interactions));
    drop(sink);
    world.run(FaultyDisk::immortal(), &log, 9).unwrap();
    world.check(Table::Interactions, &log, &poison);
}

fn metric(offset: i64, window_end_ms: i64) -> RawRecord {
    let metric = QualityMetric {
        schema_version: SchemaVersion,
        metric_id: format!("m{offset}"),
        name: "ctr".into(),
        scope: "model".into(),
        population: "all".into(),
        model_version: None,
        value: 0.5,
        lo: None,
        hi: None,
        n: 1,
        window_start_ms: 0,
        window_end_ms,
    };
    raw(Topic::QualityMetrics, 0, offset, Some(encode(&metric)))
}

#[test]
fn rows_older_than_the_retention_go_and_are_not_read_again_whatever_kills_come_between() {
    let log: Vec<RawRecord> = (0..10).map(|n| metric(n, (n + 1) * DAY)).collect();
    let interaction = raw(Topic::Interactions, 0, 0, Some(view(1, DAY)));
    for last in [Last::Undone, Last::Half, Last::Done] {
        for operations in 0.. {
            let mut world = World::new(2, 16, 0);
            world.run(FaultyDisk::immortal(), &log, 1).unwrap();
            world
                .run(FaultyDisk::immortal(), std::slice::from_ref(&interaction), 1)
                .unwrap();
            world.retention.days = 7;
            world.clock.advance(11 * DAY + 1);
            let everything = [&log[..], std::slice::from_ref(&interaction)].concat();
            let disk = FaultyDisk::dying_after(operations, last);
            let tick = |disk: Arc<dyn Disk>| -> Result<(), Error> {
                let mut sink = world.sink(disk)?;
                for record in &everything {
                    sink.handle(vec![record.clone()])?;
                }
                sink.tick()
            };
            drop(tick(disk.clone()));
            let died = disk.is_dead();
            tick(FaultyDisk::immortal()).unwrap();
            // The flushes held two rows each, on two dates: a row of day 4 is exactly a week old.
            let kept: Vec<i64> = world
                .rows(Table::QualityMetrics)
                .iter()
                .map(|row| row.1)
                .collect();
            assert_eq!(kept, [4, 5, 6, 7, 8, 9]);
            assert_eq!(
                world.data_files(Table::QualityMetrics),
                world.committed_files(Table::QualityMetrics)
            );
            assert_eq!(
                world.rows(Table::Interactions).len(),
                1,
                "interactions are kept for ever"
            );
            if !died {
                break;
            }
        }
    }
}

mod catalogue {
    use super::*;
    use crate::rows::movies_of;

    fn movie(id: u32, title: &str) -> Movie {
        Movie {
            schema_version: SchemaVersion,
            movie_id: MovieId(id),
            title: title.into(),
            year: None,
            genres: vec!["Drama".into()],
            imdb_id: None,
            tmdb_id: None,
        }
    }

    fn upsert(offset: i64, id: u32, title: &str) -> RawRecord {
        let movie = movie(id, title);
        RawRecord {
            key: Some(movie.key()),
            ..raw(Topic::Movies, 0, offset, Some(encode(&movie)))
        }
    }

    fn removal(offset: i64, key: &str) -> RawRecord {
        RawRecord {
            key: Some(key.as_bytes().to_vec()),
            ..raw(Topic::Movies, 0, offset, None)
        }
    }

    fn stored(world: &World) -> BTreeMap<u32, String> {
        let manifests = manifests(world.dir.path(), Table::Movies).unwrap();
        let files: Vec<_> = manifests.iter().flat_map(|m| &m.files).collect();
        assert_eq!(files.len(), 1);
        let path = world.dir.path().join("movies").join(&files[0].path);
        let batches = read_file(&path, &Table::Movies.schema()).unwrap();
        batches
            .iter()
            .flat_map(|batch| movies_of(batch).unwrap())
            .map(|movie| (movie.movie_id.0, movie.title))
            .collect()
    }

    #[test]
    fn the_newest_record_of_a_movie_wins_and_a_removal_removes_whatever_kills_come_between() {
        let log = [
            upsert(0, 1, "One"),
            upsert(1, 2, "Two"),
            upsert(2, 1, "One again"),
            removal(3, "2"),
            removal(4, "not an id"),
            upsert(5, 3, "Three"),
        ];
        let want = BTreeMap::from([(1, "One again".to_owned()), (3, "Three".to_owned())]);
        for last in [Last::Undone, Last::Half, Last::Done] {
            for operations in 0.. {
                let world = World::new(2, 16, 0);
                let disk = FaultyDisk::dying_after(operations, last);
                drop(world.run(disk.clone(), &log, 1));
                if !disk.is_dead() {
                    break;
                }
                world.run(FaultyDisk::immortal(), &log, 1).unwrap();
                assert_eq!(stored(&world), want);
                assert_eq!(
                    world.data_files(Table::Movies),
                    world.committed_files(Table::Movies)
                );
                assert_eq!(world.letters.offsets(), BTreeSet::from([(0, 4)]));
            }
        }
    }
}
