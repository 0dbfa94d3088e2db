//! What other Kafka clients may do to the log and to groups, and ours never does.

use std::time::Duration;

use marquee_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Commits an offset for a group that has no members at the moment.
///
/// # Errors
/// The broker's answer.
pub fn commit_group_offset(
    brokers: &str,
    group: &str,
    topic: Topic,
    partition: i32,
    offset: i64,
) -> Result<(), KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.name(), partition, Offset::Offset(offset))?;
    consumer.assign(&list)?;
    consumer.commit(&list, CommitMode::Sync)
}

/// Sends records to one partition in a transaction, and commits or aborts it: either way its end takes up an offset
/// that holds no record. The embedded broker has no transactions.
///
/// # Errors
/// The broker's answer.
pub fn publish_in_transaction(
    brokers: &str,
    topic: Topic,
    partition: i32,
    values: &[&str],
    commit: bool,
) -> Result<(), KafkaError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", "marquee-tests")
        .create()?;
    producer.init_transactions(PATIENCE)?;
    producer.begin_transaction()?;
    for value in values {
        producer
            .send(
                BaseRecord::<str, str>::to(topic.name())
                    .partition(partition)
                    .key("k")
                    .payload(value),
            )
            .map_err(|(error, _)| error)?;
    }
    if commit {
        producer.commit_transaction(PATIENCE)
    } else {
        // Aborting would take back what was not sent yet.
        producer.flush(PATIENCE)?;
        producer.abort_transaction(PATIENCE)
    }
}
