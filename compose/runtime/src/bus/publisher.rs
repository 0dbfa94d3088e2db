//! Sending records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::join_all;
use marquee_schemas::{Record, Topic, encode};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::util::Timeout;

use super::{Bus, BusError};
use crate::priority::Priority;

/// How long one wait for acknowledgements lasts, and with it the longest that a dropped publisher's thread lives on.
/// The client spins through the last millisecond of each wait: with its own threads, which wait for a tenth of a second,
/// a process with ten idle publishers is never idle.
const POLL: Duration = Duration::from_secs(1);

/// A record in bytes, ready to be sent. `value: None` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub topic: Topic,
    /// A fixed partition, or by key.
    pub partition: Option<i32>,
    /// Key.
    pub key: Vec<u8>,
    /// Value, or a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Outgoing {
    /// The bytes of a typed record, partitioned by its key.
    pub fn of<T: Record>(record: &T) -> Self {
        Self {
            topic: T::TOPIC,
            partition: None,
            key: record.key(),
            value: Some(encode(record)),
        }
    }
}

/// Sends records; idempotent, acknowledged by all replicas, in order per partition. Cheap to clone.
///
/// The queue is bounded ([`super::BusConfig::max_in_flight_records`]): [`Publisher::try_send`] refuses beyond it,
/// the other calls wait.
#[derive(Clone)]
pub struct Publisher(Arc<Polled>);

