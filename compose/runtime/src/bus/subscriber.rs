//! Consuming topics with checkpoints that belong to the handler.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use marquee_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::{Bus, BusError, admin};

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
    /// rebalance.
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
    /// The most records of one [`Handler::handle`] call. Batches grow with the backlog up to this.
    pub max_batch: usize,
    /// The longest wait for further records once a batch has its first one; zero takes what is there.
    pub max_batch_wait: Duration,
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

/// The handler is shared between the polling loop and the rebalance callback. Both run on the same thread, and the
/// loop never holds the lock while it polls, so the lock is never contended.
struct Shared<H: Handler> {
    handler: Mutex<H>,
    topics: Vec<Topic>,
    failure: Mutex<Option<BusError>>,
}

impl<H: Handler> Shared<H> {
    fn handler(&self) -> MutexGuard<'_, H> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: BusError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }

    fn failure(&self) -> Option<BusError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        self.topics.iter().copied().find(|topic| topic.name() == name)
    }

    /// The list of offsets to begin at, each checked against the log's bounds: a broker need not complain about an
    /// offset beyond its end.
    fn positions<C: ConsumerContext>(
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
            let (low, high) = consumer
                .fetch_watermarks(topic.name(), partition, admin::ASK)
                .map_err(|e| {
                    BusError::from_kafka(format!("asking for the bounds of {topic}/{partition}"), e)
                })?;
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
            list.add_partition_offset(topic.name(), partition, Offset::Offset(offset))
                .map_err(|e| BusError::from_kafka("naming an offset", e))?;
        }
        Ok(())
    }
}

struct Context<H: Handler>(Arc<Shared<H>>);

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
        let outcome = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let mut positions = TopicPartitionList::new();
                by_topic
                    .iter()
                    .try_for_each(|(&topic, partitions)| {
                        self.0.positions(consumer, topic, partitions, &mut positions)
                    })
                    .and_then(|()| {
                        consumer
                            .assign(&positions)
                            .map_err(|e| BusError::from_kafka("assigning partitions", e))
                    })
            }
            _ => {
                for (&topic, partitions) in &by_topic {
                    self.0.handler().revoked(topic, partitions);
                }
                consumer
                    .unassign()
                    .map_err(|e| BusError::from_kafka("giving partitions back", e))
            }
        };
        if let Err(error) = outcome {
            self.0.fail(error);
        }
    }
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
        let shared = Arc::new(Shared {
            handler: Mutex::new(handler),
            topics: self.topics.clone(),
            failure: Mutex::new(None),
        });
        let outcome = self.poll_until_cancelled(&shared, token);
        outcome?;
        let shared = Arc::into_inner(shared)
            .ok_or_else(|| BusError::Fatal("the consumer outlived its subscriber".into()))?;
        Ok(shared
            .handler
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
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
            .consumer(&self.config.client_id, group)
            .create_with_context(Context(Arc::clone(shared)))
            .map_err(|e| BusError::from_kafka("creating a subscriber", e))?;
        if group.is_some() {
            let names: Vec<&str> = self.topics.iter().map(|topic| topic.name()).collect();
            consumer
                .subscribe(&names)
                .map_err(|e| BusError::from_kafka("subscribing", e))?;
        } else {
            self.assign_all(&consumer, shared)?;
        }
        let mut hints = CommitHints::new(group.is_some());
        while !token.is_cancelled() {
            if let Some(failure) = shared.failure() {
                return Err(failure);
            }
            let batch = self.next_batch(&consumer, shared)?;
            let mut handler = shared.handler();
            if batch.is_empty() {
                handler.tick().map_err(|e| BusError::Handler(Box::new(e)))?;
                continue;
            }
            hints.note(&batch);
            handler
                .handle(batch)
                .map_err(|e| BusError::Handler(Box::new(e)))?;
            handler.tick().map_err(|e| BusError::Handler(Box::new(e)))?;
            drop(handler);
            hints.commit_if_due(&consumer);
        }
        if group.is_some() {
            // Leaves the group at once; the last rebalance runs inside and closes the partitions' state.
            consumer.unsubscribe();
        }
        drop(consumer);
        shared.failure().map_or(Ok(()), Err)
    }

    fn assign_all<H: Handler>(
        &self,
        consumer: &BaseConsumer<Context<H>>,
        shared: &Shared<H>,
    ) -> Result<(), BusError> {
        let mut list = TopicPartitionList::new();
        for &topic in &self.topics {
            let partitions = admin::partitions(consumer, topic)?;
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
    ) -> Result<Vec<RawRecord>, BusError> {
        let mut batch = Vec::new();
        let mut wait = self.config.idle_every;
        let mut deadline = None;
        while batch.len() < self.config.max_batch {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    if let Some(topic) = shared.topic(message.topic()) {
                        batch.push(RawRecord::from_message(topic, &message));
                    }
                    let until = *deadline.get_or_insert_with(|| Instant::now() + self.config.max_batch_wait);
                    wait = until.saturating_duration_since(Instant::now());
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
        _ => {
            tracing::debug!(%error, "consuming");
            Ok(())
        }
    }
}

/// The group's committed offsets help lag monitors. Nothing resumes from them, so they are sent at leisure and a
/// failure to send them is not one of the subscriber.
struct CommitHints {
    enabled: bool,
    next: BTreeMap<(Topic, i32), i64>,
    last: Instant,
}

impl CommitHints {
    const EVERY: Duration = Duration::from_secs(1);

    fn new(enabled: bool) -> Self {
        Self {
            enabled,
            next: BTreeMap::new(),
            last: Instant::now(),
        }
    }

    fn note(&mut self, batch: &[RawRecord]) {
        if self.enabled {
            for record in batch {
                self.next
                    .insert((record.topic, record.partition), record.next_offset());
            }
        }
    }

    fn commit_if_due<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
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
