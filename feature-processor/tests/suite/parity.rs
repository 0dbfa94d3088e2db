//! What is folded offline from the log is what was folded online, bit for bit, over the whole of ml-100k.

use std::collections::BTreeMap;
use std::sync::Arc;

use marquee_feature_processor::{Config, MemorySink, Point, PointInTime, Processor};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::{Handler, RawRecord};
use marquee_schemas::{FeatureRecord, MovieId, Topic, UserId, encode};

use crate::harness::{Log, NOW_MS, config};
use crate::movielens::{data, movies, ratings};

const PARTITIONS: u64 = 4;
const CHECKS: usize = 8;

/// What a store holds of everybody, as bytes: features and history of each user, everything about each movie.
type Held = BTreeMap<String, Vec<u8>>;

fn held<'a>(snapshots: impl Iterator<Item = &'a marquee_feature_processor::Snapshot>) -> Held {
    let mut held = Held::new();
    for snapshot in snapshots {
        let partition = snapshot.partition();
        for user in snapshot.users().unwrap() {
            let features = snapshot.user(user).unwrap().unwrap();
            held.insert(
                format!("{partition} user {user}"),
                encode(&FeatureRecord::User(features)),
            );
            let history = snapshot.user_history(user).unwrap();
            held.insert(
                format!("{partition} history {user}"),
                serde_json::to_vec(&history).unwrap(),
            );
        }
        for movie in (1..=1_682).map(MovieId) {
            if let Some(features) = snapshot.movie(movie).unwrap() {
                let state = snapshot.movie_state(movie).unwrap();
                let next = snapshot.transitions(movie).unwrap();
                let bytes = format!("{features:?} {state:?} {next:?}").into_bytes();
                held.insert(format!("{partition} movie {movie}"), bytes);
            }
        }
    }
    held
}

#[test]
fn offline_equals_online_at_every_point_of_ml_100k() {
    let Some(folder) = data() else {
        println!("skipped: MARQUEE_DATA_DIR does not name a folder with ml-100k");
        return;
    };
    let catalogue = movies(&folder);
    let mut events = ratings(&folder);
    events.sort_by_key(|event| event.timestamp);
    let mut log = Log::default();
    for event in &events {
        log.event(PARTITIONS, event);
    }
    assert_eq!(log.len(), 100_000);

    let online_folder = tempfile::tempdir().unwrap();
    let config = config(online_folder.path());
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let mut online = Processor::new(config.clone(), clock, catalogue.clone(), MemorySink::default()).unwrap();
    online.assigned(Topic::Interactions, &log.partitions()).unwrap();
    let mut points = Vec::new();
    for check in 1..=CHECKS {
        // In batches of a size that no partition's length is a multiple of.
        let mut ends = BTreeMap::new();
        for (&partition, records) in &log.0 {
            let (from, to) = (
                records.len() * (check - 1) / CHECKS,
                records.len() * check / CHECKS,
            );
            for batch in records[from..to].chunks(777) {
                online.handle(batch.to_vec()).unwrap();
            }
            ends.insert(partition, records[..to].last().unwrap().next_offset());
        }
        let snapshots: Vec<_> = online
            .stores()
            .values()
            .map(|store| store.snapshot().unwrap())
            .collect();
        let hashes: BTreeMap<i32, String> = online
            .stores()
            .iter()
            .map(|(&partition, store)| (partition, store.state_hash().unwrap()))
            .collect();
        points.push((ends, hashes, held(snapshots.iter())));
    }
    assert_eq!(
        points[CHECKS - 1].2.len(),
        2 * 943 + movies_seen(&points[CHECKS - 1].2)
    );
    for (ends, hashes, expected) in points {
        let offline = offline(&config, &catalogue, &log, Point::Offsets(ends.clone()));
        assert_eq!(*offline.hashes(), hashes, "at {ends:?}");
        let found = held(offline.partitions().iter());
        assert!(found == expected, "at {ends:?}");
    }
}

fn movies_seen(held: &Held) -> usize {
    held.keys().filter(|name| name.contains("movie")).count()
}

fn offline(
    config: &Config,
    catalogue: &marquee_feature_processor::MemoryCatalogue,
    log: &Log,
    point: Point,
) -> marquee_feature_processor::AsOf {
    let mut state = PointInTime::new(config, catalogue, point, NOW_MS);
    for record in log.0.values().flatten() {
        state.take(RawRecord::clone(record)).unwrap();
    }
    state.finish().unwrap()
}

#[test]
fn features_at_a_time_are_those_of_the_events_up_to_then() {
    let mut log = Log::default();
    for n in 0..40_u32 {
        let time = 1_000_000 + i64::from(n * 7 % 40) * 1_000;
        let event = crate::harness::rating(&n.to_string(), u64::from(n % 3), 1 + n % 5, 4.0, time);
        log.event(2, &event);
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let catalogue = crate::harness::catalogue(5);
    for (time, events) in [(999_999, 0_u64), (1_000_000, 1), (1_019_000, 20), (2_000_000, 40)] {
        let state = offline(&config, &catalogue, &log, Point::EventTime(time));
        let users = (0..3).filter_map(|user| state.user(UserId(user)).unwrap());
        let known: u64 = users
            .inspect(|user| assert!(user.as_of_ms <= time))
            .flat_map(|user| user.parts.into_values())
            .map(|part| part.history_len)
            .sum();
        assert_eq!(known, events, "{time}");
    }
    let state = offline(&config, &catalogue, &log, Point::EventTime(1_019_000));
    let movie = state.movie(MovieId(1)).unwrap().unwrap();
    assert!(movie.summary.count > 0 && movie.summary.last_seen_ms <= 1_019_000);
    assert!(state.user(UserId(9)).unwrap().is_none());
}
