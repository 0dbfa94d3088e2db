//! Consuming topics with checkpoints that belong to the handler.

mod hints;
mod rebalance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use marquee_schemas::{Origin, Topic};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio_util::sync::CancellationToken;

use self::hints::CommitHints;
use self::rebalance::{Context, Shared};
use super::{Bus, BusError};
use crate::priority::Priority;

/// A batch also ends at this many bytes of keys and values, however few records they are.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A record as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Topic.
    pub topic: Topic,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The broker's or producer's record time, ms; -1 where unknown. Not the event time.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

impl RawRecord {
    pub(super) fn from_message(topic: Topic, message: &BorrowedMessage<'_>) -> Self {
        Self {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }

    /// What a dead letter says of it.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        Origin {
            topic: self.topic.name(),
            partition: self.partition,
            offset: self.offset,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }

    fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }

    /// Where to resume after this record.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.offset + 1
    }
}

/// Where a partition's reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record the log still has.
    Earliest,
    /// After the last record it has at the moment.
    Latest,
    /// At this offset: the *next* record to read, as the handler's own state says.
    At(i64),
}

/// What a service does with the records it reads. All calls come from one thread.
pub trait Handler: Send + 'static {
    /// The handler's error; it ends the subscriber.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Partitions now belong to this handler; for each, where to begin. Called inside the rebalance, before any of
    /// their records.
    ///
    /// # Errors
    /// The state of a partition cannot be opened.
    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Self::Error>;

    /// Partitions no longer belong to this handler; their state must be closed when this returns. Called inside the
    /// rebalance, of a group only. No record of theirs is handed over after it, even if it had already arrived.
    fn revoked(&mut self, _topic: Topic, _partitions: &[i32]) {}

    /// Takes records, in offset order within each partition. When it returns, their effect is durable.
    ///
    /// # Errors
    /// The effect could not be made durable; nothing is committed and the subscriber ends.
    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Self::Error>;

    /// Called when `idle_every` has passed without a record, and after each batch.
    ///
    /// # Errors
    /// As [`Handler::handle`].
    fn tick(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Which partitions a subscriber reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// A share of the partitions, divided among the members of the group.
    Group(String),
    /// Every partition, whoever else reads them.
    All,
}

/// How a subscriber reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriberConfig {
    /// Names the client in the broker's logs.
    pub client_id: String,
    /// Which partitions.
    pub subscription: Subscription,
    /// The most records of one [`Handler::handle`] call. Batches grow with the backlog up to this, or to 16 MiB.
    pub max_batch: usize,
    /// The longest wait for further records once a batch has its first one; zero takes what is there.
    pub max_batch_wait: Duration,
    /// How long the broker may gather records (up to a mebibyte) before it hands over the first one: fewer, larger
    /// answers, for who need not be the first to know. Zero: it does not wait.
    pub gather: Duration,
    /// Of the reading thread and the client's own.
    pub priority: Priority,
    /// How long to wait for a first record before [`Handler::tick`].
    pub idle_every: Duration,
}

impl SubscriberConfig {
    /// Usual settings.
    #[must_use]
    pub fn new(client_id: impl Into<String>, subscription: Subscription) -> Self {
        Self {
            client_id: client_id.into(),
            subscription,
            max_batch: 5_000,
            max_batch_wait: Duration::ZERO,
            gather: Duration::ZERO,
            priority: Priority::Usual,
            idle_every: Duration::from_millis(50),
        }
    }
}

/// Drives a [`Handler`] with the records of one or more topics.
#[derive(Debug)]
pub struct Subscriber {
    bus: Bus,
    topics: Vec<Topic>,
    config: SubscriberConfig,
}

impl Bus {
    /// A subscriber to `topics`.
    #[must_use]
    pub fn subscriber(&self, topics: &[Topic], config: SubscriberConfig) -> Subscriber {
        Subscriber {
            bus: self.clone(),
            topics: topics.to_vec(),
            config,
        }
    }
}

