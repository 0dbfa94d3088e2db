//! Offsets committed for the eyes of others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use marquee_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::RawRecord;

/// The group's committed offsets help lag monitors. Nothing resumes from them, so they are sent at leisure and a
/// failure to send them is not one of the subscriber.
pub(super) struct CommitHints {
    enabled: bool,
    next: BTreeMap<(Topic, i32), i64>,
    last: Instant,
}

impl CommitHints {
    const EVERY: Duration = Duration::from_secs(1);

    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            next: BTreeMap::new(),
            last: Instant::now(),
        }
    }

    pub(super) fn note(&mut self, batch: &[RawRecord]) {
        if self.enabled {
            for record in batch {
                self.next
                    .insert((record.topic, record.partition), record.next_offset());
            }
        }
    }

    /// A partition went: its next owner may already be further, and a late hint of ours would turn it back.
    pub(super) fn forget(&mut self, partition: (Topic, i32)) {
        self.next.remove(&partition);
    }

    pub(super) fn commit_if_due<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        if self.next.is_empty() || self.last.elapsed() < Self::EVERY {
            return;
        }
        self.last = Instant::now();
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in std::mem::take(&mut self.next) {
            if let Err(error) = list.add_partition_offset(topic.name(), partition, Offset::Offset(offset)) {
                tracing::debug!(%error, "naming an offset to commit");
            }
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "committing the group's offsets");
        }
    }
}
