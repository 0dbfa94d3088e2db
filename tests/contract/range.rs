//! Reading between named offsets.

use std::collections::BTreeMap;

use marquee_runtime::BusError;
use marquee_schemas::Topic;
use marquee_testkit::{Broker, publish_in_transaction};

use crate::support::{PowerCut, numbered, outgoing, text};

const TOPIC: Topic = Topic::Interactions;

async fn read(
    broker: &Broker,
    from: BTreeMap<i32, i64>,
    to: BTreeMap<i32, i64>,
) -> Result<(BTreeMap<i32, i64>, Vec<(i32, i64, String)>), BusError> {
    let bus = broker.bus();
    tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        let reached = bus.read_range(TOPIC, &from, &to, |record| {
            seen.push((record.partition, record.offset, text(&record)));
            Ok::<(), PowerCut>(())
        })?;
        seen.sort();
        Ok((reached, seen))
    })
    .await
    .unwrap()
}

fn expected(ranges: &[(i32, std::ops::Range<i64>)]) -> Vec<(i32, i64, String)> {
    ranges
        .iter()
        .flat_map(|(partition, offsets)| {
            offsets
                .clone()
                .map(move |offset| (*partition, offset, format!("{partition}:{offset}")))
        })
        .collect()
}

pub(crate) async fn a_range_reads_exactly_the_named_offsets(broker: Broker) {
    let publisher = broker.bus().publisher("test").unwrap();
    let records: Vec<_> = (0..50_i64)
        .flat_map(|offset| (0..3).map(move |partition| (partition, offset)))
        .map(|(partition, offset)| outgoing(TOPIC, Some(partition), "k", format!("{partition}:{offset}")))
        .collect();
    publisher.publish_all(&records).await.unwrap();

    let (reached, seen) = read(
        &broker,
        BTreeMap::from([(0, 10), (1, 49)]),
        BTreeMap::from([(0, 20), (2, 0)]),
    )
    .await
    .unwrap();
    // Named: 10 to 20 of partition 0, the last of 1 up to its end now, nothing of 2, and the empty 3.
    assert_eq!(seen, expected(&[(0, 10..20), (1, 49..50)]));
    assert_eq!(reached, BTreeMap::from([(0, 20), (1, 50), (2, 0), (3, 0)]));

    // The whole log as it is now, whatever comes after.
    let ends = broker.bus().watermarks(TOPIC).await.unwrap().ends();
    publisher.publish_all(&numbered(TOPIC, 0..500)).await.unwrap();
    let (_, seen) = read(&broker, BTreeMap::new(), ends).await.unwrap();
    assert_eq!(seen, expected(&[(0, 0..50), (1, 0..50), (2, 0..50)]));

    // An empty range is read at once.
    let (_, seen) = read(
        &broker,
        (0..4).map(|p| (p, 30)).collect(),
        (0..4).map(|p| (p, 30)).collect(),
    )
    .await
    .unwrap();
    assert!(seen.is_empty());
}

pub(crate) async fn a_range_beyond_the_end_is_refused(broker: Broker) {
    let publisher = broker.bus().publisher("test").unwrap();
    publisher
        .publish_all(&[outgoing(TOPIC, Some(0), "k", "v")])
        .await
        .unwrap();
    for (partition, end) in [(0, 2), (7, 1)] {
        match read(&broker, BTreeMap::new(), BTreeMap::from([(partition, end)])).await {
            Err(BusError::CheckpointBeyondEnd { offset, .. }) => assert_eq!(offset, end),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn a_range_ends_though_its_last_offsets_hold_no_record(broker: Broker) {
    let brokers = broker.brokers();
    tokio::task::spawn_blocking(move || {
        publish_in_transaction(&brokers, TOPIC, 0, &["0:0", "0:1"], true).unwrap();
        publish_in_transaction(&brokers, TOPIC, 0, &["never", "happened"], false).unwrap();
        publish_in_transaction(&brokers, TOPIC, 1, &["never"], false).unwrap();
    })
    .await
    .unwrap();
    // Partition 0: two records, the commit, two aborted records, the abort. Partition 1: nothing to read at all.
    let ends = broker.bus().watermarks(TOPIC).await.unwrap().ends();
    assert_eq!((ends[&0], ends[&1]), (6, 2));
    let (reached, seen) = read(&broker, BTreeMap::new(), ends.clone()).await.unwrap();
    assert_eq!(seen, expected(&[(0, 0..2)]));
    assert_eq!(reached, ends);
}
