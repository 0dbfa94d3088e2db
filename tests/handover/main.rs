//! Feature processors as processes of their own that share a topic, die, and take over from one another.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy's exemption covers test functions only"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use marquee_feature_processor::{
    Catalogue, Config, Counters, Point, PointInTime, Service, StoreOptions, TopicCatalogue, inspect,
};
use marquee_runtime::SystemClock;
use marquee_runtime::bus::{Bus, BusConfig, Outgoing};
use marquee_runtime::supervise::stop_signal;
use marquee_runtime::telemetry::{self, LogFormat};
use marquee_schemas::{
    ALL_TOPICS, FeatureRecord, Interaction, Kind, Movie, MovieId, SchemaVersion, Topic, UserId, decode,
};
use marquee_testkit::{Broker, Guarded, kafka, required};
use tokio_util::sync::CancellationToken;

/// Generous: the condition decides, not the clock.
const PATIENCE: Duration = Duration::from_secs(240);
const BROKERS: &str = "MARQUEE_HANDOVER_BROKERS";
const STATE: &str = "MARQUEE_HANDOVER_STATE";

fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    marquee_testkit::eventually(what, PATIENCE, condition)
}

const EVENTS: u64 = 12_000;
const USERS: u64 = 90;
const MOVIES: u64 = 50;
/// Every so many events, one is sent twice.
const REPEAT: u64 = 40;
const NOW_MS: i64 = 2_000_000_000_000;

/// A feature processor in a process of its own, with a state folder of its own: this test binary, which runs
/// [`worker`] alone.
struct Worker {
    process: Guarded,
    log: PathBuf,
}

impl Worker {
    fn start(folder: &Path, name: &str, brokers: &str) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let process = Guarded::spawn(
            Command::new(std::env::current_exe().unwrap())
                .args(["worker", "--exact", "--ignored", "--nocapture"])
                .env(BROKERS, brokers)
                .env(STATE, folder.join(name))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(file),
        )
        .unwrap();
        Self { process, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for_partitions(&self) {
        eventually("a worker has partitions", || {
            self.log().contains("feature store opened").then_some(())
        });
    }
}

#[test]
#[ignore = "what the other test starts as a process"]
fn worker() {
    let (Ok(brokers), Ok(state)) = (std::env::var(BROKERS), std::env::var(STATE)) else {
        return;
    };
    telemetry::init("info", LogFormat::Text).unwrap();
    let config = Config {
        state_dir: state.into(),
        copy_rows_every_ms: 200,
        // Small batches, so that there is something to interrupt.
        max_batch_records: 300,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stop = stop_signal().unwrap();
        let bus = Bus::new(BusConfig::for_brokers(brokers));
        let token = CancellationToken::new();
        let service = Service::new(config, bus, Arc::new(SystemClock)).unwrap();
        let ended = token.clone();
        tokio::spawn(async move {
            stop.await;
            ended.cancel();
        });
        service.run(token).await.unwrap();
    });
}

fn event(n: u64) -> Interaction {
    let user = n * 7_919 % USERS;
    Interaction {
        schema_version: SchemaVersion,
        event_id: format!("event/{n}"),
        user_id: UserId(user),
        movie_id: Some(MovieId((1 + n * 31 % MOVIES) as u32)),
        kind: Kind::Rating,
        rating: Some([1.0, 2.5, 4.0, 5.0][n as usize % 4]),
        genres: Vec::new(),
        timestamp: 1_000_000_000_000 + n.cast_signed() * 60_000,
        session_id: None,
        request_id: None,
        source: None,
    }
}

/// Events `from` to `to`, some of them twice.
async fn publish(bus: &Bus, from: u64, to: u64) {
    let mut records = Vec::new();
    for n in from..to {
        records.push(Outgoing::of(&event(n)));
        if n % REPEAT == 0 {
            records.push(Outgoing::of(&event(n / 2)));
        }
    }
    let publisher = bus.publisher("handover").unwrap();
    publisher.publish_all(&records).await.unwrap();
}

async fn publish_movies(bus: &Bus) {
    let movies: Vec<Outgoing> = (1..=MOVIES as u32)
        .map(|movie| {
            Outgoing::of(&Movie {
                schema_version: SchemaVersion,
                movie_id: MovieId(movie),
                title: format!("Movie {movie}"),
                year: None,
                genres: vec![format!("genre {}", movie % 7), format!("genre {}", movie % 3)],
                imdb_id: None,
                tmdb_id: None,
            })
        })
        .collect();
    let publisher = bus.publisher("handover").unwrap();
    publisher.publish_all(&movies).await.unwrap();
}

