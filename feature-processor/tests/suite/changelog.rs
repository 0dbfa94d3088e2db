//! The changelog describes the store.

use marquee_feature_processor::{Catalogue, Config, Error, MemoryCatalogue, MemorySink, Processor};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::Handler;
use marquee_schemas::{
    FeatureKey, FeatureRecord, HISTORY_CHUNK_LEN, Kind, MovieId, Reason, Topic, UserId, decode,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Log, NOW_MS, catalogue, compacted, config, processor, rating, undisturbed, view};

#[test]
fn a_key_touched_often_in_a_batch_goes_out_once_with_its_last_value_on_the_same_partition() {
    let mut log = Log::default();
    for n in 0..150_u32 {
        log.push(
            3,
            Some(marquee_schemas::encode(&rating(
                &n.to_string(),
                7,
                1 + n % 20,
                4.0,
                1_000 + i64::from(n),
            ))),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let (fold, outcome) = undisturbed(&config(folder.path()), &catalogue(20), &log, 1_000);
    let features: Vec<_> = outcome
        .published
        .iter()
        .filter(|out| out.topic == Topic::Features)
        .collect();
    let chunks = 150_u64.div_ceil(HISTORY_CHUNK_LEN);
    assert_eq!(features.len() as u64, 1 + chunks + 20);
    let mut entries = 0;
    for out in features {
        assert_eq!(out.partition, Some(3));
        let record: FeatureRecord = decode(out.value.as_deref().unwrap()).unwrap();
        assert_eq!(record.feature_key().to_string().into_bytes(), out.key);
        match record {
            FeatureRecord::User(user) => {
                assert_eq!((user.seq, user.history_len, user.rating_sum), (150, 150, 600.0));
                assert_eq!(user.source_offset, 249);
            }
            FeatureRecord::History(chunk) => entries += chunk.entries.len(),
            FeatureRecord::Movie(movie) => assert!((7..=8).contains(&movie.count)),
        }
    }
    assert_eq!(entries, 150);
    let history = fold.stores()[&3].user_history(UserId(7)).unwrap();
    let times: Vec<i64> = history.iter().map(|entry| entry.timestamp).collect();
    assert_eq!(times, (1_000..1_150).collect::<Vec<_>>());
}

#[test]
fn what_is_no_history_changes_the_user_but_neither_history_nor_movie() {
    let mut log = Log::default();
    for (id, kind) in [("a", Kind::Impression), ("b", Kind::WatchlistAdd)] {
        let mut event = view(id, 0, 1, 5);
        event.kind = kind;
        log.event(1, &event);
    }
    let folder = tempfile::tempdir().unwrap();
    let (_fold, outcome) = undisturbed(&config(folder.path()), &catalogue(1), &log, 10);
    let keys: Vec<_> = compacted(&outcome.published, Topic::Features)
        .into_keys()
        .map(|(_, key)| String::from_utf8(key).unwrap().parse::<FeatureKey>().unwrap())
        .collect();
    assert_eq!(keys, [FeatureKey::User(UserId(0))]);
}

#[test]
fn movies_records_wait_for_their_time_and_survive_a_restart_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        movie_features_every_ms: 1_000,
        ..config(folder.path())
    };
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let sink = MemorySink::default();
    let movies = catalogue(3);
    let live = || {
        let mut processor =
            Processor::new(config.clone(), clock.clone(), movies.clone(), sink.clone()).unwrap();
        processor.assigned(Topic::Interactions, &[0]).unwrap();
        processor
    };
    let mut log = Log::default();
    for n in 0..4_u32 {
        log.event(
            1,
            &rating(&n.to_string(), 0, 1 + n % 3, 4.0, 1_000 + i64::from(n)),
        );
    }
    let count = |kind: &str| {
        sink.records()
            .iter()
            .filter(|record| record.key.starts_with(kind.as_bytes()))
            .count()
    };
    let mut processor = live();
    processor.handle(log.0[&0][..1].to_vec()).unwrap();
    assert_eq!(
        (count("u/"), count("m/")),
        (1, 1),
        "the first batch of a life takes them along"
    );
    processor.handle(log.0[&0][1..2].to_vec()).unwrap();
    clock.advance(999);
    processor.tick().unwrap();
    assert_eq!((count("u/"), count("m/")), (2, 1));
    clock.advance(1);
    processor.tick().unwrap();
    assert_eq!((count("u/"), count("m/")), (2, 2));
    processor.handle(log.0[&0][2..3].to_vec()).unwrap();
    assert_eq!((count("u/"), count("m/")), (3, 2));
    drop(processor);
    let mut processor = live();
    processor.tick().unwrap();
    // The user's record goes out again because nothing after it removed it from the outbox.
    assert_eq!((count("u/"), count("m/")), (4, 3));
    processor.close().unwrap();
}

/// A catalogue whose second movie is published only after it was first looked at.
#[derive(Debug, Default)]
struct Growing {
    movies: MemoryCatalogue,
    published: Arc<AtomicBool>,
}

impl Catalogue for Growing {
    fn genres(&self, movie: MovieId) -> Option<&[Arc<str>]> {
        self.movies.genres(movie)
    }

    fn refresh(&mut self) -> Result<bool, Error> {
        if self.published.load(Ordering::SeqCst) {
            self.movies.insert(MovieId(1), &[]);
        }
        Ok(true)
    }
}

#[test]
fn a_movie_published_just_before_its_first_interaction_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Growing::default();
    let published = Arc::clone(&catalogue.published);
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let config: Config = config(folder.path());
    let mut fold = Processor::new(config, clock, catalogue, MemorySink::default()).unwrap();
    fold.assigned(Topic::Interactions, &[0]).unwrap();
    let mut log = Log::default();
    log.event(1, &view("a", 0, 1, 5));
    log.event(1, &view("a", 0, 1, 5));
    fold.handle(log.0[&0][..1].to_vec()).unwrap();
    published.store(true, Ordering::SeqCst);
    fold.handle(log.0[&0][1..].to_vec()).unwrap();
    let counters = fold.stores()[&0].counters();
    // The id of a refused event stays free: mended and sent again, it is applied.
    assert_eq!(
        (counters.dead_lettered[&Reason::UnknownMovie], counters.applied),
        (1, 1)
    );
}

#[test]
fn a_store_of_another_partition_or_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let (movies, sink) = (catalogue(1), MemorySink::default());
    let mut fold = processor(&config, &movies, &sink);
    fold.assigned(Topic::Interactions, &[0]).unwrap();
    let second = Processor::new(
        config.clone(),
        Arc::new(ManualClock::at(NOW_MS)),
        movies.clone(),
        sink.clone(),
    );
    let error = second.err().unwrap().to_string();
    assert!(
        error.contains("triggers.redb") && error.contains("already open"),
        "{error}"
    );
    fold.close().unwrap();
    std::fs::rename(
        folder.path().join("features-0.redb"),
        folder.path().join("features-1.redb"),
    )
    .unwrap();
    let mut fold = processor(&config, &movies, &sink);
    let error = fold.assigned(Topic::Interactions, &[1]).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
}
