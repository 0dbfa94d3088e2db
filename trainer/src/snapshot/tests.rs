use proptest::prelude::*;

use super::*;
use crate::testing;

pub(crate) fn row(partition: i32, offset: i64, user: u64, time_ms: i64) -> Row {
    let event = testing::rating(&format!("{partition}/{offset}"), user, 7, 4.0, time_ms);
    Row::of(&event, partition, offset)
}

fn assemble(rows: Vec<Row>) -> Snapshot {
    let rows = Rows {
        rows,
        ..Rows::default()
    };
    Snapshot::assemble(rows, testing::movies(), Vec::new())
}

#[test]
fn a_repeated_event_id_counts_once_and_the_first_in_log_order_wins() {
    let first = Row::of(&testing::rating("same", 1, 3, 5.0, 900), 0, 1);
    let second = Row::of(&testing::rating("same", 1, 4, 1.0, 100), 0, 2);
    let snapshot = assemble(vec![second, first]);
    assert_eq!(snapshot.counts.duplicates, 1);
    assert_eq!(snapshot.interactions.len(), 1);
    assert_eq!(snapshot.interactions[0].rating, Some(5.0));
}

#[test]
fn interactions_come_by_time_then_partition_then_offset() {
    let snapshot = assemble(vec![
        row(1, 0, 1, 50),
        row(0, 9, 2, 50),
        row(0, 3, 3, 50),
        row(1, 5, 4, 40),
    ]);
    assert_eq!(snapshot.origins, [(1, 5), (0, 3), (0, 9), (1, 0)]);
    assert_eq!(snapshot.until_ms(), 50);
}

#[test]
fn what_is_left_out_is_counted_by_its_reason() {
    let mut shown = testing::rating("a", 1, 1, 1.0, 10);
    shown.kind = marquee_schemas::Kind::Impression;
    shown.rating = None;
    let rows = Rows {
        rows: vec![
            Row::of(&shown, 0, 0),
            Row::of(&testing::rating("b", 1, 999, 4.0, 11), 0, 1),
            Row::of(&testing::rating("c", 1, 1, 4.0, 12), 0, 2),
        ],
        invalid: 3,
        ..Rows::default()
    };
    let counts = Snapshot::assemble(rows, testing::movies(), Vec::new()).counts;
    assert_eq!(
        (
            counts.records,
            counts.interactions,
            counts.invalid,
            counts.without_signal,
            counts.unknown_movies
        ),
        (6, 1, 3, 1, 1)
    );
}

fn erasure(partition: i32, offset: i64, user: u64) -> Erasure {
    Erasure {
        partition,
        offset,
        user: UserId(user),
    }
}

#[test]
fn who_was_erased_is_learned_from_as_far_as_the_return_and_only_that() {
    let mut rows = Rows {
        rows: vec![
            row(0, 0, 1, 10),
            row(0, 1, 2, 11),
            row(0, 4, 1, 12),
            row(0, 6, 1, 5),
            // By a foreign partitioner, and no part of what the tombstone is about.
            row(1, 0, 1, 13),
        ],
        invalid: 1,
        erasures: vec![erasure(0, 5, 1), erasure(0, 3, 1), erasure(0, 9, 77)],
    };
    // A repetition after the erasure of what was erased.
    rows.rows.push(Row {
        offset: 8,
        ..row(0, 0, 1, 10)
    });
    let snapshot = Snapshot::assemble(rows.clone(), testing::movies(), Vec::new());
    assert_eq!(snapshot.origins, [(0, 6), (0, 1), (1, 0)]);
    let counts = snapshot.counts;
    assert_eq!((counts.erasures, counts.erased, counts.duplicates), (3, 2, 1));
    assert_eq!((counts.records, counts.interactions, counts.invalid), (10, 3, 1));
    rows.erasures.reverse();
    rows.rows.reverse();
    assert_eq!(Snapshot::assemble(rows, testing::movies(), Vec::new()), snapshot);
}

#[test]
fn who_was_erased_and_did_not_return_is_no_user_of_the_snapshot() {
    let rows = Rows {
        rows: vec![row(0, 0, 1, 10), row(0, 1, 2, 11)],
        erasures: vec![erasure(0, 2, 1)],
        ..Rows::default()
    };
    let snapshot = Snapshot::assemble(rows, testing::movies(), Vec::new());
    assert_eq!(snapshot.users, [UserId(2)]);
}

#[test]
fn a_movie_that_arrives_later_brings_its_interactions_along() {
    let rows = Rows {
        rows: vec![Row::of(&testing::rating("b", 1, 999, 4.0, 11), 0, 1)],
        ..Rows::default()
    };
    let mut movies = testing::movies();
    movies.push(testing::movie(999));
    let snapshot = Snapshot::assemble(rows, movies, Vec::new());
    assert_eq!(snapshot.counts.unknown_movies, 0);
    assert_eq!(snapshot.interactions.len(), 1);
}

#[test]
fn the_catalogue_keeps_the_newest_record_of_a_movie_and_loses_removed_ones() {
    let mut fold = CatalogueFold::default();
    let mut renamed = testing::movie(1);
    renamed.title = "Renamed".into();
    for (movie, value) in [
        (testing::movie(1), true),
        (testing::movie(2), true),
        (renamed.clone(), true),
        (testing::movie(2), false),
    ] {
        let bytes = marquee_schemas::encode(&movie);
        fold.apply(
            Some(movie.movie_id.to_string().as_bytes()),
            value.then_some(bytes.as_slice()),
        );
    }
    fold.apply(Some(b"3"), Some(b"{not json"));
    assert_eq!(fold.into_movies(), [renamed]);
}

#[test]
fn an_event_from_the_future_is_held_against_the_time_of_its_arrival() {
    let event = testing::rating("x", 1, 1, 4.0, 10 * 86_400_000);
    let record = |timestamp_ms| marquee_runtime::bus::RawRecord {
        topic: Topic::Interactions,
        partition: 0,
        offset: 0,
        timestamp_ms,
        key: None,
        value: Some(marquee_schemas::encode(&event)),
    };
    assert!(Row::decode(&record(9 * 86_400_000)).is_ok());
    assert!(Row::decode(&record(86_400_000)).is_err());
    assert!(Row::decode(&record(-1)).is_ok());
}

proptest! {
    #[test]
    fn the_order_in_which_records_arrive_does_not_matter(
        events in prop::collection::vec((0..2_i32, 1..6_u64, 1..45_u32, 0..50_i64, 0..30_u8), 1..60),
        shuffle in any::<u64>(),
    ) {
        let rows: Vec<Row> = events
            .iter()
            .zip(0..)
            .map(|(&(partition, user, movie, time, id), offset)| {
                Row::of(&testing::rating(&format!("{id}"), user, movie, 3.0, time + 1), partition, offset)
            })
            .collect();
        let straight = assemble(rows.clone());
        let mut shuffled = rows;
        let length = shuffled.len();
        for index in 0..length {
            let other = (shuffle.rotate_left(index as u32) % length as u64) as usize;
            shuffled.swap(index, other);
        }
        prop_assert_eq!(&assemble(shuffled), &straight);
        let counts = straight.counts;
        prop_assert_eq!(
            counts.records,
            counts.interactions + counts.duplicates + counts.unknown_movies + counts.without_signal
        );
        prop_assert!(straight.interactions.is_sorted_by_key(|event| event.time_ms));
    }
}
