//! What is sent arrives: in order, whatever its bytes, or is refused in words.

use std::collections::{BTreeMap, BTreeSet};

use marquee_runtime::bus::{Outgoing, Subscription};
use marquee_runtime::{Bus, BusConfig, BusError};
use marquee_schemas::Topic;
use marquee_testkit::Broker;

use crate::support::{Recorder, Running, State, assert_exactly, group, numbered, outgoing, text, whole_log};

pub(crate) async fn records_of_one_key_arrive_in_the_order_they_were_sent(broker: Broker) {
    let bus = broker.bus();
    let state = State::default();
    let running = Running::start(&bus, Topic::Interactions, group("order"), Recorder::new(&state));
    let records: Vec<_> = (0..3_000)
        .map(|n| {
            outgoing(
                Topic::Interactions,
                None,
                &format!("user {}", n % 50),
                n.to_string(),
            )
        })
        .collect();
    bus.publisher("test")
        .unwrap()
        .publish_all(&records)
        .await
        .unwrap();
    state.reaches(records.len()).await;
    running.stop().await;
    state.assert_promises_kept();
    let mut by_key: BTreeMap<Vec<u8>, (BTreeSet<i32>, Vec<u32>)> = BTreeMap::new();
    for record in &state.get().records {
        let (partitions, numbers) = by_key.entry(record.key.clone().unwrap()).or_default();
        partitions.insert(record.partition);
        numbers.push(text(record).parse().unwrap());
    }
    assert_eq!(by_key.len(), 50);
    for (key, (partitions, numbers)) in by_key {
        assert_eq!(partitions.len(), 1, "{key:?}");
        assert!(numbers.is_sorted() && numbers.len() == 60, "{key:?} {numbers:?}");
    }
}

pub(crate) async fn large_and_empty_records_pass(broker: Broker) {
    let bus = broker.bus();
    // Bytes that no compression shrinks.
    let mut seed = 1_u64;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    })
    .take(900_000)
    .collect();
    let bodies = [Some(large), None, Some(Vec::new()), Some(b"{}".to_vec())];
    let records: Vec<_> = bodies
        .iter()
        .map(|value| Outgoing {
            topic: Topic::Movies,
            partition: None,
            key: b"1".to_vec(),
            value: value.clone(),
        })
        .collect();
    bus.publisher("test")
        .unwrap()
        .publish_all(&records)
        .await
        .unwrap();
    let state = State::default();
    let running = Running::start(&bus, Topic::Movies, Subscription::All, Recorder::new(&state));
    state.reaches(bodies.len()).await;
    running.stop().await;
    for (record, body) in state.get().records.iter().zip(&bodies) {
        assert_eq!(record.key.as_deref(), Some(b"1".as_slice()));
        assert!(
            record.value == *body,
            "{:?} bytes came back as {:?}",
            body.as_ref().map(Vec::len),
            record.value.as_ref().map(Vec::len)
        );
        assert!(record.timestamp_ms > 0);
    }
}

pub(crate) async fn poison_bytes_come_through_as_they_are(broker: Broker) {
    let bus = broker.bus();
    let poisons: [&[u8]; 6] = [
        b"\xff\xfe\x00\x80",
        b"{\"schema_version\":",
        b"\0\0\0\0",
        b"null",
        b"{\"schema_version\":1,\"kind\":\"\xc3\x28\"}",
        &[0x7b; 5_000],
    ];
    let records: Vec<_> = poisons
        .iter()
        .map(|poison| Outgoing {
            topic: Topic::Interactions,
            partition: Some(2),
            key: poison.to_vec(),
            value: Some(poison.to_vec()),
        })
        .collect();
    bus.publisher("test")
        .unwrap()
        .publish_all(&records)
        .await
        .unwrap();
    let state = State::default();
    let running = Running::start(&bus, Topic::Interactions, group("poison"), Recorder::new(&state));
    state.reaches(poisons.len()).await;
    running.stop().await;
    for (record, poison) in state.get().records.iter().zip(poisons) {
        assert_eq!(record.value.as_deref(), Some(poison));
        assert_eq!(record.key.as_deref(), Some(poison));
    }
}

pub(crate) async fn a_record_that_no_broker_takes_is_refused(broker: Broker) {
    let bus = broker.bus();
    let publisher = bus.publisher("test").unwrap();
    let huge = outgoing(Topic::Interactions, None, "k", "x".repeat(5_000_000));
    assert!(matches!(publisher.try_send(&huge), Err(BusError::Refused { .. })));
    // This one leaves the client, and is larger than its topic takes: noise cannot be compressed.
    let noise = (0_u32..400_000).map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31));
    let large = Outgoing {
        value: Some(noise.flat_map(u32::to_le_bytes).collect()),
        ..outgoing(Topic::Interactions, None, "k", "")
    };
    let outcome = publisher.try_send(&large).unwrap().acknowledged().await;
    assert!(matches!(outcome, Err(BusError::Refused { .. })), "{outcome:?}");
    // No retry mends a partition that is not there.
    let astray = outgoing(Topic::Interactions, Some(99), "k", "v");
    let error = match publisher.try_send(&astray) {
        Ok(pending) => pending.acknowledged().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(!error.is_transient(), "{error}");
    // Neither leaves the publisher unusable.
    publisher
        .publish_all(&numbered(Topic::Interactions, 0..10))
        .await
        .unwrap();
    assert_eq!(whole_log(&bus, Topic::Interactions).await.len(), 10);
}

pub(crate) async fn a_full_queue_refuses_and_loses_nothing_that_it_accepted(mut broker: Broker) {
    let bus = Bus::new(BusConfig {
        max_in_flight_records: 50,
        ..BusConfig::for_brokers(broker.brokers())
    });
    let publisher = bus.publisher("test").unwrap();
    // A broker that takes nothing, so that the queue fills whatever the machine's speed.
    broker.kill();
    let mut accepted = Vec::new();
    let mut records = numbered(Topic::Interactions, 0..1_000).into_iter();
    let refused = loop {
        let record = records.next().expect("the queue has no bound");
        match publisher.try_send(&record) {
            Ok(pending) => accepted.push(pending),
            Err(BusError::QueueFull) => break record,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(accepted.len(), 50);
    let waiting = {
        let publisher = publisher.clone();
        tokio::spawn(async move { publisher.enqueue(&refused).await.unwrap().acknowledged().await })
    };
    broker.restart();
    for pending in accepted {
        pending.acknowledged().await.unwrap();
    }
    waiting.await.unwrap().unwrap();
    assert_exactly(&whole_log(&bus, Topic::Interactions).await, &(0..51).collect());
}
