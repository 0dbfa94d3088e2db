//! Members of a group come and go.

use std::time::Duration;

use marquee_runtime::bus::SubscriberConfig;
use marquee_schemas::Topic;
use marquee_testkit::{Broker, eventually_async};

use crate::support::{PATIENCE, Recorder, Running, State, Stream, assert_exactly, group};

const TOPIC: Topic = Topic::Interactions;

pub(crate) async fn a_rebalance_loses_nothing_and_leaves_each_partition_one_owner(broker: Broker) {
    let bus = broker.bus();
    let state = State::default();
    let join = |member: &'static str| {
        let config = SubscriberConfig {
            // Batches that take a while to gather, so that rebalances fall into them.
            max_batch_wait: Duration::from_millis(100),
            ..SubscriberConfig::new(member, group("rebalance"))
        };
        let recorder = Recorder {
            member,
            ..Recorder::new(&state)
        };
        Running::start_with(&bus, TOPIC, config, recorder)
    };
    let shares = |ana: usize, ben: usize| {
        let state = state.clone();
        async move {
            eventually_async(
                &format!("ana has {ana} partitions and ben {ben}"),
                PATIENCE,
                || ((state.owned_by("ana"), state.owned_by("ben")) == (ana, ben)).then_some(()),
            )
            .await;
        }
    };
    let stream = Stream::start(&bus, TOPIC);
    let ana = join("ana");
    shares(4, 0).await;
    stream.advances_by(200).await;
    for _ in 0..2 {
        let ben = join("ben");
        shares(2, 2).await;
        stream.advances_by(400).await;
        ben.stop().await;
        shares(4, 0).await;
        stream.advances_by(200).await;
    }
    let ben = join("ben");
    shares(2, 2).await;
    ana.stop().await;
    shares(0, 4).await;
    stream.advances_by(200).await;
    let sent = stream.stop().await;
    state.reaches(sent.len()).await;
    ben.stop().await;
    shares(0, 0).await;
    state.assert_promises_kept();
    assert_exactly(&state.get().records, &sent);
}
