use super::*;
use crate::bus::BusConfig;

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";
/// Far less than the five minutes for which the client itself goes on trying.
const SOON: Duration = Duration::from_secs(20);

fn numbered(count: usize) -> Vec<Outgoing> {
    (0..count)
        .map(|n| Outgoing {
            topic: Topic::Interactions,
            partition: Some(0),
            key: n.to_string().into_bytes(),
            value: Some(b"v".to_vec()),
        })
        .collect()
}

fn publisher(max_in_flight_records: u32) -> Publisher {
    let config = BusConfig {
        max_in_flight_records,
        ..BusConfig::for_brokers(NOBODY)
    };
    Bus::new(config).publisher("test").unwrap()
}

/// Says to give up after a while.
fn later() -> impl Fn() -> bool {
    let begun = Instant::now();
    move || begun.elapsed() >= 2 * SLICE
}

#[test]
fn who_is_told_to_give_up_does_not_wait_for_acknowledgements_of_a_broker_that_is_away() {
    let publisher = publisher(1_000);
    let begun = Instant::now();
    let error = publisher.publish_all_blocking(&numbered(3), later()).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(begun.elapsed() >= GRACE, "{:?}", begun.elapsed());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn who_is_told_to_give_up_does_not_wait_for_room_in_the_queue() {
    let publisher = publisher(5);
    let begun = Instant::now();
    let error = publisher
        .publish_each_blocking(&numbered(10), later())
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn a_record_too_large_for_any_broker_is_named_and_the_others_are_sent() {
    let publisher = publisher(1_000);
    let mut records = numbered(1);
    records[0].value = Some(vec![b'x'; 5_000_000]);
    let refused = publisher.publish_each_blocking(&records, || false).unwrap();
    let [refused] = refused.as_slice() else {
        panic!("{refused:?}")
    };
    assert_eq!(refused.record, &records[0]);
    let alert = refused.alert("feature-processor", 7);
    assert_eq!(alert.alert_id, "feature-processor/record_refused/interactions/0");
    assert_eq!((alert.numbers["bytes"], alert.at_ms), (5_000_000.0, 7));
    // What comes with it is sent all the same: here it waits for a broker.
    records.extend(numbered(2));
    let error = publisher.publish_each_blocking(&records, later()).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn patience_lasts_until_the_answer_or_a_while_after_giving_up() {
    let (answer, question) = oneshot::channel();
    let answering = std::thread::spawn(move || {
        std::thread::sleep(3 * SLICE);
        answer.send(7).unwrap();
    });
    assert_eq!(Patience::new(|| true).wait(question), Some(Ok(7)));
    answering.join().unwrap();
    assert_eq!(Patience::new(|| true).wait(std::future::pending::<()>()), None);
}
