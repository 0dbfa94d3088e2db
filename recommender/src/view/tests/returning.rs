//! Users who were erased and act again. Their changelog may hold no tombstone: a key goes out with the value it has when
//! it is sent, so an erasure and what follows it within a batch, or while the broker is away, are one publication.

use std::collections::BTreeMap;
use std::sync::Arc;

use marquee_feature_processor::{Config, MemoryCatalogue, MemorySink, Processor};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::Handler;

use super::*;

/// Movies `from` to `to`.
fn between(from: u32, to: u32) -> Vec<u32> {
    (from..to).collect()
}

#[test]
fn who_acts_again_before_the_erasure_was_published_begins_anew() {
    let view = with_movies(100);
    apply(&view, &published(1, &between(0, 70), 69));
    apply(&view, &published(2, &[5], 70));
    assert_eq!(standing(&view, 1), (70, 70, 0));
    // Erased at 71, back at 72: the new chunk replaces the first one, the second is taken back.
    let mut together = published_in(Some(71), 1, &[80], 72);
    together.push(tombstone(Topic::Features, 0, 0, "h/1/1"));
    assert_eq!(apply(&view, &together).entries, 1);
    assert_eq!(standing(&view, 1), (1, 1, 0));
    assert_eq!(seen(&view.read(), 1), [80]);
    assert_eq!(seen(&view.read(), 2), [5]);
    assert!(!view.refold_if_due().unwrap(), "nobody else has a share of it");
    // The new history goes on, and may be erased in its turn.
    apply(&view, &published_in(Some(71), 1, &[80, 81], 73));
    assert_eq!(seen(&view.read(), 1), [80, 81]);
    assert_eq!(view.read().users.missing_entries(), 0);
    apply(&view, &published_in(Some(74), 1, &[82], 75));
    assert_eq!(seen(&view.read(), 1), [82]);
    apply(&view, &[tombstone(Topic::Features, 0, 0, "u/1")]);
    assert!(view.read().users.find(UserId(1)).is_none());
}

#[test]
fn a_new_history_of_several_chunks_replaces_an_old_one_of_more() {
    let view = with_movies(300);
    apply(&view, &published(1, &between(0, 200), 199));
    let mut together = published_in(Some(200), 1, &between(200, 290), 290);
    together.push(tombstone(Topic::Features, 0, 0, "h/1/2"));
    together.push(tombstone(Topic::Features, 0, 0, "h/1/3"));
    apply(&view, &together);
    assert_eq!(standing(&view, 1), (90, 90, 0));
    assert_eq!(seen(&view.read(), 1), between(200, 290));
}

#[test]
fn what_stands_ahead_of_an_erasure_goes_and_what_came_after_it_stays() {
    let view = with_movies(100);
    apply(&view, &published(1, &between(0, 70), 69));
    let events = [
        event(70, "before", 1, 90, 1),
        event(72, "after", 1, 80, 1),
        event(73, "later", 1, 81, 2),
    ];
    apply(&view, &events);
    assert_eq!(standing(&view, 1), (73, 73, 3));
    apply(&view, &published_in(Some(71), 1, &[80], 72));
    assert_eq!(standing(&view, 1), (2, 2, 1));
    assert_eq!(seen(&view.read(), 1), [80, 81]);
    assert_eq!(view.read().users.taken_back(), 0);
    apply(&view, &published_in(Some(71), 1, &[80, 81], 73));
    assert_eq!(standing(&view, 1), (2, 2, 0));
}

#[test]
fn events_that_stood_ahead_before_anything_was_published_are_not_taken_twice() {
    let view = with_movies(9);
    apply(&view, &[event(12, "a", 1, 3, 1)]);
    let index = view.read().users.find(UserId(1)).unwrap().0;
    assert_eq!(apply(&view, &published_in(Some(11), 1, &[3], 12)).entries, 0);
    assert_eq!(standing(&view, 1), (1, 1, 0));
    assert_eq!(view.read().users.find(UserId(1)).unwrap().0, index);
}

#[test]
fn what_is_left_of_an_earlier_epoch_counts_for_nothing() {
    let view = with_movies(100);
    apply(&view, &published_in(Some(71), 1, &[80], 72));
    apply(&view, &published(1, &between(0, 70), 69));
    apply(&view, &published_in(Some(30), 1, &between(0, 70), 69));
    apply(&view, &[event(70, "late", 1, 90, 1)]);
    assert_eq!(standing(&view, 1), (1, 1, 0));
    assert_eq!(seen(&view.read(), 1), [80]);
}

#[test]
fn an_erasure_shows_at_once_and_what_the_changelog_still_says_counts_for_nothing() {
    let view = with_movies(300);
    apply(&view, &published(1, &between(0, 150), 149));
    let erasure = tombstone(Topic::Interactions, 0, 151, "1");
    apply(&view, &[erasure, event(152, "back", 1, 280, 1)]);
    assert_eq!(seen(&view.read(), 1), [280]);
    // The feature store has come to the last event before the erasure.
    apply(&view, &published(1, &between(0, 151), 150));
    assert_eq!(seen(&view.read(), 1), [280]);
    assert_eq!(view.read().users.missing_entries(), 0);
    let gone = ["u/1", "h/1/0", "h/1/1", "h/1/2"].map(|key| tombstone(Topic::Features, 0, 0, key));
    apply(&view, &gone);
    assert_eq!(standing(&view, 1), (1, 1, 1));
    apply(&view, &published_in(Some(151), 1, &[280], 152));
    assert_eq!(standing(&view, 1), (1, 1, 0));
}