/// A producer whose acknowledgements a thread of its own takes in.
struct Polled {
    producer: Arc<BaseProducer<Acknowledge>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Where the broker has put a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Tells each record's sender what became of it.
struct Acknowledge;

impl ClientContext for Acknowledge {}

impl ProducerContext for Acknowledge {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Delivered, KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => Ok(Delivered {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        // Not everybody waits for it.
        drop(sender.send(outcome));
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// A record on its way; resolves when the broker has it.
pub struct Pending {
    topic: Topic,
    delivery: oneshot::Receiver<Result<Delivered, KafkaError>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Pending {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// The record did not arrive (as far as is known).
    pub async fn acknowledged(self) -> Result<Delivered, BusError> {
        match self.delivery.await {
            Ok(Ok(delivery)) => Ok(delivery),
            Ok(Err(error)) => Err(BusError::from_kafka(format!("sending to {}", self.topic), error)),
            Err(_) => Err(BusError::Fatal(
                "the publisher ended before the acknowledgement".into(),
            )),
        }
    }
}

impl Bus {
    /// A publisher; `client_id` names it in the broker's logs.
    ///
    /// # Errors
    /// [`BusError::Fatal`] for options that librdkafka refuses, or when its thread cannot be started.
    pub fn publisher(&self, client_id: &str) -> Result<Publisher, BusError> {
        self.publisher_at(client_id, Priority::Usual)
    }

    /// As [`Bus::publisher`], with threads of this priority, the client's own among them.
    ///
    /// # Errors
    /// As [`Bus::publisher`].
    pub fn publisher_at(&self, client_id: &str, priority: Priority) -> Result<Publisher, BusError> {
        let config = self.config().producer(client_id);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (sender, made) = std::sync::mpsc::sync_channel(1);
        let failed = |detail: String| BusError::Fatal(format!("starting a publisher's thread: {detail}"));
        std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || {
                // The client's own threads, started from here, inherit it.
                priority.take();
                let producer: Arc<BaseProducer<Acknowledge>> = match config.create_with_context(Acknowledge) {
                    Ok(producer) => Arc::new(producer),
                    Err(error) => return drop(sender.send(Err(error))),
                };
                if sender.send(Ok(Arc::clone(&producer))).is_ok() {
                    while !stopped.load(Ordering::Relaxed) {
                        producer.poll(POLL);
                    }
                }
            })
            .map_err(|error| failed(error.to_string()))?;
        let producer = made
            .recv()
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| BusError::from_kafka("creating a publisher", error))?;
        Ok(Publisher(Arc::new(Polled { producer, stop })))
    }
}

impl Publisher {
    /// Puts a record into the queue without waiting.
    ///
    /// # Errors
    /// [`BusError::QueueFull`] when the queue is, [`BusError::Refused`] for a record no broker takes.
    pub fn try_send(&self, outgoing: &Outgoing) -> Result<Pending, BusError> {
        let (acknowledge, delivery) = oneshot::channel();
        let mut record =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(outgoing.topic.name(), Box::new(acknowledge))
                .key(outgoing.key.as_slice());
        if let Some(value) = &outgoing.value {
            record = record.payload(value.as_slice());
        }
        if let Some(partition) = outgoing.partition {
            record = record.partition(partition);
        }
        match self.0.producer.send(record) {
            Ok(()) => Ok(Pending {
                topic: outgoing.topic,
                delivery,
            }),
            Err((error, _)) => Err(BusError::from_kafka(
                format!("sending to {}", outgoing.topic),
                error,
            )),
        }
    }

    /// Queues a record, waiting for room, and returns without waiting for the acknowledgement.
    ///
    /// # Errors
    /// As [`Publisher::try_send`], except for the full queue.
    pub async fn enqueue(&self, outgoing: &Outgoing) -> Result<Pending, BusError> {
        loop {
            match self.try_send(outgoing) {
                Err(BusError::QueueFull) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => return other,
            }
        }
    }

    /// Sends one typed record and waits for the acknowledgement.
    ///
    /// # Errors
    /// The record did not arrive.
    pub async fn publish<T: Record>(&self, record: &T) -> Result<Delivered, BusError> {
        self.enqueue(&Outgoing::of(record)).await?.acknowledged().await
    }

    /// Sends all records and waits for all acknowledgements.
    ///
    /// # Errors
    /// The first failure; records after it may have arrived.
    pub async fn publish_all(&self, records: &[Outgoing]) -> Result<(), BusError> {
        let mut pending = Vec::with_capacity(records.len());
        for record in records {
            pending.push(self.enqueue(record).await?.acknowledged());
        }
        for outcome in join_all(pending).await {
            outcome?;
        }
        Ok(())
    }

    /// [`Publisher::publish_all`] for code on a thread of its own; retries what is transient until `give_up` says
    /// otherwise. A retried batch may arrive twice: its records must be idempotent (compacted or carrying ids).
    ///
    /// # Errors
    /// A failure that no retry mends, or the last transient one once `give_up` returns true.
    pub fn publish_all_blocking(
        &self,
        records: &[Outgoing],
        give_up: impl Fn() -> bool,
    ) -> Result<(), BusError> {
        loop {
            match self.try_all_blocking(records) {
                Err(error) if error.is_transient() && !give_up() => {
                    tracing::warn!(%error, records = records.len(), "sending failed, trying again");
                    std::thread::sleep(Duration::from_millis(200));
                }
                outcome => return outcome,
            }
        }
    }

    fn try_all_blocking(&self, records: &[Outgoing]) -> Result<(), BusError> {
        let mut pending = Vec::with_capacity(records.len());
        for record in records {
            loop {
                match self.try_send(record) {
                    Err(BusError::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
                    Err(error) => return Err(error),
                    Ok(sent) => {
                        pending.push(sent.acknowledged());
                        break;
                    }
                }
            }
        }
        for outcome in futures::executor::block_on(join_all(pending)) {
            outcome?;
        }
        Ok(())
    }

    /// Waits until everything queued has been acknowledged or has failed.
    ///
    /// # Errors
    /// [`BusError::Transient`] if the queue is not empty after `patience`.
    pub fn flush_blocking(&self, patience: Duration) -> Result<(), BusError> {
        self.0
            .producer
            .flush(Timeout::After(patience))
            .map_err(|e| match e {
                KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => BusError::Transient {
                    context: format!("flushing within {patience:?}"),
                    source: e,
                },
                other => BusError::from_kafka("flushing", other),
            })
    }
}
