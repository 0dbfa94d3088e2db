//! Every record read is applied, a duplicate, or a dead letter.

use std::collections::BTreeMap;

use marquee_feature_processor::MemorySink;
use marquee_runtime::bus::Handler;
use marquee_schemas::{DeadLetter, Reason, Topic, decode, encode};
use proptest::prelude::*;

use crate::harness::{Log, catalogue, config, processor, view};

const MOVIES: u32 = 5;

#[derive(Debug, Clone)]
enum Spec {
    Event { id: u8, user: u8, movie: u32 },
    Tombstone,
    Empty,
    Bytes(Vec<u8>),
    Version,
    Future,
    Huge,
}

fn spec() -> impl Strategy<Value = Spec> {
    prop_oneof![
        8 => (0_u8..40, 0_u8..4, 1..MOVIES + 2).prop_map(|(id, user, movie)| Spec::Event { id, user, movie }),
        1 => Just(Spec::Tombstone),
        1 => Just(Spec::Empty),
        1 => proptest::collection::vec(0_u8.., 1..40).prop_map(Spec::Bytes),
        1 => Just(Spec::Version),
        1 => Just(Spec::Future),
        1 => Just(Spec::Huge),
    ]
}

/// The value of a record and why it is refused, if it is.
fn value(spec: &Spec) -> (Option<Vec<u8>>, Option<Reason>) {
    let event = encode(&view("x", 1, 1, 5));
    match spec {
        Spec::Event { id, user, movie } => (
            Some(encode(&view(&id.to_string(), u64::from(*user), *movie, 5))),
            (*movie > MOVIES).then_some(Reason::UnknownMovie),
        ),
        Spec::Tombstone => (None, Some(Reason::Empty)),
        Spec::Empty => (Some(vec![]), Some(Reason::Empty)),
        // A lone number is JSON, but not an object.
        Spec::Bytes(bytes) => (Some(bytes.clone()), Some(Reason::MalformedJson)),
        Spec::Version => {
            let text = String::from_utf8(event).unwrap();
            let other = text.replace("\"schema_version\":1", "\"schema_version\":2");
            (Some(other.into_bytes()), Some(Reason::UnknownSchemaVersion))
        }
        Spec::Future => (
            Some(encode(&view("f", 1, 1, i64::MAX))),
            Some(Reason::TimestampOutOfRange),
        ),
        Spec::Huge => (Some(vec![b'{'; 70_000]), Some(Reason::TooLarge)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn counts_reconcile_with_a_plain_model_for_any_log_and_any_batches(
        specs in proptest::collection::vec(spec(), 1..150),
        batch in 1_usize..60,
        window in 1_u64..30,
    ) {
        let mut log = Log::default();
        let (mut applied, mut duplicate) = (Vec::new(), 0_u64);
        let mut refused: BTreeMap<Reason, u64> = BTreeMap::new();
        for spec in &specs {
            let (bytes, reason) = value(spec);
            log.push(0, bytes);
            let window = usize::try_from(window).unwrap();
            if let Spec::Event { id, .. } = spec && applied.iter().rev().take(window).any(|known| known == id) {
                duplicate += 1;
            } else if let Some(reason) = reason {
                *refused.entry(reason).or_default() += 1;
            } else if let Spec::Event { id, .. } = spec {
                applied.push(*id);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.dedupe_window_events = window;
        let sink = MemorySink::default();
        let movies = catalogue(MOVIES);
        let mut fold = processor(&config, &movies, &sink);
        fold.assigned(Topic::Interactions, &[0]).unwrap();
        for records in log.0[&0].chunks(batch) {
            fold.handle(records.to_vec()).unwrap();
            // Closing and opening again in between changes nothing.
            if records.len() % 2 == 0 {
                fold.revoked(Topic::Interactions, &[0]);
                fold.assigned(Topic::Interactions, &[0]).unwrap();
            }
        }
        let counters = fold.stores()[&0].counters().clone();
        prop_assert!(counters.reconcile());
        prop_assert_eq!(counters.records(), specs.len() as u64);
        prop_assert_eq!(counters.applied, applied.len() as u64);
        prop_assert_eq!(counters.duplicate, duplicate);
        prop_assert_eq!(&counters.dead_lettered, &refused);

        let letters: Vec<DeadLetter> = sink
            .records()
            .iter()
            .filter(|record| record.topic == Topic::DeadLetters)
            .map(|record| decode(record.value.as_deref().unwrap()).unwrap())
            .collect();
        prop_assert_eq!(letters.len() as u64, counters.refused());
        for letter in letters {
            let record = &log.0[&0][usize::try_from(letter.offset - 100).unwrap()];
            prop_assert_eq!(&letter.payload.0, &record.value.clone().unwrap_or_default());
            prop_assert_eq!(letter.key.map(|key| key.0), record.key.clone());
            prop_assert_eq!((letter.topic.as_str(), letter.partition), ("interactions", 0));
        }
    }
}

#[test]
fn of_a_record_of_megabytes_a_letter_remains_that_its_topic_takes() {
    let mut log = Log::default();
    log.push(0, Some(vec![b'x'; 3_500_000]));
    log.event(1, &view("a", 0, 1, 5));
    let folder = tempfile::tempdir().unwrap();
    let sink = MemorySink::default();
    let mut fold = processor(&config(folder.path()), &catalogue(1), &sink);
    fold.assigned(Topic::Interactions, &[0]).unwrap();
    fold.handle(log.0[&0].clone()).unwrap();
    let counters = fold.stores()[&0].counters();
    assert_eq!((counters.refused(), counters.applied), (1, 1));
    let records = sink.records();
    let bytes = records
        .iter()
        .find(|record| record.topic == Topic::DeadLetters)
        .and_then(|record| record.value.as_deref())
        .unwrap();
    assert!(bytes.len() < Topic::DeadLetters.spec().max_message_bytes);
    let letter: DeadLetter = decode(bytes).unwrap();
    assert_eq!((letter.truncated, letter.payload_bytes), (true, Some(3_500_000)));
    assert_eq!((letter.partition, letter.offset), (0, 100));
}

#[test]
fn offsets_without_a_record_are_counted_and_the_rest_reconciles() {
    let mut log = Log::default();
    for n in 0..10 {
        log.event(1, &view(&n.to_string(), 0, 1, 5));
    }
    let records = log.0.get_mut(&0).unwrap();
    records.remove(7);
    records.remove(3);
    let folder = tempfile::tempdir().unwrap();
    let mut fold = processor(&config(folder.path()), &catalogue(1), &MemorySink::default());
    fold.assigned(Topic::Interactions, &[0]).unwrap();
    fold.handle(records.clone()).unwrap();
    let counters = fold.stores()[&0].counters();
    assert_eq!((counters.absent, counters.applied), (2, 8));
    assert!(counters.reconcile());
}
