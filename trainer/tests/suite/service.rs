//! The service over a Kafka protocol endpoint.

use marquee_runtime::ManualClock;
use marquee_runtime::bus::Outgoing;
use marquee_schemas::{ModelEventKind, Offset, PartitionOffset, Topic};
use marquee_trainer::snapshot::SnapshotReader;
use marquee_trainer::{Bundle, manual_retrain_event, registry};

use crate::stage::stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_retrain_event_becomes_a_champion_and_a_restart_does_not_repeat_it() {
    let stage = stage();
    stage.publish_movies().await;
    stage.publish_ratings(0, 900).await;
    let clock = ManualClock::at(7);
    stage
        .publish(vec![Outgoing::of(&manual_retrain_event("first", &clock))])
        .await;
    let (service, token) = stage.start();
    let events = stage.events(|events| events.len() >= 2).await;
    assert_eq!(events[0].kind, ModelEventKind::Trained);
    assert_eq!(events[1].kind, ModelEventKind::Promoted);
    let bundle = Bundle::of_event(&events[1], &stage.config().registry_dir)
        .unwrap()
        .unwrap();
    assert_eq!(bundle.manifest.counts.interactions, 900);
    assert_eq!(bundle.movies.len(), 100);
    let named: i64 = events[1]
        .offsets
        .iter()
        .filter(|at| at.topic == "interactions")
        .map(|at| at.offset.0)
        .sum();
    assert_eq!(named, 900);
    token.cancel();
    service.await.unwrap().unwrap();

    // A second start goes on behind the event; the next one is answered on the new data too.
    let (service, token) = stage.start();
    stage.publish_ratings(900, 1500).await;
    stage
        .publish(vec![Outgoing::of(&manual_retrain_event("second", &clock))])
        .await;
    let events = stage.events(|events| events.len() >= 4).await;
    assert_eq!(events.len(), 4);
    assert_eq!(events[2].event_id, "v000002/trained");
    assert!(
        events[3].numbers.contains_key("champion_ndcg@10"),
        "{:#?}",
        events[3]
    );
    token.cancel();
    service.await.unwrap().unwrap();
    let entries = registry::list(&stage.config().registry_dir).unwrap();
    assert_eq!(entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_new_champion_is_exported_by_itself() {
    let stage = stage();
    stage.publish_movies().await;
    stage.publish_ratings(0, 900).await;
    let clock = ManualClock::at(7);
    stage
        .publish(vec![Outgoing::of(&manual_retrain_event("first", &clock))])
        .await;
    let config = marquee_trainer::Config {
        exports_dir: stage.config().cache_dir.with_file_name("exports"),
        ..stage.config()
    };
    let folder = config.exports_dir.join("v000001");
    let (service, token) = stage.start_with(config);
    tokio::task::block_in_place(|| {
        marquee_testkit::eventually(
            "the export is complete",
            std::time::Duration::from_secs(60),
            || folder.join("export.json").is_file().then_some(()),
        );
    });
    let csv = std::fs::read_to_string(folder.join("top10_recommendations_with_titles.csv")).unwrap();
    // A head, and ten movies for each of thirty users.
    assert_eq!(csv.lines().count(), 301);
    token.cancel();
    service.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_offsets_give_the_same_snapshot_with_and_without_the_cache() {
    let stage = stage();
    stage.publish_movies().await;
    stage.publish_ratings(0, 400).await;
    let first = stage.snapshot(Vec::new()).await;
    assert_eq!(first.counts.interactions, 400);
    // Duplicates, poison and new records follow; the tail alone is read.
    stage.publish_ratings(350, 600).await;
    stage
        .publish(vec![Outgoing {
            topic: Topic::Interactions,
            partition: Some(0),
            key: b"1".to_vec(),
            value: Some(b"{oops".to_vec()),
        }])
        .await;
    let grown = stage.snapshot(Vec::new()).await;
    assert_eq!(
        (
            grown.counts.interactions,
            grown.counts.duplicates,
            grown.counts.invalid,
            grown.counts.records
        ),
        (600, 50, 1, 651)
    );
    // Named offsets below the cached end give the old snapshot back.
    assert_eq!(stage.snapshot(first.offsets.clone()).await, first);
    // So do those before an erasure, which takes everything of its user away.
    let user = grown.users[0];
    stage
        .publish(vec![Outgoing {
            topic: Topic::Interactions,
            partition: None,
            key: user.to_string().into_bytes(),
            value: None,
        }])
        .await;
    let less = stage.snapshot(Vec::new()).await;
    assert_eq!(less.users, grown.users[1..]);
    assert_eq!((less.counts.erasures, less.counts.records), (1, 652));
    assert_eq!(less.counts.interactions + less.counts.erased, 600);
    assert_eq!(stage.snapshot(less.offsets.clone()).await, less);
    std::fs::remove_dir_all(stage.config().cache_dir).unwrap();
    for known in [&grown, &less, &grown] {
        assert_eq!(stage.snapshot(known.offsets.clone()).await, *known);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_another_log_is_recognised_and_dropped() {
    let stage = stage();
    stage.publish_movies().await;
    stage.publish_ratings(0, 300).await;
    stage.snapshot(Vec::new()).await;
    let other = crate::stage::stage();
    other.publish_movies().await;
    other.publish_ratings(1000, 1400).await;
    let reader = SnapshotReader::new(other.bus.clone(), stage.config().cache_dir);
    let with_wrong_cache = tokio::task::spawn_blocking(move || {
        let offsets = reader.pin(&[]).unwrap();
        reader.read(&offsets, || false).unwrap()
    })
    .await
    .unwrap();
    assert_eq!(with_wrong_cache, other.snapshot(Vec::new()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_beyond_the_log_fail_that_training_only() {
    let stage = stage();
    stage.publish_movies().await;
    stage.publish_ratings(0, 900).await;
    let clock = ManualClock::at(7);
    let mut beyond = manual_retrain_event("beyond", &clock);
    beyond.offsets.push(PartitionOffset {
        topic: "interactions".into(),
        partition: 0,
        offset: Offset(1_000_000),
    });
    stage.publish(vec![Outgoing::of(&beyond)]).await;
    let (service, token) = stage.start();
    let events = stage.events(|events| !events.is_empty()).await;
    assert_eq!(events[0].kind, ModelEventKind::Failed);
    stage
        .publish(vec![Outgoing::of(&manual_retrain_event("sound", &clock))])
        .await;
    let events = stage.events(|events| events.len() >= 3).await;
    assert_eq!(events[2].kind, ModelEventKind::Promoted);
    token.cancel();
    service.await.unwrap().unwrap();
}
