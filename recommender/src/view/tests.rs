use marquee_schemas::{FeatureRecord, HistoryChunk, Kind, MovieId, SchemaVersion, UserId};

use super::follow::Newest;
use super::*;
use crate::testing::{chunk_record, chunks, movie, rated, record, tombstone, user_features};

mod returning;

const NOW_MS: i64 = 1_000_000;

fn view() -> View {
    View::new(LiveParams::default(), 4).unwrap()
}

fn apply(view: &View, records: &[RawRecord]) -> Applied {
    view.apply(records, NOW_MS, |record, error| panic!("{record:?}: {error}"))
}

fn seen(state: &ViewState, user: u64) -> Vec<u32> {
    let Some((index, _)) = state.users.find(UserId(user)) else {
        return Vec::new();
    };
    let mut ids: Vec<u32> = state
        .live
        .seen(index)
        .iter()
        .map(|&item| state.movies.rows()[item as usize].id.0)
        .collect();
    ids.sort_unstable();
    ids
}

fn load(records: impl IntoIterator<Item = RawRecord>) -> ViewState {
    let mut newest = Newest::default();
    for record in records {
        newest.take(record);
    }
    newest
        .fold(LiveParams::default(), |record, error| {
            panic!("{record:?}: {error}")
        })
        .unwrap()
}

#[test]
fn a_rewritten_chunk_brings_only_its_new_entries() {
    let view = view();
    let entries: Vec<_> = (0..150).map(|n| rated(n % 100, 4.0, i64::from(n) + 1)).collect();
    let mut folded = 0;
    for len in [1, 2, 2, 63, 64, 65, 150] {
        let records: Vec<_> = chunks(7, &entries[..len])
            .into_iter()
            .map(|chunk| chunk_record(0, 0, chunk))
            .collect();
        folded += apply(&view, &records).entries;
    }
    assert_eq!(folded, 150);
    let state = view.read();
    let (index, row) = state.users.find(UserId(7)).unwrap();
    assert_eq!(row.parts[0].entries.len(), 150);
    assert_eq!(row.feature_version(), 150);
    assert_eq!(state.live.history_len(index), 150);
    assert_eq!(seen(&state, 7), (0..100).collect::<Vec<_>>());
    assert_eq!(state.users.missing_entries(), 0);
}

#[test]
fn an_older_version_of_a_chunk_changes_nothing() {
    let view = view();
    let entries: Vec<_> = (0..5).map(|n| rated(n, 4.0, i64::from(n) + 1)).collect();
    apply(&view, &[chunk_record(0, 9, chunks(1, &entries).remove(0))]);
    let again = apply(&view, &[chunk_record(0, 10, chunks(1, &entries[..2]).remove(0))]);
    assert_eq!(again.entries, 0);
    assert_eq!(view.read().users.find(UserId(1)).unwrap().1.feature_version(), 5);
}

#[test]
fn a_restart_gives_the_state_of_the_live_run_whatever_compaction_left() {
    let users = 5_u64;
    let history = |user: u64| -> Vec<_> {
        (0..80_u32)
            .map(|n| rated((n * 7 + user as u32) % 50, 4.0, i64::from(n) * 100 + user as i64))
            .collect()
    };
    let mut log: Vec<RawRecord> = (0..50).map(|id| record(0, i64::from(id), &movie(id))).collect();
    let mut offset = 0;
    for step in 1..=80 {
        for user in 1..=users {
            let all = chunks(user, &history(user)[..step]);
            offset += 1;
            log.push(chunk_record(
                (user % 2) as i32,
                offset,
                all.last().unwrap().clone(),
            ));
        }
    }
    let live = view();
    apply(&live, &log);
    // Compaction keeps the newest record of each key, or any more of them.
    let compacted: Vec<RawRecord> = log
        .iter()
        .enumerate()
        .filter(|(place, record)| {
            place % 7 == 0
                || !log[place + 1..]
                    .iter()
                    .any(|later| later.key == record.key && later.partition == record.partition)
        })
        .map(|(_, record)| record.clone())
        .collect();
    assert!(compacted.len() < log.len() / 3);
    let restarted = load(compacted);
    let uncompacted = load(log);
    assert_eq!(restarted.live, uncompacted.live);
    let live = live.read();
    for user in 1..=users {
        assert_eq!(seen(&live, user), seen(&restarted, user));
        let histories = [&live, &restarted].map(|state: &ViewState| {
            let (index, _) = state.users.find(UserId(user)).unwrap();
            state
                .live
                .history(index)
                .iter()
                .map(|e| (e.item, e.time_ms))
                .collect::<Vec<_>>()
        });
        assert_eq!(histories[0], histories[1]);
    }
    for item in 0..50 {
        let now = live.as_of_ms().unwrap();
        assert_eq!(
            live.live.item_stats(item, now).count,
            restarted.live.item_stats(item, now).count
        );
    }
}

