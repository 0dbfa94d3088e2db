//! The logs and the fetches in front of the engine's own storage.

use std::time::{Duration, SystemTime};

use rama::{Context, Service as _};
use tansu_sans_io::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use tansu_sans_io::fetch_request::{FetchPartition, FetchTopic};
use tansu_sans_io::fetch_response::PartitionData;
use tansu_sans_io::record::{Record, deflated, inflated};
use tansu_sans_io::{ErrorCode, FetchRequest};
use tansu_storage::{Storage as _, StorageContainer, TopicId, Topition};

use super::fetch::Fetch;
use super::storage::Records;

const TOPIC: &str = "t";
/// Longer than any of these tests may take: whoever waits for it hangs visibly.
const FOREVER: Duration = Duration::from_secs(60);

struct Log {
    storage: Records<StorageContainer>,
    _folder: tempfile::TempDir,
}

async fn log() -> Log {
    let folder = tempfile::tempdir().unwrap();
    let inner = super::open(([127, 0, 0, 1], 9092).into(), &folder.path().join("log.db"))
        .await
        .unwrap();
    let storage = Records::open(inner, &folder.path().join("log")).await.unwrap();
    create(&storage).await;
    Log {
        storage,
        _folder: folder,
    }
}

async fn create(storage: &Records<StorageContainer>) {
    storage
        .create_topic(
            CreatableTopic::default()
                .name(TOPIC.into())
                .num_partitions(2)
                .replication_factor(1)
                .assignments(Some([].into()))
                .configs(Some([].into())),
            false,
        )
        .await
        .unwrap();
}

fn topition(partition: i32) -> Topition {
    Topition::new(TOPIC, partition)
}

/// `records` records numbered from `first`, of `bytes` bytes each.
fn batch(first: usize, records: usize, bytes: usize) -> deflated::Batch {
    let mut builder = inflated::Batch::builder()
        .base_timestamp(1_000)
        .producer_id(-1)
        .producer_epoch(-1)
        .base_sequence(-1)
        .last_offset_delta(i32::try_from(records).unwrap() - 1);
    for n in 0..records {
        let mut value = format!("{}/", first + n).into_bytes();
        value.resize(value.len().max(bytes), b'.');
        builder = builder.record(
            Record::builder()
                .offset_delta(i32::try_from(n).unwrap())
                .key(Some("k".into()))
                .value(Some(value.into())),
        );
    }
    builder.build().and_then(TryInto::try_into).unwrap()
}

/// Offsets and numbers of the records in `batches`.
fn contents(batches: Vec<deflated::Batch>) -> Vec<(i64, usize)> {
    let mut contents = Vec::new();
    for batch in batches {
        let base = batch.base_offset;
        for record in Vec::<Record>::try_from(batch).unwrap() {
            let value = record.value.clone().unwrap();
            let text = std::str::from_utf8(&value).unwrap();
            let number = text.split('/').next().unwrap().parse().unwrap();
            contents.push((base + i64::from(record.offset_delta), number));
        }
    }
    contents
}

fn request(partition: i32, offset: i64, wait: Duration) -> FetchRequest {
    FetchRequest::default()
        .max_wait_ms(i32::try_from(wait.as_millis()).unwrap())
        .min_bytes(1)
        .max_bytes(Some(1 << 20))
        .topics(Some(
            [FetchTopic::default().topic(Some(TOPIC.into())).partitions(Some(
                [FetchPartition::default()
                    .partition(partition)
                    .fetch_offset(offset)
                    .partition_max_bytes(1 << 20)]
                .into(),
            ))]
            .into(),
        ))
}

async fn ask(storage: &Records<StorageContainer>, request: FetchRequest) -> PartitionData {
    let answer = Fetch::new(storage.clone())
        .serve(Context::default(), request)
        .await
        .unwrap();
    answer.responses.unwrap().remove(0).partitions.unwrap().remove(0)
}

fn records(answer: PartitionData) -> Vec<(i64, usize)> {
    assert_eq!(answer.error_code, i16::from(ErrorCode::None));
    answer
        .records
        .map_or_else(Vec::new, |frame| contents(frame.batches))
}

/// Reads from `offset` to the end as a consumer does: each answer says where the next request begins.
async fn read_on(storage: &Records<StorageContainer>, mut offset: i64) -> Vec<(i64, usize)> {
    let mut all = Vec::new();
    loop {
        let some = records(ask(storage, request(0, offset, Duration::ZERO)).await);
        let Some(&(last, _)) = some.last() else { return all };
        // A batch may begin before the offset asked for; clients pass over that part.
        all.extend(some.into_iter().filter(|&(at, _)| at >= offset));
        offset = last + 1;
    }
}

