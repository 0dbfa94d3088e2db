//! The broker goes and comes back.

use std::time::{Duration, Instant};

use marquee_runtime::bus::Subscription;
use marquee_schemas::Topic;
use marquee_testkit::Broker;

use crate::support::{
    PATIENCE, Recorder, Running, State, Stream, assert_exactly, group, numbered, whole_log,
};

const TOPIC: Topic = Topic::Interactions;

pub(crate) async fn a_restart_of_the_broker_in_mid_stream_loses_and_doubles_nothing(mut broker: Broker) {
    let bus = broker.bus();
    let (grouped, all) = (State::default(), State::default());
    let members = [
        Running::start(&bus, TOPIC, group("restart"), Recorder::new(&grouped)),
        Running::start(&bus, TOPIC, Subscription::All, Recorder::new(&all)),
    ];
    let stream = Stream::start(&bus, TOPIC);
    stream.advances_by(400).await;
    broker.kill();
    broker.restart();
    stream.advances_by(400).await;
    broker.stop();
    broker.restart();
    stream.advances_by(400).await;
    let sent = stream.stop().await;
    assert_exactly(&whole_log(&bus, TOPIC).await, &sent);
    for (name, state) in [("all", &all), ("group", &grouped)] {
        eprintln!("{name} has {} of {}", state.len(), sent.len());
        state.reaches(sent.len()).await;
        assert_exactly(&state.get().records, &sent);
        state.assert_promises_kept();
    }
    for member in members {
        member.stop().await;
    }
}

pub(crate) async fn a_subscriber_and_a_publisher_wait_for_a_broker_that_is_not_there_yet(mut broker: Broker) {
    let bus = broker.bus();
    broker.stop();
    let (grouped, all) = (State::default(), State::default());
    let members = [
        Running::start(&bus, TOPIC, group("early"), Recorder::new(&grouped)),
        Running::start(&bus, TOPIC, Subscription::All, Recorder::new(&all)),
    ];
    let publisher = bus.publisher("early").unwrap();
    let sending = tokio::spawn(async move { publisher.publish_all(&numbered(TOPIC, 0..100)).await });
    // Long enough for each of them to have found the door closed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    broker.restart();
    sending.await.unwrap().unwrap();
    for (member, state) in members.into_iter().zip([&grouped, &all]) {
        state.reaches(100).await;
        member.stop().await;
        state.assert_promises_kept();
    }
}

pub(crate) async fn a_subscriber_stops_at_once_while_the_broker_is_away(mut broker: Broker) {
    let bus = broker.bus();
    let (grouped, all) = (State::default(), State::default());
    let members = [
        Running::start(&bus, TOPIC, group("away"), Recorder::new(&grouped)),
        Running::start(&bus, TOPIC, Subscription::All, Recorder::new(&all)),
    ];
    bus.publisher("test")
        .unwrap()
        .publish_all(&numbered(TOPIC, 0..100))
        .await
        .unwrap();
    grouped.reaches(100).await;
    all.reaches(100).await;
    broker.kill();
    let newcomers = [
        Running::start(&bus, TOPIC, group("away"), Recorder::new(&State::default())),
        Running::start(&bus, TOPIC, Subscription::All, Recorder::new(&State::default())),
    ];
    let asked = Instant::now();
    for running in members.into_iter().chain(newcomers) {
        running.stop().await;
    }
    // Far below the timeouts of requests; it is a hang that we look for.
    assert!(asked.elapsed() < PATIENCE / 3, "{:?}", asked.elapsed());
}
