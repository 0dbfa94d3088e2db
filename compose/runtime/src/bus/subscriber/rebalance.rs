//! What the rebalance callback and the polling loop share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use marquee_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::{Handler, Start};
use crate::bus::{BusError, admin};

/// One attempt to ask a broker that may be away; short, because a stop request waits for it.
const ATTEMPT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// The handler is shared between the polling loop and the rebalance callback. Both run on the same thread, and the
/// loop never holds the lock while it polls, so the lock is never contended.
pub(super) struct Shared<H: Handler> {
    handler: Mutex<H>,
    topics: Vec<Topic>,
    failure: Mutex<Option<BusError>>,
    revoked: Mutex<Vec<(Topic, i32)>>,
    next: Mutex<BTreeMap<(Topic, i32), i64>>,
    token: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: Handler> Shared<H> {
    pub(super) fn new(handler: H, topics: &[Topic], token: &CancellationToken) -> Self {
        Self {
            handler: Mutex::new(handler),
            topics: topics.to_vec(),
            failure: Mutex::new(None),
            revoked: Mutex::new(Vec::new()),
            next: Mutex::new(BTreeMap::new()),
            token: token.clone(),
        }
    }

    pub(super) fn into_handler(self) -> H {
        self.handler.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handler(&self) -> MutexGuard<'_, H> {
        lock(&self.handler)
    }

    fn fail(&self, error: BusError) {
        lock(&self.failure).get_or_insert(error);
    }

    /// The first failure inside a rebalance, once.
    pub(super) fn failure(&self) -> Option<BusError> {
        lock(&self.failure).take()
    }

    /// The partitions revoked since the last call.
    pub(super) fn take_revoked(&self) -> Vec<(Topic, i32)> {
        std::mem::take(&mut *lock(&self.revoked))
    }

    /// Whether the record is the next one of its partition or a later one. A broker answers with whole batches, and
    /// what lies in a batch before the offset asked for is not always passed over on the way.
    pub(super) fn is_due(&self, topic: Topic, partition: i32, offset: i64) -> bool {
        let mut next = lock(&self.next);
        let next = next.entry((topic, partition)).or_insert(offset);
        let due = offset >= *next;
        if due {
            *next = offset + 1;
        }
        due
    }

    pub(super) fn topic(&self, name: &str) -> Option<Topic> {
        self.topics.iter().copied().find(|topic| topic.name() == name)
    }

    /// Asks until the broker answers, or until the subscriber is told to stop.
    fn insist<T>(&self, mut ask: impl FnMut() -> Result<T, BusError>) -> Result<T, BusError> {
        let mut complained = false;
        loop {
            match ask() {
                Err(error) if error.is_transient() && !self.token.is_cancelled() => {
                    if !complained {
                        tracing::warn!(%error, "waiting for the broker");
                        complained = true;
                    }
                    std::thread::sleep(PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    /// The partitions of `topic`.
    pub(super) fn partitions<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        topic: Topic,
    ) -> Result<Vec<i32>, BusError> {
        self.insist(|| admin::partitions(consumer, topic, ATTEMPT))
    }

    /// The list of offsets to begin at, each checked against the log's bounds: a broker need not complain about an
    /// offset beyond its end.
    pub(super) fn positions<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        topic: Topic,
        partitions: &[i32],
        list: &mut TopicPartitionList,
    ) -> Result<(), BusError> {
        let starts = self
            .handler()
            .assigned(topic, partitions)
            .map_err(|e| BusError::Handler(Box::new(e)))?;
        for &partition in partitions {
            let (low, high) = self.insist(|| admin::bounds(consumer, topic, partition, ATTEMPT))?;
            let offset = match starts.get(&partition).copied().unwrap_or(Start::Earliest) {
                Start::Earliest => low,
                Start::Latest => high,
                Start::At(offset) if offset > high => {
                    return Err(BusError::CheckpointBeyondEnd {
                        topic: topic.to_string(),
                        partition,
                        offset,
                        high,
                    });
                }
                Start::At(offset) if offset < low => {
                    return Err(BusError::Truncated {
                        topic: topic.to_string(),
                        partition,
                        offset,
                        low,
                    });
                }
                Start::At(offset) => offset,
            };
            tracing::debug!(kafka.topic = %topic, kafka.partition = partition, kafka.offset = offset, "starting");
            lock(&self.next).insert((topic, partition), offset);
            list.add_partition_offset(topic.name(), partition, Offset::Offset(offset))
                .map_err(|e| BusError::from_kafka("naming an offset", e))?;
        }
        Ok(())
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Context<H>>,
        by_topic: &BTreeMap<Topic, Vec<i32>>,
    ) -> Result<(), BusError> {
        let mut positions = TopicPartitionList::new();
        for (&topic, partitions) in by_topic {
            self.positions(consumer, topic, partitions, &mut positions)?;
        }
        consumer
            .assign(&positions)
            .map_err(|e| BusError::from_kafka("assigning partitions", e))
    }

    fn revoke(&self, by_topic: &BTreeMap<Topic, Vec<i32>>) {
        for (&topic, partitions) in by_topic {
            self.handler().revoked(topic, partitions);
            lock(&self.revoked).extend(partitions.iter().map(|&partition| (topic, partition)));
        }
    }
}

pub(super) struct Context<H: Handler>(pub(super) Arc<Shared<H>>);

impl<H: Handler> ClientContext for Context<H> {}

impl<H: Handler> ConsumerContext for Context<H> {
    /// Replaces the default reaction: the offsets to begin at come from the handler's state, not from the group.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut by_topic: BTreeMap<Topic, Vec<i32>> = BTreeMap::new();
        for element in list.elements() {
            if let Some(topic) = self.0.topic(element.topic()) {
                by_topic.entry(topic).or_default().push(element.partition());
            }
        }
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            match self.0.assign(consumer, &by_topic) {
                Ok(()) => return,
                Err(error) => self.0.fail(error),
            }
        } else {
            self.0.revoke(&by_topic);
        }
        // librdkafka waits for an answer to every rebalance, also to one that failed: without it closing the
        // consumer would never end.
        if let Err(error) = consumer.unassign() {
            self.0.fail(BusError::from_kafka("giving partitions back", error));
        }
    }
}