/// Events that the changelog shows as applied, as any consumer would materialise it; `None` while it cannot be read.
fn shown(bus: &Bus) -> Option<u64> {
    let mut users: BTreeMap<UserId, u64> = BTreeMap::new();
    let nowhere = BTreeMap::new();
    bus.read_range(Topic::Features, &nowhere, &nowhere, |record| {
        if let FeatureRecord::User(user) = decode(&record.value.unwrap()).unwrap() {
            users.insert(user.user_id, user.seq);
        }
        Ok::<_, Infallible>(())
    })
    .ok()?;
    Some(users.values().sum())
}

fn applied(bus: &Bus, wanted: u64) {
    eventually(&format!("{wanted} events are applied"), || {
        let applied = shown(bus)?;
        assert!(applied <= wanted, "doubled: {applied} of {wanted}");
        (applied == wanted).then_some(())
    });
}

#[test]
fn processors_that_die_and_take_over_lose_nothing_and_double_nothing() {
    let Some(broker) = required(Broker::apache(), kafka::REQUIRE) else {
        return;
    };
    let (bus, brokers) = (broker.bus(), broker.brokers());
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // A broker that has only just started may have no place for a topic yet.
    eventually("the topics exist", || {
        runtime.block_on(bus.ensure_topics(&ALL_TOPICS)).ok()
    });
    runtime.block_on(async {
        publish_movies(&bus).await;
        publish(&bus, 0, EVENTS / 4).await;
    });

    let mut ana = Worker::start(folder.path(), "ana", &brokers);
    ana.wait_for_partitions();
    let ben = Worker::start(folder.path(), "ben", &brokers);
    ben.wait_for_partitions();
    applied(&bus, EVENTS / 4);
    // Ana dies in the middle of the next quarter; Ben takes her partitions over without her files.
    runtime.block_on(publish(&bus, EVENTS / 4, EVENTS * 3 / 8));
    ana.process.kill();
    // Nobody but Ben can apply these.
    runtime.block_on(publish(&bus, EVENTS * 3 / 8, EVENTS / 2));
    applied(&bus, EVENTS / 2);
    // She comes back with files that are older than what Ben has done since.
    let ana = Worker::start(folder.path(), "ana", &brokers);
    runtime.block_on(publish(&bus, EVENTS / 2, EVENTS * 3 / 4));
    applied(&bus, EVENTS * 3 / 4);
    // A third one begins with nothing, while Ben leaves in good order.
    let mut cyd = Worker::start(folder.path(), "cyd", &brokers);
    cyd.wait_for_partitions();
    let mut ben = ben;
    let (status, _) = ben.process.stop(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{}", ben.log());
    runtime.block_on(publish(&bus, EVENTS * 3 / 4, EVENTS));
    applied(&bus, EVENTS);
    let mut ana = ana;
    for worker in [&mut ana, &mut cyd] {
        let (status, _) = worker.process.stop(Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "{}", worker.log());
    }
    for worker in [&ben, &cyd] {
        assert!(
            worker.log().contains("restored from its rows"),
            "{}",
            worker.log()
        );
    }

    // The newest file of each partition is the state of an undisturbed fold.
    let mut newest: BTreeMap<i32, (Counters, String)> = BTreeMap::new();
    let options = StoreOptions::default();
    for name in ["ana", "ben", "cyd"] {
        let files = inspect::open_read_only(&folder.path().join(name)).unwrap();
        for (&partition, snapshot) in files.partitions() {
            let counters = snapshot.counters().clone();
            let hash = snapshot.state_hash(options.dedupe_window_events).unwrap();
            let known = newest.get(&partition).and_then(|(known, _)| known.next_offset());
            if counters.next_offset() > known {
                newest.insert(partition, (counters, hash));
            }
        }
    }
    let mut movies = TopicCatalogue::new(bus.clone(), CancellationToken::new());
    movies.refresh().unwrap();
    let ends = bus.watermarks_blocking(Topic::Interactions).unwrap().ends();
    let config = Config::default();
    let mut undisturbed = PointInTime::new(&config, &movies, Point::Offsets(ends), NOW_MS);
    bus.read_range(
        Topic::Interactions,
        &BTreeMap::new(),
        &BTreeMap::new(),
        |record| undisturbed.take(record),
    )
    .unwrap();
    let undisturbed = undisturbed.finish().unwrap();
    let found: BTreeMap<i32, String> = newest
        .iter()
        .map(|(&partition, (_, hash))| (partition, hash.clone()))
        .collect();
    assert_eq!(found, *undisturbed.hashes());
    let sum = |of: fn(&Counters) -> u64| newest.values().map(|(counters, _)| of(counters)).sum::<u64>();
    assert_eq!(
        (
            sum(|counters| counters.applied),
            sum(|counters| counters.duplicate)
        ),
        (EVENTS, EVENTS / REPEAT)
    );
}
