//! kill -9 in the middle, again and again: nothing lost, nothing doubled.

use std::collections::BTreeMap;
use std::path::Path;

use marquee_schemas::{DeadLetter, Topic, UserId};

use crate::harness::{Marquee, Materialised, data_dir, eventually, records};

const KILLS: i64 = 10;

/// The plain fold of `u.data`: each user's movies and stars, in the order of time (the file's order within a second).
fn plain_fold(file: &Path) -> BTreeMap<UserId, Vec<(u32, f32)>> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut rows: Vec<(i64, u64, u32, f32)> = text
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            (
                fields[3].parse().unwrap(),
                fields[0].parse().unwrap(),
                fields[1].parse().unwrap(),
                fields[2].parse().unwrap(),
            )
        })
        .collect();
    rows.sort_by_key(|row| row.0);
    let mut users: BTreeMap<UserId, Vec<(u32, f32)>> = BTreeMap::new();
    for (_, user, movie, stars) in rows {
        users.entry(UserId(user)).or_default().push((movie, stars));
    }
    users
}

#[test]
fn ten_kills_during_a_replay_lose_nothing_and_double_nothing() {
    let Some(data) = data_dir() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let data_arg = data.to_str().unwrap();
    let args = [
        "--dataset",
        "ml-100k",
        "--data-dir",
        data_arg,
        "--history-share",
        "1.0",
        "--event-times",
        "original",
    ];
    let mut at = 0;
    for kill in 0..KILLS {
        let mut marquee = Marquee::up(&state, None, &args);
        let bus = marquee.bus();
        // Not evenly spaced: a multiplicative hash of the round moves each point.
        let goal = (kill + 1) * 9_000 + (kill * 7_919) % 4_000;
        at = eventually("the replay goes on after a restart", || {
            let published = bus.watermarks_blocking(Topic::Interactions).ok()?.len();
            (published >= goal || published >= 100_000).then_some(published)
        });
        marquee.kill_9();
    }
    eprintln!("last kill with {at} interactions in the topic");

    let expected = plain_fold(&data.join("ml-100k/u.data"));
    let mut marquee = Marquee::up(&state, None, &args);
    let bus = marquee.bus();
    let materialised = eventually("all 100,000 ratings are applied", || {
        let state = Materialised::read(&bus);
        assert!(state.applied() <= 100_000, "doubled: {} applied", state.applied());
        (state.applied() == 100_000).then_some(state)
    });
    let found: BTreeMap<UserId, Vec<(u32, f32)>> = materialised
        .histories()
        .into_iter()
        .map(|(user, entries)| {
            (
                user,
                entries
                    .iter()
                    .map(|e| (e.movie_id.0, e.rating.unwrap()))
                    .collect(),
            )
        })
        .collect();
    assert_eq!(found.len(), expected.len());
    for (user, history) in &expected {
        assert_eq!(&found[user], history, "user {user}");
    }
    assert_eq!(records::<DeadLetter>(&bus), []);
    assert!(marquee.interrupt().success());
}