#[test]
fn a_user_in_two_partitions_has_one_history_in_event_time() {
    let view = view();
    apply(
        &view,
        &[
            chunk_record(
                0,
                0,
                chunks(1, &[rated(10, 4.0, 100), rated(12, 4.0, 300)]).remove(0),
            ),
            chunk_record(2, 0, chunks(1, &[rated(11, 4.0, 200)]).remove(0)),
        ],
    );
    let state = view.read();
    let (index, row) = state.users.find(UserId(1)).unwrap();
    let times: Vec<i64> = state.live.history(index).iter().map(|e| e.time_ms).collect();
    assert_eq!(times, [100, 200, 300]);
    assert_eq!(row.feature_version(), 3);
}

#[test]
fn a_tombstone_erases_the_user_and_leaves_the_others() {
    let view = view();
    let entries = [rated(10, 4.0, 100), rated(11, 4.0, 200)];
    apply(
        &view,
        &[
            chunk_record(0, 0, chunks(1, &entries).remove(0)),
            chunk_record(0, 1, chunks(2, &entries).remove(0)),
            record(0, 2, &FeatureRecord::User(user_features(1, 2, &["Drama"]))),
        ],
    );
    apply(
        &view,
        &[
            tombstone(Topic::Features, 0, 3, "h/1/0"),
            tombstone(Topic::Features, 0, 4, "u/1"),
        ],
    );
    assert!(!view.refold_if_due().unwrap());
    {
        let state = view.read();
        assert!(state.users.find(UserId(1)).is_none());
        assert_eq!(state.users.len(), 1);
        assert_eq!(seen(&state, 2), [10, 11]);
    }
    // Somebody who comes back begins anew.
    apply(
        &view,
        &[chunk_record(0, 5, chunks(1, &[rated(12, 4.0, 300)]).remove(0))],
    );
    assert_eq!(seen(&view.read(), 1), [12]);
}

#[test]
fn erasing_one_partitions_share_keeps_the_other() {
    let view = view();
    apply(
        &view,
        &[
            chunk_record(0, 0, chunks(1, &[rated(10, 4.0, 100)]).remove(0)),
            chunk_record(1, 0, chunks(1, &[rated(11, 4.0, 200)]).remove(0)),
            tombstone(Topic::Features, 0, 1, "h/1/0"),
        ],
    );
    assert!(view.refold_if_due().unwrap());
    assert_eq!(seen(&view.read(), 1), [11]);
}

#[test]
fn an_erased_user_does_not_return_with_the_next_start() {
    let state = load([
        chunk_record(0, 0, chunks(1, &[rated(10, 4.0, 100)]).remove(0)),
        chunk_record(0, 1, chunks(2, &[rated(10, 4.0, 100)]).remove(0)),
        tombstone(Topic::Features, 0, 2, "h/1/0"),
    ]);
    assert!(state.users.find(UserId(1)).is_none());
    assert_eq!(state.users.len(), 1);
}

#[test]
fn a_movie_is_replaced_removed_and_returns_under_the_same_index() {
    let view = view();
    apply(&view, &[record(0, 0, &movie(5)), record(0, 1, &movie(6))]);
    let index = view.read().movies.find(MovieId(5)).unwrap().0;
    let generation = view.read().movies.generation();
    assert!(apply(&view, &[tombstone(Topic::Movies, 0, 2, "5")]).movies_changed);
    {
        let state = view.read();
        assert!(state.movies.find(MovieId(5)).is_none());
        assert_eq!((state.movies.present(), state.movies.len()), (1, 2));
        assert!(state.movies.generation() > generation);
    }
    apply(&view, &[record(0, 3, &movie(5))]);
    assert_eq!(view.read().movies.find(MovieId(5)).unwrap().0, index);
}

