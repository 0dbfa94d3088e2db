//! A user who is forgotten leaves no trace in the state, and its traces in the changelog are taken back.

use marquee_feature_processor::MemorySink;
use marquee_runtime::bus::{Handler, RawRecord};
use marquee_schemas::{FeatureKey, FeatureRecord, Topic, UserId, decode};

use crate::harness::{Log, catalogue, config, processor, rating, undisturbed, view};

/// The log's record number `n` of partition 0 as an erasure of `user`.
fn erase(log: &mut Log, user: u64) {
    log.push(0, None);
    let record = log.0.get_mut(&0).and_then(|records| records.last_mut()).unwrap();
    record.key = Some(user.to_string().into_bytes());
}

fn lives(log: &mut Log, user: u64, events: u64, from: u64) {
    for n in from..from + events {
        let id = format!("{user}/{n}");
        let time = 1_000_000_000_000 + i64::try_from(n).unwrap() * 1_000;
        log.event(
            1,
            &rating(&id, user, 1 + u32::try_from(n % 30).unwrap(), 4.0, time),
        );
    }
}

#[test]
fn a_forgotten_user_is_gone_from_state_and_changelog_and_the_others_stay() {
    let mut log = Log::default();
    lives(&mut log, 7, 200, 0);
    lives(&mut log, 8, 200, 0);
    erase(&mut log, 7);
    for batch in [1, 50, 1_000] {
        let folder = tempfile::tempdir().unwrap();
        let (processor, outcome) = undisturbed(&config(folder.path()), &catalogue(30), &log, batch);
        let store = &processor.stores()[&0];
        let snapshot = store.snapshot().unwrap();
        assert_eq!(snapshot.users().unwrap(), [UserId(8)], "batch {batch}");
        assert!(store.user_history(UserId(7)).unwrap().is_empty());
        assert_eq!(store.user_history(UserId(8)).unwrap().len(), 200);
        assert_eq!(
            (store.counters().erasures, store.counters().history_users),
            (1, 1)
        );
        assert!(store.counters().reconcile());
        let observations = store.observations(0..u64::MAX).unwrap();
        let mut seen = observations.iter().flat_map(|segment| &segment.observations);
        assert!(seen.all(|observation| observation.user != 7));

        let newest = |key: FeatureKey| {
            let key = key.to_string().into_bytes();
            let record = outcome.published.iter().rfind(|record| record.key == key);
            record.map(|record| record.value.is_some())
        };
        assert_ne!(newest(FeatureKey::User(UserId(7))), Some(true), "batch {batch}");
        for chunk in 0..4 {
            assert_ne!(newest(FeatureKey::History(UserId(7), chunk)), Some(true));
            assert_eq!(newest(FeatureKey::History(UserId(8), chunk)), Some(true));
        }
        if batch < 200 {
            assert_eq!(newest(FeatureKey::User(UserId(7))), Some(false), "a tombstone");
        }
    }
}

#[test]
fn a_forgotten_user_may_begin_again_in_the_same_batch_or_a_later_one() {
    let mut log = Log::default();
    lives(&mut log, 7, 70, 0);
    erase(&mut log, 7);
    lives(&mut log, 7, 3, 100);
    erase(&mut log, 99);
    let mut hashes = Vec::new();
    for batch in [1, 20, 1_000] {
        let folder = tempfile::tempdir().unwrap();
        let (processor, outcome) = undisturbed(&config(folder.path()), &catalogue(30), &log, batch);
        let store = &processor.stores()[&0];
        let features = store.snapshot().unwrap().user(UserId(7)).unwrap().unwrap();
        assert_eq!((features.seq, features.history_len), (3, 3));
        assert_eq!(store.user_history(UserId(7)).unwrap().len(), 3);
        assert_eq!(
            (store.counters().erasures, store.counters().history_users),
            (2, 1)
        );
        hashes.push(outcome.hashes);
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);
}

#[test]
fn who_returns_is_published_in_a_new_epoch_however_long_that_takes() {
    let mut log = Log::default();
    lives(&mut log, 7, 200, 0);
    lives(&mut log, 8, 5, 0);
    // Nobody knows 9 yet, nor 7 any more.
    for user in [9, 7, 7] {
        erase(&mut log, user);
    }
    let erased_at = log.0[&0].last().unwrap().offset;
    lives(&mut log, 9, 5, 0);
    lives(&mut log, 8, 100, 5);
    lives(&mut log, 7, 3, 200);
    let mut hashes = Vec::new();
    for batch in [1, 7, 150, 1_000] {
        let folder = tempfile::tempdir().unwrap();
        let (processor, outcome) = undisturbed(&config(folder.path()), &catalogue(30), &log, batch);
        let newest = |key: &str| {
            let record = outcome
                .published
                .iter()
                .rfind(|record| record.key == key.as_bytes());
            record.and_then(|record| record.value.as_deref()).map(decode)
        };
        let epoch = |key: &str| match newest(key).unwrap().unwrap() {
            FeatureRecord::User(user) => user.epoch,
            FeatureRecord::History(chunk) => chunk.epoch,
            FeatureRecord::Movie(_) => panic!("not asked for"),
        };
        assert_eq!(epoch("u/7"), Some(erased_at), "batch {batch}");
        assert_eq!(epoch("h/7/0"), Some(erased_at), "batch {batch}");
        assert!(newest("h/7/1").is_none(), "batch {batch}");
        for other in ["u/9", "h/9/0"] {
            assert_eq!(epoch(other), Some(erased_at - 2), "{other}, batch {batch}");
        }
        for other in ["u/8", "h/8/0", "h/8/1"] {
            assert_eq!(epoch(other), None, "{other}, batch {batch}");
        }
        let snapshot = processor.stores()[&0].snapshot().unwrap();
        assert_eq!(snapshot.user(UserId(7)).unwrap().unwrap().epoch, Some(erased_at));
        hashes.push(outcome.hashes);
    }
    assert!(hashes.iter().all(|other| *other == hashes[0]));
}

#[test]
fn an_erasure_that_is_delivered_again_does_not_forget_what_came_after() {
    let mut log = Log::default();
    log.event(1, &view("a", 7, 1, 1_000));
    erase(&mut log, 7);
    log.event(1, &view("b", 7, 2, 2_000));
    let folder = tempfile::tempdir().unwrap();
    let (sink, movies) = (MemorySink::default(), catalogue(5));
    let mut processor = processor(&config(folder.path()), &movies, &sink);
    processor.assigned(Topic::Interactions, &[0]).unwrap();
    let records: Vec<RawRecord> = log.0[&0].clone();
    processor.handle(records.clone()).unwrap();
    processor.handle(records).unwrap();
    assert_eq!(processor.stores()[&0].user_history(UserId(7)).unwrap().len(), 1);
}
