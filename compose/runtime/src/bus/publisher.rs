//! Sending records.

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::join_all;
use marquee_schemas::{Alert, Record, SchemaVersion, Severity, Topic, encode};
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
/// How long a new publisher's thread waits for an answer before the first record; a broker that is away costs it once.
const WARM_UP: Duration = Duration::from_millis(500);
/// How often who waits for acknowledgements asks whether to go on waiting ...
const SLICE: Duration = Duration::from_millis(100);
/// ... and how long it goes on when told to give up: a broker that is there has answered by then, and nothing need be
/// sent a second time.
const GRACE: Duration = Duration::from_secs(1);

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
                    warm_up(&producer);
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

/// Fetches a producer's id before the first record needs it. The client asks for one when it gets an answer about the
/// cluster, and else twice a second; the first answer comes over a connection that it then gives up, so that it is asked
/// again over the one that stays. Without a broker this does nothing.
fn warm_up(producer: &BaseProducer<Acknowledge>) {
    for _ in 0..2 {
        if let Err(error) = producer.client().fetch_metadata(None, WARM_UP) {
            tracing::debug!(%error, "a publisher begins without a broker");
            return;
        }
    }
}

/// A record that no broker takes as it is.
#[derive(Debug)]
pub struct Unsendable<'a> {
    /// The record.
    pub record: &'a Outgoing,
    /// Why not.
    pub error: BusError,
}

impl Unsendable<'_> {
    /// What a person should hear of it from `source`, which passes the record over.
    #[must_use]
    pub fn alert(&self, source: &str, now_ms: i64) -> Alert {
        let Outgoing {
            topic, key, value, ..
        } = self.record;
        let name: String = String::from_utf8_lossy(key).chars().take(100).collect();
        let bytes = value.as_ref().map_or(0, Vec::len);
        Alert {
            schema_version: SchemaVersion,
            alert_id: format!("{source}/record_refused/{topic}/{name}"),
            severity: Severity::Critical,
            source: source.to_owned(),
            condition: "record_refused".into(),
            message: format!(
                "the record {name} of {topic}, {bytes} bytes, is refused by the broker and was passed over: {}",
                self.error
            ),
            numbers: [("bytes".to_owned(), bytes as f64)].into(),
            at_ms: now_ms,
        }
    }
}

/// Whether to go on waiting.
struct Patience<F> {
    give_up: F,
    since: Option<Instant>,
}

impl<F: Fn() -> bool> Patience<F> {
    fn new(give_up: F) -> Self {
        Self { give_up, since: None }
    }

    fn is_over(&mut self) -> bool {
        (self.give_up)() && self.since.get_or_insert_with(Instant::now).elapsed() >= GRACE
    }

    /// Waits on this thread; `None` if patience ends first.
    fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
            if self.is_over() {
                return None;
            }
            std::thread::park_timeout(SLICE);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn gave_up(records: usize) -> BusError {
    BusError::Transient {
        context: format!("waiting for the broker to take {records} records"),
        source: KafkaError::MessageProduction(RDKafkaErrorCode::OperationTimedOut),
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
    /// A failure that no retry mends, or a transient one once `give_up` returns true, which is also asked while the
    /// broker does not answer.
    pub fn publish_all_blocking(
        &self,
        records: &[Outgoing],
        give_up: impl Fn() -> bool,
    ) -> Result<(), BusError> {
        match self.retrying(records, &give_up)?.into_iter().next() {
            Some(refused) => Err(refused.error),
            None => Ok(()),
        }
    }

    /// As [`Publisher::publish_all_blocking`], but a record that no broker takes does not keep the others from arriving:
    /// these are what is returned.
    ///
    /// # Errors
    /// As [`Publisher::publish_all_blocking`], refused records aside.
    pub fn publish_each_blocking<'a>(
        &self,
        records: &'a [Outgoing],
        give_up: impl Fn() -> bool,
    ) -> Result<Vec<Unsendable<'a>>, BusError> {
        let mut refused = self.retrying(records, &give_up)?;
        if refused.is_empty() || records.len() == 1 {
            return Ok(refused);
        }
        // A broker refuses whole batches: the others in one with a large record are taken when they come alone.
        let suspects = std::mem::take(&mut refused);
        for suspect in suspects {
            refused.extend(self.retrying(std::slice::from_ref(suspect.record), &give_up)?);
        }
        Ok(refused)
    }

    fn retrying<'a>(
        &self,
        records: &'a [Outgoing],
        give_up: &impl Fn() -> bool,
    ) -> Result<Vec<Unsendable<'a>>, BusError> {
        let mut patience = Patience::new(give_up);
        loop {
            match self.try_all_blocking(records, &mut patience) {
                Err(error) if error.is_transient() && !give_up() => {
                    tracing::warn!(%error, records = records.len(), "sending failed, trying again");
                    std::thread::sleep(Duration::from_millis(200));
                }
                outcome => return outcome,
            }
        }
    }

    fn try_all_blocking<'a>(
        &self,
        records: &'a [Outgoing],
        patience: &mut Patience<impl Fn() -> bool>,
    ) -> Result<Vec<Unsendable<'a>>, BusError> {
        let mut refused = Vec::new();
        let mut pending = Vec::with_capacity(records.len());
        for record in records {
            loop {
                match self.try_send(record) {
                    Err(BusError::QueueFull) if patience.is_over() => return Err(gave_up(records.len())),
                    Err(BusError::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
                    Err(error @ BusError::Refused { .. }) => {
                        refused.push(Unsendable { record, error });
                        break;
                    }
                    Err(error) => return Err(error),
                    Ok(sent) => {
                        pending.push(async move { (record, sent.acknowledged().await) });
                        break;
                    }
                }
            }
        }
        let outcomes = patience.wait(join_all(pending));
        for (record, outcome) in outcomes.ok_or_else(|| gave_up(records.len()))? {
            match outcome {
                Ok(_) => {}
                Err(error @ BusError::Refused { .. }) => refused.push(Unsendable { record, error }),
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
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
