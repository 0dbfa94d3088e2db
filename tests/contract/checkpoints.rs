//! The handler's own offsets decide where reading begins.

use std::time::Duration;

use marquee_runtime::BusError;
use marquee_runtime::bus::{Start, SubscriberConfig, Subscription};
use marquee_schemas::Topic;
use marquee_testkit::{Broker, commit_group_offset};

use crate::support::{PATIENCE, Recorder, Running, State, group, outgoing};

const TOPIC: Topic = Topic::Interactions;

async fn fill(broker: &Broker, count: i64) {
    let records: Vec<_> = (0..count)
        .map(|n| outgoing(TOPIC, Some(0), "k", n.to_string()))
        .collect();
    broker
        .bus()
        .publisher("test")
        .unwrap()
        .publish_all(&records)
        .await
        .unwrap();
}

fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

pub(crate) async fn a_subscriber_resumes_at_the_offset_its_handler_names(broker: Broker) {
    let bus = broker.bus();
    fill(&broker, 100).await;
    for subscription in [group("resume"), Subscription::All] {
        let state = State::with_checkpoint(TOPIC, 0, 40);
        let mut recorder = Recorder::new(&state);
        recorder.fresh = Start::Latest;
        let running = Running::start(&bus, TOPIC, subscription.clone(), recorder);
        state.reaches(60).await;
        running.stop().await;
        state.assert_promises_kept();
        assert_eq!(state.values(), numbers(40..100));

        // At the very end: nothing, until something new comes.
        let state = State::with_checkpoint(TOPIC, 0, 100);
        let mut recorder = Recorder::new(&state);
        recorder.fresh = Start::Latest;
        let running = Running::start(&bus, TOPIC, subscription, recorder);
        let publisher = bus.publisher("test").unwrap();
        // `Latest` is looked up some time after the start, so what is sent meanwhile may or may not be seen.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while state.len() == 0 {
            assert!(tokio::time::Instant::now() < deadline);
            let new = outgoing(TOPIC, Some(1), "k", "new");
            publisher.publish_all(&[new]).await.unwrap();
        }
        running.stop().await;
        state.assert_promises_kept();
        assert!(state.values().iter().all(|value| value == "new"));
    }
}

pub(crate) async fn a_crash_before_the_effect_redelivers_from_the_handlers_own_offset(broker: Broker) {
    let bus = broker.bus();
    fill(&broker, 300).await;
    let state = State::default();
    let config = SubscriberConfig {
        max_batch: 40,
        ..SubscriberConfig::new("only", group("crash"))
    };
    let mut doomed = Recorder::new(&state);
    doomed.power_cut_at = Some(150);
    let ended = Running::start_with(&bus, TOPIC, config, doomed).ended().await;
    assert!(matches!(ended, Err(BusError::Handler(_))), "{ended:?}");
    let reached = state.len();
    assert!((1..=150).contains(&reached), "{reached}");

    // The group's committed offset claims that everything is done; nobody may believe it.
    commit_group_offset(&broker.brokers(), "crash", TOPIC, 0, 300).unwrap();
    // A crashed process leaves no owner behind.
    state.get().owners.clear();
    let running = Running::start(&bus, TOPIC, group("crash"), Recorder::new(&state));
    state.reaches(300).await;
    running.stop().await;
    state.assert_promises_kept();
    assert_eq!(state.values(), numbers(0..300));
}

pub(crate) async fn a_checkpoint_beyond_the_end_is_refused(broker: Broker) {
    let bus = broker.bus();
    fill(&broker, 10).await;
    for subscription in [Subscription::All, group("beyond")] {
        let state = State::with_checkpoint(TOPIC, 0, 11);
        let running = Running::start(&bus, TOPIC, subscription, Recorder::new(&state));
        match running.ended().await {
            Err(BusError::CheckpointBeyondEnd {
                topic,
                partition,
                offset,
                high,
            }) => assert_eq!(
                (topic.as_str(), partition, offset, high),
                ("interactions", 0, 11, 10)
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(state.len(), 0);
        tokio::time::sleep(Duration::ZERO).await;
    }
}