impl Subscriber {
    /// Reads until `token` is cancelled; gives the handler back at the end.
    ///
    /// # Errors
    /// The handler's error, or one of the bus that does not pass by itself. A broker that is away is waited for.
    pub async fn run<H: Handler>(self, handler: H, token: CancellationToken) -> Result<H, BusError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let name = self.config.client_id.clone();
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    self.run_blocking(handler, &token)
                }));
                // The receiver is gone only if the whole service was dropped.
                drop(sender.send(outcome));
            })
            .map_err(|e| BusError::Fatal(format!("starting the thread {name}: {e}")))?;
        match receiver.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(BusError::Fatal(format!("the thread {name} vanished"))),
        }
    }

    fn run_blocking<H: Handler>(self, handler: H, token: &CancellationToken) -> Result<H, BusError> {
        // The client's own threads, started from here, inherit it.
        self.config.priority.take();
        let shared = Arc::new(Shared::new(handler, &self.topics, token));
        self.poll_until_cancelled(&shared, token)?;
        Arc::into_inner(shared)
            .map(Shared::into_handler)
            .ok_or_else(|| BusError::Fatal("the consumer outlived its subscriber".into()))
    }

    fn poll_until_cancelled<H: Handler>(
        &self,
        shared: &Arc<Shared<H>>,
        token: &CancellationToken,
    ) -> Result<(), BusError> {
        let group = match &self.config.subscription {
            Subscription::Group(group) => Some(group.as_str()),
            Subscription::All => None,
        };
        let consumer: BaseConsumer<Context<H>> = self
            .bus
            .config()
            .consumer(&self.config.client_id, group, self.config.gather)
            .create_with_context(Context(Arc::clone(shared)))
            .map_err(|e| BusError::from_kafka("creating a subscriber", e))?;
        if group.is_some() {
            let names: Vec<&str> = self.topics.iter().map(|topic| topic.name()).collect();
            consumer
                .subscribe(&names)
                .map_err(|e| BusError::from_kafka("subscribing", e))?;
        } else {
            match self.assign_all(&consumer, shared) {
                // Told to stop while waiting for the broker.
                Err(error) if error.is_transient() && token.is_cancelled() => return Ok(()),
                outcome => outcome?,
            }
        }
        let mut hints = CommitHints::new(group.is_some());
        while !token.is_cancelled() {
            if let Some(failure) = shared.failure() {
                return Err(failure);
            }
            let batch = self.next_batch(&consumer, shared, &mut hints)?;
            let mut handler = shared.handler();
            if !batch.is_empty() {
                hints.note(&batch);
                handler
                    .handle(batch)
                    .map_err(|e| BusError::Handler(Box::new(e)))?;
            }
            handler.tick().map_err(|e| BusError::Handler(Box::new(e)))?;
            drop(handler);
            hints.commit_if_due(&consumer);
        }
        if group.is_some() {
            // Leaves the group at once; the last rebalance is served while the consumer closes.
            consumer.unsubscribe();
        }
        drop(consumer);
        match shared.failure() {
            // Nobody waits for the broker any longer.
            Some(failure) if failure.is_transient() => {
                tracing::debug!(error = %failure, "stopped while the broker was away");
                Ok(())
            }
            failure => failure.map_or(Ok(()), Err),
        }
    }

    fn assign_all<H: Handler>(
        &self,
        consumer: &BaseConsumer<Context<H>>,
        shared: &Shared<H>,
    ) -> Result<(), BusError> {
        let mut list = TopicPartitionList::new();
        for &topic in &self.topics {
            let partitions = shared.partitions(consumer, topic)?;
            shared.positions(consumer, topic, &partitions, &mut list)?;
        }
        consumer
            .assign(&list)
            .map_err(|e| BusError::from_kafka("assigning partitions", e))
    }

    /// Waits for a first record, then takes what has arrived since: the batch grows with the backlog, and a single
    /// record is not kept waiting.
    fn next_batch<H: Handler>(
        &self,
        consumer: &BaseConsumer<Context<H>>,
        shared: &Shared<H>,
        hints: &mut CommitHints,
    ) -> Result<Vec<RawRecord>, BusError> {
        let mut batch: Vec<RawRecord> = Vec::new();
        let mut bytes = 0;
        let mut wait = self.config.idle_every;
        let mut deadline = None;
        while batch.len() < self.config.max_batch && bytes < MAX_BATCH_BYTES {
            let polled = consumer.poll(wait);
            // A rebalance may have happened inside. What was gathered of a partition that went is no longer ours,
            // and will come again if the partition came back: its new start is the handler's checkpoint.
            for revoked in shared.take_revoked() {
                batch.retain(|record| (record.topic, record.partition) != revoked);
                hints.forget(revoked);
            }
            match polled {
                None => break,
                Some(Ok(message)) => {
                    if let Some(topic) = shared.topic(message.topic())
                        && shared.is_due(topic, message.partition(), message.offset())
                    {
                        let record = RawRecord::from_message(topic, &message);
                        bytes += record.bytes();
                        batch.push(record);
                    }
                    let until = *deadline.get_or_insert_with(|| Instant::now() + self.config.max_batch_wait);
                    // The client would spin through a fraction of its unit.
                    let left = until
                        .saturating_duration_since(Instant::now())
                        .as_micros()
                        .div_ceil(1_000);
                    wait = Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX));
                }
                Some(Err(error)) => {
                    judge(error)?;
                    break;
                }
            }
        }
        Ok(batch)
    }
}

/// Errors that librdkafka reports and mends by itself are logged; the others end the subscriber.
fn judge(error: KafkaError) -> Result<(), BusError> {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::Fatal,
        ) => Err(BusError::Fatal(format!("consuming: {error}"))),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::PollExceeded) => {
            tracing::warn!(%error, "consuming");
            Ok(())
        }
        _ => {
            tracing::debug!(%error, "consuming");
            Ok(())
        }
    }
}
