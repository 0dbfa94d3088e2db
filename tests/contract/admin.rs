//! Topics and their bounds.

use std::collections::BTreeMap;

use marquee_schemas::{ALL_TOPICS, Topic};
use marquee_testkit::Broker;

use crate::support::{numbered, outgoing};

pub(crate) async fn ensuring_topics_again_changes_nothing(broker: Broker) {
    let bus = broker.bus();
    let publisher = bus.publisher("test").unwrap();
    publisher
        .publish_all(&numbered(Topic::Interactions, 0..100))
        .await
        .unwrap();
    let before = bus.watermarks(Topic::Interactions).await.unwrap();
    // All services do it when they start, also at the same moment.
    let (first, second) = tokio::join!(bus.ensure_topics(&ALL_TOPICS), bus.ensure_topics(&ALL_TOPICS));
    first.unwrap();
    second.unwrap();
    assert_eq!(bus.watermarks(Topic::Interactions).await.unwrap(), before);
    for topic in ALL_TOPICS {
        let partitions = bus.watermarks(topic).await.unwrap().0.len();
        assert_eq!(
            partitions,
            usize::try_from(topic.spec().partitions).unwrap(),
            "{topic}"
        );
    }
}

pub(crate) async fn watermarks_name_the_first_and_the_next_offset(broker: Broker) {
    let bus = broker.bus();
    let empty = bus.watermarks(Topic::Interactions).await.unwrap();
    assert!(empty.is_empty());
    assert_eq!(empty.ends(), BTreeMap::from([(0, 0), (1, 0), (2, 0), (3, 0)]));
    let records: Vec<_> = (0..30)
        .map(|n| outgoing(Topic::Interactions, Some(n % 3), "k", n.to_string()))
        .collect();
    bus.publisher("test")
        .unwrap()
        .publish_all(&records)
        .await
        .unwrap();
    let filled = bus.watermarks(Topic::Interactions).await.unwrap();
    assert_eq!(filled.len(), 30);
    assert_eq!(
        filled.0,
        BTreeMap::from([(0, (0, 10)), (1, (0, 10)), (2, (0, 10)), (3, (0, 0))])
    );
}
