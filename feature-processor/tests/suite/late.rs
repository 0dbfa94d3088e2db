//! Events that come late.

use marquee_feature_processor::StoreOptions;
use marquee_schemas::{Kind, MovieId, Reason, Topic, UserId};

use crate::harness::{Log, catalogue, config, rating, undisturbed, view};

const HOUR_MS: i64 = 3_600_000;
const NEWEST_MS: i64 = 1_000 * HOUR_MS;

#[test]
fn what_does_not_depend_on_the_order_is_applied_and_what_would_undo_newer_choices_is_refused() {
    let allowed = StoreOptions::default().max_lateness_ms;
    let mut log = Log::default();
    let wish = |id: &str, kind: Kind, movie: u32, time: i64| {
        let mut event = view(id, 7, movie, time);
        event.kind = kind;
        event
    };
    log.event(1, &rating("new", 7, 1, 4.0, NEWEST_MS));
    log.event(1, &wish("gone", Kind::WatchlistRemove, 2, NEWEST_MS));
    // Within what is allowed, and one millisecond beyond.
    log.event(1, &wish("in time", Kind::WatchlistAdd, 3, NEWEST_MS - allowed));
    log.event(
        1,
        &wish("too late", Kind::WatchlistAdd, 2, NEWEST_MS - allowed - 1),
    );
    log.event(1, &rating("old rating", 7, 4, 2.0, NEWEST_MS - 500 * HOUR_MS));
    // Another user's history may be replayed after it, whatever its age.
    let mut old = wish("other", Kind::WatchlistAdd, 2, 5_000);
    old.user_id = UserId(8);
    log.event(1, &old);
    for batch in [1, 100] {
        let folder = tempfile::tempdir().unwrap();
        let (processor, outcome) = undisturbed(&config(folder.path()), &catalogue(5), &log, batch);
        let store = &processor.stores()[&0];
        let counters = store.counters();
        assert!(counters.reconcile());
        assert_eq!((counters.applied, counters.late), (5, 2), "batch {batch}");
        assert_eq!(counters.dead_lettered, [(Reason::TooLate, 1)].into());
        let snapshot = store.snapshot().unwrap();
        let features = snapshot.user(UserId(7)).unwrap().unwrap();
        assert_eq!(features.watchlist, [MovieId(3)]);
        assert_eq!((features.history_len, features.rating_sum), (2, 6.0));
        assert_eq!(features.last_seen_ms, NEWEST_MS);
        assert_eq!(snapshot.user(UserId(8)).unwrap().unwrap().watchlist, [MovieId(2)]);
        let letters = outcome
            .published
            .iter()
            .filter(|record| record.topic == Topic::DeadLetters)
            .count();
        assert_eq!(letters, 1);
    }
}

#[test]
fn the_same_rule_holds_for_history_that_is_replayed_in_order() {
    let mut log = Log::default();
    for n in 0..200_i64 {
        let mut event = view(
            &n.to_string(),
            7,
            1 + u32::try_from(n % 5).unwrap(),
            n * HOUR_MS + 1,
        );
        if n % 3 == 0 {
            event.kind = Kind::WatchlistAdd;
        }
        log.event(1, &event);
    }
    let folder = tempfile::tempdir().unwrap();
    let (processor, _) = undisturbed(&config(folder.path()), &catalogue(5), &log, 64);
    let counters = processor.stores()[&0].counters();
    assert_eq!((counters.applied, counters.late, counters.refused()), (200, 0, 0));
}