#[test]
fn a_movie_met_in_a_history_first_gets_its_description_later() {
    let view = view();
    let first = apply(
        &view,
        &[chunk_record(0, 0, chunks(1, &[rated(77, 4.0, 100)]).remove(0))],
    );
    assert!(first.movies_changed);
    assert!(view.read().movies.find(MovieId(77)).is_none());
    apply(&view, &[record(0, 0, &movie(77))]);
    let state = view.read();
    let (index, _) = state.movies.find(MovieId(77)).unwrap();
    let user = state.users.find(UserId(1)).unwrap().0;
    assert!(state.live.is_seen(user, index));
}

#[test]
fn records_that_cannot_be_read_are_counted_and_told_and_stop_nothing() {
    let view = view();
    let mut bad = record(0, 0, &movie(5));
    bad.value = Some(b"{\"schema_version\":1".to_vec());
    let mut keyless = record(0, 1, &movie(5));
    keyless.key = None;
    let strange = tombstone(Topic::Features, 0, 0, "z/9");
    let good = record(0, 2, &movie(6));
    let mut told = 0;
    view.apply(&[bad, keyless, strange, good], NOW_MS, |_, _| told += 1);
    assert_eq!((told, view.progress.refused_records()), (3, 3));
    assert_eq!(view.read().movies.present(), 1);
}

#[test]
fn a_view_is_ready_when_loaded_and_its_catalogue_is_not_empty() {
    let view = view();
    assert_eq!(view.missing().len(), 2);
    view.replace(load([]));
    assert_eq!(view.missing(), ["the catalogue is empty"]);
    apply(&view, &[record(0, 0, &movie(5))]);
    assert!(view.missing().is_empty());
}

#[test]
fn new_settings_fold_the_histories_anew() {
    let view = view();
    let entries: Vec<_> = (0..5).map(|n| rated(n, 4.0, i64::from(n) + 1)).collect();
    apply(&view, &[chunk_record(0, 0, chunks(1, &entries).remove(0))]);
    let wanted = LiveParams {
        history_limit: 2,
        ..LiveParams::default()
    };
    view.want_params(&wanted);
    assert!(view.refold_if_due().unwrap());
    assert!(!view.refold_if_due().unwrap());
    let state = view.read();
    let index = state.users.find(UserId(1)).unwrap().0;
    assert_eq!(state.live.history(index).len(), 2);
    assert_eq!(seen(&state, 1), [0, 1, 2, 3, 4]);
}

#[test]
fn readers_see_whole_changes_while_a_writer_works() {
    let view = std::sync::Arc::new(view());
    let writer = {
        let view = std::sync::Arc::clone(&view);
        std::thread::spawn(move || {
            for user in 0..200_u64 {
                let entries: Vec<_> = (0..3).map(|n| rated(n, 4.0, i64::from(n) + 1)).collect();
                apply(&view, &[chunk_record(0, 0, chunks(user, &entries).remove(0))]);
            }
        })
    };
    loop {
        let done = writer.is_finished();
        let state = view.read();
        for index in state.users.indices() {
            assert_eq!(state.live.seen(index).len(), 3);
        }
        drop(state);
        if done {
            break;
        }
    }
    writer.join().unwrap();
    assert_eq!(view.read().users.len(), 200);
}

fn event(offset: i64, id: &str, user: u64, movie: u32, time_ms: i64) -> RawRecord {
    record(
        0,
        offset,
        &Interaction {
            schema_version: SchemaVersion,
            event_id: id.into(),
            user_id: UserId(user),
            movie_id: Some(MovieId(movie)),
            kind: Kind::Rating,
            rating: Some(4.0),
            genres: Vec::new(),
            timestamp: time_ms,
            session_id: None,
            request_id: None,
            source: None,
        },
    )
}

/// What the feature store publishes about a user who rated these movies at times 1, 2, ...
fn published(user: u64, movies: &[u32], source_offset: i64) -> Vec<RawRecord> {
    published_in(None, user, movies, source_offset)
}

