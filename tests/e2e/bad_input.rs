//! Nonsense of every kind, on the topic and over HTTP: refused by name, and every record accounted for.

use std::collections::BTreeMap;

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{DeadLetter, MAX_LETTER_PAYLOAD_BYTES, Reason, Topic};
use serde_json::{Value, json};

use crate::harness::{Marquee, Materialised, eventually, get, post, records};

fn on_topic(key: &str, value: Option<Vec<u8>>) -> Outgoing {
    Outgoing {
        topic: Topic::Interactions,
        partition: None,
        key: key.into(),
        value,
    }
}

fn rating(event_id: &str, patch: &[(&str, Value)]) -> Vec<u8> {
    let mut event = json!({
        "schema_version": 1, "event_id": event_id, "user_id": 900_001, "movie_id": 1, "kind": "rating",
        "rating": 4, "timestamp": 1_700_000_000_000_i64,
    });
    for (field, value) in patch {
        if value.is_null() {
            event.as_object_mut().unwrap().remove(*field);
        } else {
            event[*field] = value.clone();
        }
    }
    serde_json::to_vec(&event).unwrap()
}

/// Whether the letter has these bytes, or of many the beginning and how many they are.
fn holds(letter: &DeadLetter, payload: &[u8]) -> bool {
    let whole = payload.len() <= MAX_LETTER_PAYLOAD_BYTES;
    if whole {
        return !letter.truncated && letter.payload.0 == payload;
    }
    letter.truncated
        && letter.payload.0 == payload[..MAX_LETTER_PAYLOAD_BYTES]
        && letter.payload_bytes == Some(payload.len() as u64)
}

#[test]
fn nonsense_on_the_topic_is_dead_lettered_by_reason_and_the_counts_reconcile() {
    let folder = tempfile::tempdir().unwrap();
    let mut marquee = Marquee::up(
        &folder.path().join("state"),
        None,
        &["--dataset", "synthetic", "--live-speed", "max"],
    );
    marquee.wait_ready();
    let bus = marquee.bus();
    let all_published = || bus.watermarks_blocking(Topic::Interactions).unwrap().len();
    // The synthetic traffic must be over, so that what follows can be counted.
    eventually("the data set is published", || {
        marquee.log().contains("all traffic published").then_some(())
    });
    let before = all_published();

    let nonsense: Vec<(Option<Vec<u8>>, Reason)> = vec![
        (Some(b"{\"schema_version\":1,".to_vec()), Reason::MalformedJson),
        (Some(vec![0xff, 0x00, 0x80]), Reason::MalformedJson),
        (
            Some(rating("a", &[("schema_version", json!(9))])),
            Reason::UnknownSchemaVersion,
        ),
        (
            Some(rating("b", &[("kind", json!("stare"))])),
            Reason::UnknownKind,
        ),
        (Some(rating("c", &[("rating", json!(7))])), Reason::OutOfRange),
        (
            Some(rating("d", &[("user_id", Value::Null)])),
            Reason::MissingField,
        ),
        (
            Some(rating("e", &[("movie_id", Value::Null)])),
            Reason::MissingField,
        ),
        (
            Some(rating("f", &[("event_id", Value::Null)])),
            Reason::MissingField,
        ),
        (Some(rating("g", &[("user_id", json!("me"))])), Reason::WrongType),
        (
            Some(rating("h", &[("timestamp", json!(99_999_999_999_999_i64))])),
            Reason::TimestampOutOfRange,
        ),
        (
            Some(rating("i", &[("movie_id", json!(4_000_000_000_u32))])),
            Reason::UnknownMovie,
        ),
        (
            Some(rating("j", &[("source", json!("x".repeat(200_000)))])),
            Reason::TooLarge,
        ),
        // In a dead letter it would be larger than any broker takes; what is compressed comes this far.
        (
            Some(rating("k", &[("source", json!("x".repeat(3_500_000)))])),
            Reason::TooLarge,
        ),
    ];
    // An empty record under a user's key is no nonsense: it asks to forget that user.
    let good = rating("good", &[]);
    let mut outgoing: Vec<Outgoing> = nonsense
        .iter()
        .map(|(value, _)| on_topic("900001", value.clone()))
        .collect();
    outgoing.push(on_topic("900001", Some(good.clone())));
    outgoing.push(on_topic("900001", Some(good)));
    let publisher = bus.publisher("nonsense").unwrap();
    publisher.publish_all_blocking(&outgoing, || false).unwrap();

    let letters = eventually("every record of nonsense is a dead letter", || {
        // The lake refuses on its own account what it cannot lay down as a row; its letters carry its name.
        let letters: Vec<DeadLetter> = records::<DeadLetter>(&bus)
            .into_iter()
            .filter(|letter| letter.stage == "feature-processor")
            .collect();
        (letters.len() >= nonsense.len()).then_some(letters)
    });
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, reason) in &nonsense {
        *expected.entry(reason.as_str()).or_default() += 1;
    }
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in &letters {
        *found.entry(letter.reason.as_str()).or_default() += 1;
        assert_eq!(letter.topic, "interactions");
        assert_eq!(letter.key.as_ref().unwrap().0, b"900001");
        assert!(!letter.detail.is_empty());
    }
    assert_eq!(found, expected);
    for (value, reason) in &nonsense {
        let payload = value.clone().unwrap_or_default();
        assert!(
            letters.iter().any(|l| l.reason == *reason && holds(l, &payload)),
            "original bytes of {reason}"
        );
    }

    // in = applied + duplicate + dead-lettered
    let applied = eventually("the good record is applied once", || {
        let state = Materialised::read(&bus);
        (state.applied() > u64::try_from(before).unwrap()).then(|| state.applied())
    });
    let duplicates = 1;
    assert_eq!(
        u64::try_from(all_published()).unwrap(),
        applied + duplicates + letters.len() as u64,
        "counts do not reconcile"
    );
    assert!(marquee.interrupt().success());
}

