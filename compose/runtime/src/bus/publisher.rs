//! Sending records.

use std::time::Duration;

use futures::future::join_all;
use marquee_schemas::{Record, Topic, encode};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

use super::{Bus, BusError};

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
pub struct Publisher {
    producer: FutureProducer,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// A record on its way; resolves when the broker has it.
pub struct Pending {
    topic: Topic,
    delivery: DeliveryFuture,
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
    pub async fn acknowledged(self) -> Result<Delivery, BusError> {
        match self.delivery.await {
            Ok(Ok(delivery)) => Ok(delivery),
            Ok(Err((error, _))) => Err(BusError::from_kafka(format!("sending to {}", self.topic), error)),
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
    /// [`BusError::Fatal`] for options that librdkafka refuses.
    pub fn publisher(&self, client_id: &str) -> Result<Publisher, BusError> {
        let producer = self
            .config()
            .producer(client_id)
            .create()
            .map_err(|e| BusError::from_kafka("creating a publisher", e))?;
        Ok(Publisher { producer })
    }
}

impl Publisher {
    /// Puts a record into the queue without waiting.
    ///
    /// # Errors
    /// [`BusError::QueueFull`] when the queue is, [`BusError::Refused`] for a record no broker takes.
    pub fn try_send(&self, outgoing: &Outgoing) -> Result<Pending, BusError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(outgoing.topic.name()).key(outgoing.key.as_slice());
        if let Some(value) = &outgoing.value {
            record = record.payload(value.as_slice());
        }
        if let Some(partition) = outgoing.partition {
            record = record.partition(partition);
        }
        match self.producer.send_result(record) {
            Ok(delivery) => Ok(Pending {
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
    pub async fn publish<T: Record>(&self, record: &T) -> Result<Delivery, BusError> {
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
        self.producer
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