/// The same of a user who began anew after the erasure at this offset.
fn published_in(epoch: Option<i64>, user: u64, movies: &[u32], source_offset: i64) -> Vec<RawRecord> {
    let entries: Vec<_> = (1..)
        .zip(movies)
        .map(|(time, &movie)| rated(movie, 4.0, time))
        .collect();
    let mut features = user_features(user, movies.len() as u64, &[]);
    features.history_len = movies.len() as u64;
    features.source_offset = source_offset;
    features.epoch = epoch;
    let mut records = vec![record(0, 0, &FeatureRecord::User(features))];
    records.extend(
        chunks(user, &entries)
            .into_iter()
            .map(|chunk| chunk_record(0, 0, HistoryChunk { epoch, ..chunk })),
    );
    records
}

fn with_movies(count: u32) -> View {
    let view = view();
    let movies: Vec<_> = (0..count)
        .map(|id| record(0, i64::from(id), &movie(id)))
        .collect();
    apply(&view, &movies);
    view
}

fn standing(view: &View, user: u64) -> (u64, usize, usize) {
    let state = view.read();
    let (index, row) = state.users.find(UserId(user)).unwrap();
    let ahead = row.parts.iter().map(|part| part.ahead.len()).sum();
    (row.feature_version(), state.live.history_len(index), ahead)
}

#[test]
fn an_event_shows_at_once_and_its_confirmation_changes_nothing() {
    let view = with_movies(9);
    apply(&view, &[event(10, "a", 1, 3, 1), event(12, "b", 1, 4, 2)]);
    assert_eq!(standing(&view, 1), (2, 2, 2));
    assert_eq!(seen(&view.read(), 1), [3, 4]);
    // The processor has come to the first one only.
    assert_eq!(apply(&view, &published(1, &[3], 10)).entries, 0);
    assert_eq!(standing(&view, 1), (2, 2, 1));
    assert_eq!(apply(&view, &published(1, &[3, 4], 12)).entries, 0);
    assert_eq!(standing(&view, 1), (2, 2, 0));
    assert_eq!(view.read().users.taken_back(), 0);
    // Read once more, say after the connection was lost.
    apply(&view, &[event(12, "b", 1, 4, 2)]);
    assert_eq!(standing(&view, 1), (2, 2, 0));
}

#[test]
fn what_the_feature_store_published_first_is_not_taken_twice() {
    let view = with_movies(9);
    apply(&view, &published(1, &[3], 10));
    apply(&view, &[event(10, "a", 1, 3, 1)]);
    assert_eq!(standing(&view, 1), (1, 1, 0));
}

#[test]
fn a_description_older_than_the_known_one_brings_nothing() {
    let view = with_movies(9);
    let described = |source_offset: i64, watchlist: u32, preferred: &str| {
        let mut features = user_features(1, source_offset.cast_unsigned(), &[preferred]);
        features.watchlist = vec![MovieId(watchlist)];
        features.source_offset = source_offset;
        record(0, 0, &FeatureRecord::User(features))
    };
    for (source_offset, watchlist, preferred) in [(10, 3, "Drama"), (9, 4, "Horror"), (10, 3, "Drama")] {
        apply(&view, &[described(source_offset, watchlist, preferred)]);
        let state = view.read();
        let (_, row) = state.users.find(UserId(1)).unwrap();
        assert_eq!(row.parts[0].watchlist, [MovieId(3)], "{source_offset}");
        assert_eq!(row.parts[0].preferred, ["Drama"], "{source_offset}");
    }
}

#[test]
fn how_far_ahead_an_event_may_lie_is_a_setting() {
    for (max_future_ms, ahead) in [(10, 0), (11, 1)] {
        let view = with_movies(9).with_limits(Limits { max_future_ms });
        apply(&view, &[event(1, "a", 1, 3, NOW_MS + 11)]);
        let stands = view
            .read()
            .users
            .find(UserId(1))
            .map_or(0, |(_, row)| row.parts[0].ahead.len());
        assert_eq!(stands, ahead);
    }
}

#[test]
fn a_batch_of_several_chunks_confirms_all_of_it() {
    let view = with_movies(150);
    let events: Vec<_> = (0..150_u32)
        .map(|n| event(i64::from(n), &n.to_string(), 1, n, i64::from(n) + 1))
        .collect();
    apply(&view, &events);
    assert_eq!(standing(&view, 1), (150, 150, 150));
    let movies: Vec<u32> = (0..150).collect();
    assert_eq!(apply(&view, &published(1, &movies, 149)).entries, 0);
    assert_eq!(standing(&view, 1), (150, 150, 0));
    assert_eq!(view.read().users.taken_back(), 0);
}