#[test]
fn nonsense_over_http_gets_a_typed_problem_and_never_a_5xx() {
    let folder = tempfile::tempdir().unwrap();
    let mut marquee = Marquee::up(&folder.path().join("state"), None, &["--dataset", "synthetic"]);
    marquee.wait_ready();
    let url = marquee.url();
    let problem = |(status, body): (u16, Value), expected: u16| {
        assert_eq!(status, expected, "{body}");
        assert_eq!(body["status"], expected, "{body}");
        assert!(body["title"].is_string() && body["type"].is_string(), "{body}");
    };
    let recommend = format!("{url}/recommend");
    problem(post(&recommend, b"{\"user_id\":"), 400);
    problem(post(&recommend, br#"{"user_id":"me"}"#), 422);
    problem(post(&recommend, br#"{"user_id":1,"k":0}"#), 422);
    problem(post(&recommend, br#"{"user_id":1,"colour":"red"}"#), 422);
    problem(
        post(
            &recommend,
            br#"{"user_id":1,"filters":{"year_from":2000,"year_to":1990}}"#,
        ),
        422,
    );
    problem(
        post(&recommend, br#"{"user_id":1,"filters":{"genres_any":["Quux"]}}"#),
        422,
    );
    problem(post(&recommend, vec![b' '; 2 * 1024 * 1024]), 413);
    problem(
        post(&format!("{url}/similar"), br#"{"movie_id":4000000000}"#),
        404,
    );
    problem(get(&format!("{url}/movies/4000000000")), 404);
    problem(get(&format!("{url}/movies/abc")), 422);
    problem(get(&format!("{url}/popular?k=-1")), 422);
    problem(get(&format!("{url}/nowhere")), 404);
    problem(get(&recommend), 405);
    problem(post(&format!("{url}/events"), b"not json"), 400);
    problem(post(&format!("{url}/events"), vec![b' '; 2 * 1024 * 1024]), 413);

    // An unknown user is no error: the answer says what it is.
    let (status, body) = post(&recommend, br#"{"user_id":123456789}"#);
    assert_eq!((status, &body["is_fallback"]), (200, &json!(true)), "{body}");
    assert!(body["fallback_reason"].is_string(), "{body}");
    assert!(marquee.interrupt().success());
}
