//! A real data set through crashes and redelivery, against a plain fold of its file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use marquee_feature_processor::MemoryCatalogue;
use marquee_schemas::{FeatureRecord, Interaction, Kind, MovieId, Topic, UserId, decode};

use crate::harness::{Log, compacted, config, disturbed, rating, undisturbed};

const PARTITIONS: u64 = 4;

pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("MARQUEE_DATA_DIR")
        .map(PathBuf::from)?
        .join("ml-100k");
    folder.join("u.data").is_file().then_some(folder)
}

/// Movie id and genres, from `u.item` (ISO-8859-1, separated by bars, 19 genre flags at the end).
pub(crate) fn movies(folder: &std::path::Path) -> MemoryCatalogue {
    let mut catalogue = MemoryCatalogue::default();
    for line in std::fs::read(folder.join("u.item"))
        .unwrap()
        .split(|&byte| byte == b'\n')
    {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b'|').collect();
        if fields.len() < 24 {
            continue;
        }
        let id = std::str::from_utf8(fields[0]).unwrap().parse().unwrap();
        let genres: Vec<String> = (0..19)
            .filter(|&genre| fields[5 + genre].starts_with(b"1"))
            .map(|genre| format!("genre {genre}"))
            .collect();
        catalogue.insert(MovieId(id), &genres);
    }
    catalogue
}

/// Every line of `u.data` (user, movie, stars, seconds), in the file's order.
pub(crate) fn ratings(folder: &std::path::Path) -> Vec<Interaction> {
    std::fs::read_to_string(folder.join("u.data"))
        .unwrap()
        .lines()
        .map(|line| {
            let field: Vec<&str> = line.split('\t').collect();
            rating(
                &format!("ml-100k/{}/{}", field[0], field[1]),
                field[0].parse().unwrap(),
                field[1].parse().unwrap(),
                field[2].parse().unwrap(),
                field[3].parse::<i64>().unwrap() * 1_000,
            )
        })
        .collect()
}

type History = Vec<(MovieId, Kind, Option<f32>, i64)>;

#[test]
fn every_users_history_equals_a_plain_fold_of_the_file_after_crashes_and_redelivery() {
    let Some(folder) = data() else {
        println!("skipped: MARQUEE_DATA_DIR does not name a folder with ml-100k");
        return;
    };
    let (catalogue, events) = (movies(&folder), ratings(&folder));
    assert_eq!(events.len(), 100_000);
    let mut log = Log::default();
    let mut plain: BTreeMap<UserId, History> = BTreeMap::new();
    for event in &events {
        log.event(PARTITIONS, event);
        plain.entry(event.user_id).or_default().push((
            event.movie_id.unwrap(),
            event.kind,
            event.rating,
            event.timestamp,
        ));
    }
    assert_eq!(log.len(), 100_000);

    let (peace, war) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_calm, expected) = undisturbed(&config(peace.path()), &catalogue, &log, 5_000);
    let (stormy, found, crashes) = disturbed(&config(war.path()), &catalogue, &log, 1_000, 60, 100);
    assert!(crashes >= 10, "only {crashes} crashes");
    assert_eq!(found.hashes, expected.hashes);

    let mut folded: BTreeMap<UserId, History> = BTreeMap::new();
    for store in stormy.stores().values() {
        assert_eq!(store.counters().duplicate + store.counters().refused(), 0);
        let snapshot = store.snapshot().unwrap();
        for user in snapshot.users().unwrap() {
            let entries = snapshot.user_history(user).unwrap();
            let features = snapshot.user(user).unwrap().unwrap();
            assert_eq!(features.history_len, entries.len() as u64);
            folded.insert(
                user,
                entries
                    .into_iter()
                    .map(|entry| (entry.movie_id, entry.kind, entry.rating, entry.timestamp))
                    .collect(),
            );
        }
    }
    assert_eq!(folded, plain);

    let mut from_changelog: BTreeMap<UserId, BTreeMap<u32, History>> = BTreeMap::new();
    for value in compacted(&found.published, Topic::Features).into_values() {
        if let FeatureRecord::History(chunk) = decode(&value).unwrap() {
            from_changelog.entry(chunk.user_id).or_default().insert(
                chunk.chunk,
                chunk
                    .entries
                    .into_iter()
                    .map(|entry| (entry.movie_id, entry.kind, entry.rating, entry.timestamp))
                    .collect(),
            );
        }
    }
    let from_changelog: BTreeMap<UserId, History> = from_changelog
        .into_iter()
        .map(|(user, chunks)| (user, chunks.into_values().flatten().collect()))
        .collect();
    assert_eq!(from_changelog, plain, "a consumer of the changelog sees the same");
}