#[test]
fn events_that_will_be_refused_do_not_stand_ahead() {
    let view = with_movies(9);
    let mut poison = event(3, "p", 1, 3, 1);
    poison.value = Some(b"{".to_vec());
    apply(
        &view,
        &[
            event(0, "a", 1, 3, 1),
            event(1, "a", 1, 3, 1),
            event(2, "unknown movie", 1, 99, 2),
            poison,
            event(4, "from the future", 1, 4, NOW_MS + 48 * 3_600_000),
        ],
    );
    assert_eq!(standing(&view, 1), (1, 1, 1));
    assert_eq!(
        view.progress.refused_records(),
        0,
        "they are the feature processor's to refuse"
    );
}

#[test]
fn what_the_feature_store_passed_without_applying_it_is_taken_back() {
    let view = with_movies(9);
    apply(
        &view,
        &[event(10, "old repetition", 1, 3, 7), event(11, "b", 1, 4, 1)],
    );
    assert_eq!(standing(&view, 1).0, 2);
    apply(&view, &published(1, &[4], 11));
    assert_eq!((standing(&view, 1).0, standing(&view, 1).2), (1, 0));
    assert_eq!(view.read().users.taken_back(), 1);
    view.want_params(&LiveParams {
        history_limit: 50,
        ..LiveParams::default()
    });
    assert!(view.refold_if_due().unwrap());
    assert_eq!(standing(&view, 1), (1, 1, 0));
}

#[test]
fn a_fold_keeps_what_stands_ahead_and_an_erasure_does_not() {
    let view = with_movies(9);
    apply(&view, &[event(10, "a", 1, 3, 1)]);
    view.want_params(&LiveParams {
        history_limit: 50,
        ..LiveParams::default()
    });
    assert!(view.refold_if_due().unwrap());
    assert_eq!(standing(&view, 1), (1, 1, 1));
    apply(&view, &[tombstone(Topic::Features, 0, 4, "u/1")]);
    assert!(view.read().users.find(UserId(1)).is_none());
}

fn preference(offset: i64, id: &str, user: u64) -> RawRecord {
    record(
        0,
        offset,
        &Interaction {
            schema_version: SchemaVersion,
            event_id: id.into(),
            user_id: UserId(user),
            movie_id: None,
            kind: Kind::Preference,
            rating: None,
            genres: vec!["Drama".into()],
            timestamp: 1,
            session_id: None,
            request_id: None,
            source: None,
        },
    )
}

#[test]
fn an_event_that_shows_only_once_it_is_published_does_not_count_before() {
    let view = with_movies(9);
    apply(&view, &[preference(9, "o", 2)]);
    assert_eq!(standing(&view, 2), (0, 0, 1));
    apply(&view, &[event(10, "a", 1, 3, 1), preference(11, "p", 1)]);
    assert_eq!(standing(&view, 1), (1, 1, 2));
    // A version names a place in the order of events: the history rests on the third.
    apply(&view, &[event(12, "b", 1, 4, 2)]);
    assert_eq!(standing(&view, 1), (3, 2, 3));
    let mut features = user_features(1, 2, &["Drama"]);
    features.history_len = 1;
    features.source_offset = 11;
    apply(
        &view,
        &[
            record(0, 0, &FeatureRecord::User(features)),
            chunk_record(0, 0, chunks(1, &[rated(3, 4.0, 1)]).remove(0)),
        ],
    );
    assert_eq!(standing(&view, 1), (3, 2, 1));
}

#[test]
fn a_catalogue_that_was_loaded_anew_is_another_one_even_if_it_is_the_same() {
    let log = || (0..3).map(|id| record(0, i64::from(id), &movie(id)));
    let (view, again) = (view(), load(log()).movies.generation());
    view.replace(load(log()));
    let before = view.read().movies.generation();
    assert!(before != again && !before.shares_indices(again));
    apply(&view, &[record(0, 3, &movie(3))]);
    let after = view.read().movies.generation();
    assert!(before != after && before.shares_indices(after));
}
