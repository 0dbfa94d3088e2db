//! Looking into the state files from outside.

use marquee_feature_processor::inspect;
use marquee_schemas::{MovieId, UserId};

use crate::harness::{Log, catalogue, config, rating, undisturbed};

fn log() -> Log {
    let mut log = Log::default();
    for n in 0..100_u32 {
        log.event(
            2,
            &rating(&n.to_string(), u64::from(n % 7), 1 + n % 5, 4.0, 1_000),
        );
    }
    log
}

#[test]
fn a_stopped_processors_files_show_counters_users_and_movies() {
    let folder = tempfile::tempdir().unwrap();
    let (fold, _) = undisturbed(&config(folder.path()), &catalogue(5), &log(), 30);
    let summary = fold.close().unwrap();
    let inspector = inspect::open_read_only(folder.path()).unwrap();
    assert_eq!(inspector.counters(), summary.partitions);
    let report = inspector.user(UserId(3)).unwrap().unwrap();
    assert_eq!(
        (report.partition, report.history.len() as u64),
        (1, report.features.history_len)
    );
    assert!(inspector.user(UserId(99)).unwrap().is_none());
    let movie = inspector.movie(MovieId(2)).unwrap();
    assert_eq!(movie.values().map(|features| features.count).sum::<u64>(), 20);
}

#[test]
fn the_files_of_a_killed_processor_can_be_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let (fold, expected) = undisturbed(&config(folder.path()), &catalogue(5), &log(), 30);
    let copy = tempfile::tempdir().unwrap();
    for partition in expected.hashes.keys() {
        let name = format!("features-{partition}.redb");
        std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let inspector = inspect::open_read_only(copy.path()).unwrap();
    for (partition, hash) in &expected.hashes {
        assert_eq!(
            inspector.partitions()[partition].state_hash(1 << 20).unwrap(),
            *hash
        );
    }
    drop(fold);
}