#[test]
fn events_that_come_later_than_the_tombstone_do_not_outlive_their_erasure() {
    let view = with_movies(9);
    apply(&view, &published(1, &[3], 10));
    apply(&view, &[tombstone(Topic::Features, 0, 0, "u/1")]);
    apply(&view, &[event(11, "late", 1, 4, 2)]);
    assert_eq!(seen(&view.read(), 1), [4]);
    apply(&view, &[tombstone(Topic::Interactions, 0, 12, "1")]);
    assert!(view.read().users.find(UserId(1)).is_none());
    apply(&view, &[tombstone(Topic::Interactions, 0, 13, "5")]);
    assert!(view.read().users.is_empty(), "nobody was heard of");
}

#[test]
fn one_partitions_new_epoch_leaves_the_share_of_another() {
    let view = view();
    apply(
        &view,
        &[
            chunk_record(0, 0, chunks(1, &[rated(10, 4.0, 100)]).remove(0)),
            chunk_record(1, 0, chunks(1, &[rated(11, 4.0, 200)]).remove(0)),
        ],
    );
    apply(&view, &published_in(Some(5), 1, &[12], 6));
    assert!(view.refold_if_due().unwrap());
    assert_eq!(seen(&view.read(), 1), [11, 12]);
}

#[test]
fn a_first_load_sees_the_new_history_whatever_compaction_left() {
    let mut log = published(1, &between(0, 150), 149);
    let returned = published_in(Some(150), 1, &[80, 81], 152);
    log.extend(returned.clone());
    for chunk in ["h/1/1", "h/1/2"] {
        log.push(tombstone(Topic::Features, 0, 0, chunk));
    }
    for records in [log, returned] {
        let state = load(records);
        assert_eq!(seen(&state, 1), [80, 81]);
        let (index, row) = state.users.find(UserId(1)).unwrap();
        assert_eq!((row.feature_version(), state.live.history_len(index)), (2, 2));
        assert_eq!(state.users.missing_entries(), 0);
    }
    // Where tombstones are gone and an old chunk is not yet.
    let mut left = published_in(Some(150), 1, &[80, 81], 152);
    left.extend(published(1, &between(0, 150), 149).drain(2..));
    assert_eq!(seen(&load(left), 1), [80, 81]);
}

#[test]
fn a_first_load_takes_the_tombstone_of_a_chunk_that_the_history_never_had_for_an_older_one() {
    let mut log = published(1, &[80, 81], 152);
    log.push(tombstone(Topic::Features, 0, 0, "h/1/1"));
    assert_eq!(seen(&load(log), 1), [80, 81]);
}

/// Ratings of user 1, each of another movie; an erasure where there is no movie.
fn log_of(acts: &[Option<u32>]) -> Vec<RawRecord> {
    (0..)
        .zip(acts)
        .map(|(offset, act)| match act {
            Some(movie) => event(offset, &offset.to_string(), 1, *movie, offset + 1),
            None => tombstone(Topic::Interactions, 0, offset, "1"),
        })
        .collect()
}

/// What the feature processor publishes when the log reaches it in batches that end at `cuts`.
fn changelog(log: &[RawRecord], cuts: &[usize]) -> Vec<RawRecord> {
    let folder = tempfile::tempdir().unwrap();
    let mut movies = MemoryCatalogue::default();
    for movie in 0..400 {
        movies.insert(MovieId(movie), &[]);
    }
    let config = Config {
        state_dir: folder.path().to_owned(),
        copy_rows_every_ms: 0,
        ..Config::default()
    };
    let sink = MemorySink::default();
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let mut processor = Processor::new(config, clock, movies, sink.clone()).unwrap();
    processor.assigned(Topic::Interactions, &[0]).unwrap();
    let mut from = 0;
    for &to in cuts.iter().chain([&log.len()]) {
        processor.handle(log[from..to].to_vec()).unwrap();
        from = to;
    }
    let records = sink.records().into_iter();
    (0..)
        .zip(records.filter(|record| record.topic == Topic::Features))
        .map(|(offset, record)| RawRecord {
            topic: record.topic,
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some(record.key),
            value: record.value,
        })
        .collect()
}

#[test]
fn an_erasure_holds_however_the_outbox_publishes_it() {
    for back in [1, 3, 64, 70, 200] {
        let old = (0..130).map(Some);
        let new = (150..150 + back).map(Some);
        let acts: Vec<Option<u32>> = old.chain([None]).chain(new).collect();
        let log = log_of(&acts);
        for cuts in [&[][..], &[130], &[131], &[60, 129], &[60, 130, 131]] {
            let changelog = changelog(&log, cuts);
            let case = format!("{back} acts after the return, batches end at {cuts:?}");
            let expected = between(150, 150 + back);

            // With the events themselves before it, and without.
            for events in [&log[..], &[]] {
                let view = with_movies(400);
                for (at, record) in changelog.iter().enumerate() {
                    if at == changelog.len() / 2 {
                        apply(&view, events);
                    }
                    apply(&view, std::slice::from_ref(record));
                }
                assert_eq!(seen(&view.read(), 1), expected, "{case}");
                let back = back as usize;
                assert_eq!(standing(&view, 1), (back as u64, back, 0), "{case}");
                assert_eq!(view.read().users.missing_entries(), 0, "{case}");
            }

            assert_eq!(seen(&load(changelog.clone()), 1), expected, "{case}");
            let newest: BTreeMap<_, _> = changelog
                .into_iter()
                .map(|record| (record.key.clone(), record))
                .collect();
            assert_eq!(seen(&load(newest.into_values()), 1), expected, "{case}");
        }
    }
}
