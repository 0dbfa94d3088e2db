//! A consumer group's committed offsets.

use marquee_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
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