#[tokio::test]
async fn every_offset_reads_on_without_a_gap() {
    let Log { storage, _folder } = log().await;
    let mut written = 0;
    for (n, size) in [1, 7, 3, 40, 2, 1, 60, 11, 5, 64, 1, 1, 30]
        .into_iter()
        .enumerate()
    {
        let base = storage
            .produce(None, &topition(0), batch(written, size, 16_000))
            .await
            .unwrap();
        assert_eq!(base, i64::try_from(written).unwrap(), "batch {n}");
        written += size;
    }
    let all: Vec<(i64, usize)> = (0..written).map(|n| (i64::try_from(n).unwrap(), n)).collect();
    for from in (0..=written).step_by(5) {
        assert_eq!(
            read_on(&storage, i64::try_from(from).unwrap()).await,
            all[from..],
            "from {from}"
        );
    }
}

#[tokio::test]
async fn a_waiting_fetch_ends_with_the_next_append() {
    let Log { storage, _folder } = log().await;
    let waiting = tokio::spawn({
        let storage = storage.clone();
        async move { records(ask(&storage, request(1, 0, FOREVER)).await) }
    });
    // Another partition's records do not end it, but must not lose the wake-up either.
    for n in 0..20 {
        storage.produce(None, &topition(0), batch(n, 1, 1)).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    storage.produce(None, &topition(1), batch(0, 3, 1)).await.unwrap();
    let got = tokio::time::timeout(FOREVER / 2, waiting).await.unwrap().unwrap();
    assert_eq!(got, [(0, 0), (1, 1), (2, 2)]);
}

#[tokio::test]
async fn a_fetch_that_wants_much_ends_with_enough_or_with_its_time() {
    let Log { storage, _folder } = log().await;
    let much = |wait| request(0, 0, wait).min_bytes(50_000);
    storage.produce(None, &topition(0), batch(0, 1, 1)).await.unwrap();
    let at_its_end = ask(&storage, much(Duration::from_millis(1))).await;
    assert_eq!(records(at_its_end), [(0, 0)], "its time is over");
    let waiting = tokio::spawn({
        let storage = storage.clone();
        async move { records(ask(&storage, much(FOREVER)).await).len() }
    });
    for n in 1..20 {
        storage.produce(None, &topition(0), batch(n, 1, 1)).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    storage
        .produce(None, &topition(0), batch(20, 5, 16_000))
        .await
        .unwrap();
    let got = tokio::time::timeout(FOREVER / 2, waiting).await.unwrap().unwrap();
    assert_eq!(got, 25);
}

#[tokio::test]
async fn offsets_and_topics_that_do_not_exist_are_named() {
    let Log { storage, _folder } = log().await;
    storage.produce(None, &topition(0), batch(0, 2, 1)).await.unwrap();
    let code = |answer: PartitionData| ErrorCode::try_from(answer.error_code).unwrap();
    assert_eq!(
        code(ask(&storage, request(0, 3, FOREVER)).await),
        ErrorCode::OffsetOutOfRange
    );
    assert_eq!(
        code(ask(&storage, request(0, -1, FOREVER)).await),
        ErrorCode::OffsetOutOfRange
    );
    assert_eq!(
        code(ask(&storage, request(9, 0, FOREVER)).await),
        ErrorCode::UnknownTopicOrPartition
    );
    let mut elsewhere = request(0, 0, FOREVER);
    elsewhere.topics.as_mut().unwrap()[0].topic = Some("nowhere".into());
    assert_eq!(
        code(ask(&storage, elsewhere).await),
        ErrorCode::UnknownTopicOrPartition
    );
    assert!(records(ask(&storage, request(0, 2, Duration::from_millis(1))).await).is_empty());
}

#[tokio::test]
async fn what_was_deleted_is_forgotten() {
    let Log { storage, _folder } = log().await;
    storage.produce(None, &topition(0), batch(0, 5, 1)).await.unwrap();
    assert_eq!(read_on(&storage, 0).await.len(), 5);
    storage.delete_topic(&TopicId::from(TOPIC)).await.unwrap();
    assert!(storage.ends(&topition(0)).is_err());
    create(&storage).await;
    assert!(read_on(&storage, 0).await.is_empty());
    storage.produce(None, &topition(0), batch(7, 1, 1)).await.unwrap();
    assert_eq!(read_on(&storage, 0).await, [(0, 7)]);
}

#[tokio::test]
async fn a_refused_append_leaves_no_trace_and_transactions_are_refused() {
    let Log { storage, _folder } = log().await;
    storage.produce(None, &topition(0), batch(0, 2, 1)).await.unwrap();
    let mut torn = batch(2, 2, 1);
    torn.crc ^= 1;
    assert!(storage.produce(None, &topition(0), torn).await.is_err());
    assert!(
        storage
            .produce(Some("transaction"), &topition(0), batch(2, 2, 1))
            .await
            .is_err()
    );
    let producer = storage
        .init_producer(Some("transaction"), 1_000, Some(-1), Some(-1))
        .await
        .unwrap();
    assert_eq!(producer.error, ErrorCode::TransactionalIdAuthorizationFailed);
    storage.produce(None, &topition(0), batch(2, 2, 1)).await.unwrap();
    assert_eq!(read_on(&storage, 0).await, [(0, 0), (1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn a_batch_above_what_its_topic_takes_is_refused_by_name() {
    let Log { storage, _folder } = log().await;
    let of = |topic: &str, limit: &str| {
        CreatableTopic::default()
            .name(topic.into())
            .num_partitions(1)
            .replication_factor(1)
            .assignments(Some([].into()))
            .configs(Some(vec![
                CreatableTopicConfig::default()
                    .name("max.message.bytes".into())
                    .value(Some(limit.into())),
            ]))
    };
    storage.create_topic(of("small", "20000"), false).await.unwrap();
    let small = Topition::new("small", 0);
    let too_large = |outcome: Result<i64, tansu_storage::Error>| {
        matches!(
            outcome,
            Err(tansu_storage::Error::Api(ErrorCode::MessageTooLarge))
        )
    };
    storage.produce(None, &small, batch(0, 1, 19_000)).await.unwrap();
    assert!(too_large(
        storage.produce(None, &small, batch(1, 1, 20_000)).await
    ));
    // Who has not said how much takes as much as Kafka does.
    storage
        .produce(None, &topition(0), batch(0, 1, 1_000_000))
        .await
        .unwrap();
    assert!(too_large(
        storage.produce(None, &topition(0), batch(1, 1, 1_100_000)).await
    ));
    assert_eq!(storage.ends(&small).unwrap().end, 1);
    assert_eq!(storage.ends(&topition(0)).unwrap().end, 1);
}

#[tokio::test]
async fn a_topic_is_no_path() {
    let Log { storage, _folder } = log().await;
    for name in ["", ".", "..", "../t", "a/b", "a b"] {
        let topic = CreatableTopic::default().name(name.into()).num_partitions(1);
        assert!(storage.create_topic(topic, false).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_restart_finds_every_record_and_removes_logs_without_a_topic() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let inner = super::open(([127, 0, 0, 1], 9092).into(), &folder.path().join("log.db"))
            .await
            .unwrap();
        Records::open(inner, &folder.path().join("log")).await.unwrap()
    };
    let storage = open().await;
    create(&storage).await;
    storage.produce(None, &topition(0), batch(0, 5, 1)).await.unwrap();
    drop(storage);
    std::fs::create_dir(folder.path().join("log/forgotten-0")).unwrap();
    let storage = open().await;
    assert_eq!(read_on(&storage, 0).await.len(), 5);
    assert!(!folder.path().join("log/forgotten-0").exists());
    assert!(folder.path().join("log/t-0").exists());
}

#[tokio::test]
async fn maintenance_leaves_of_a_compacted_topic_what_is_newest() {
    let folder = tempfile::tempdir().unwrap();
    let inner = super::open(([127, 0, 0, 1], 9092).into(), &folder.path().join("log.db"))
        .await
        .unwrap();
    let storage = Records::with_segments_of(inner, &folder.path().join("log"), 4_000)
        .await
        .unwrap();
    let config = |name: &str, value: &str| {
        CreatableTopicConfig::default()
            .name(name.into())
            .value(Some(value.into()))
    };
    let topic = CreatableTopic::default()
        .name("compacted".into())
        .num_partitions(1)
        .replication_factor(1)
        .assignments(Some([].into()))
        .configs(Some(vec![
            config("cleanup.policy", "compact"),
            config("retention.ms", "1"),
        ]));
    storage.create_topic(topic, false).await.unwrap();
    let place = Topition::new("compacted", 0);
    // All have one key, and are older than the retention that was asked for.
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(3_600);
    for first in 0..10 {
        storage
            .produce(None, &place, batch(first, 1, 1_000))
            .await
            .unwrap();
        // Too little for a pass.
        if first == 1 {
            storage.maintain(later).await.unwrap();
            assert_eq!(contents(storage.read(&place, 0, 1 << 20).unwrap()).len(), 2);
        }
    }
    storage.maintain(later).await.unwrap();
    let mut kept = Vec::new();
    let mut offset = 0;
    while offset < storage.ends(&place).unwrap().end {
        let batches = storage.read(&place, offset, 1 << 20).unwrap();
        offset = batches.last().unwrap().max_offset() + 1;
        kept.extend(contents(batches));
    }
    // Four of a thousand bytes fill a segment; the last two are in the one that is written.
    assert_eq!(kept, [(7, 7), (8, 8), (9, 9)]);
}
