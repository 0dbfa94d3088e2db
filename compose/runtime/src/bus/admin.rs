//! Creating topics and asking for their bounds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use marquee_schemas::{CleanupPolicy, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;
use rdkafka::types::RDKafkaRespErr;

use super::{Bus, BusError};

const ASK: Duration = Duration::from_secs(10);
/// A century stands for "for ever": Kafka writes that as -1, but the embedded broker compares ages with the number as it
/// is and would delete every record at its next start.
const FOREVER_MS: i64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// First and next offset of each partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watermarks(pub BTreeMap<i32, (i64, i64)>);

impl Watermarks {
    /// Partition → next offset: everything that is in the log now.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.0
            .iter()
            .map(|(&partition, &(_, high))| (partition, high))
            .collect()
    }

    /// Number of records between first and next offset, compaction ignored.
    #[must_use]
    pub fn len(&self) -> i64 {
        self.0.values().map(|(low, high)| high - low).sum()
    }

    /// Whether no record is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bus {
    /// Creates those of `topics` that do not exist; existing ones are left as they are. When it returns, the broker
    /// that answered knows all of them.
    ///
    /// # Errors
    /// [`BusError::Transient`] while the broker cannot be reached, [`BusError::Fatal`] if it refuses.
    pub async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), BusError> {
        let missing = self.missing(topics).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let admin: AdminClient<DefaultClientContext> = self
            .config()
            .admin()
            .create()
            .map_err(|e| BusError::from_kafka("creating an admin client", e))?;
        let texts: Vec<_> = missing
            .iter()
            .map(|topic| {
                let spec = topic.spec();
                let (policy, retention) = match spec.cleanup {
                    CleanupPolicy::Compact => ("compact", -1),
                    CleanupPolicy::Delete(keep) => ("delete", keep.unwrap_or(FOREVER_MS)),
                };
                (
                    spec,
                    policy,
                    retention.to_string(),
                    spec.max_message_bytes.to_string(),
                )
            })
            .collect();
        let new: Vec<_> = texts
            .iter()
            .map(|(spec, policy, retention, max_bytes)| {
                let new = NewTopic::new(spec.topic.name(), spec.partitions, TopicReplication::Fixed(-1))
                    .set("cleanup.policy", policy)
                    .set("max.message.bytes", max_bytes);
                if *policy == "compact" {
                    new
                } else {
                    new.set("retention.ms", retention)
                }
            })
            .collect();
        let options = AdminOptions::new()
            .request_timeout(Some(ASK))
            .operation_timeout(Some(ASK));
        let outcomes = admin
            .create_topics(&new, &options)
            .await
            .map_err(|e| BusError::from_kafka("creating topics", e))?;
        for outcome in outcomes {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(BusError::from_kafka(
                        format!("creating topic {topic}"),
                        KafkaError::AdminOp(code),
                    ));
                }
            }
        }
        // The controller has them; the brokers learn of them a moment later.
        let deadline = Instant::now() + ASK;
        loop {
            let missing = self.missing(topics).await?;
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(BusError::Fatal(format!(
                    "created topics {missing:?} do not appear within {ASK:?}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn missing(&self, topics: &[Topic]) -> Result<Vec<Topic>, BusError> {
        let bus = self.clone();
        let names: Vec<String> = self
            .blocking(move || {
                let metadata = bus.asker()?.fetch_metadata(None, ASK).map_err(|e| {
                    BusError::from_kafka(format!("asking {} for its topics", bus.config().brokers), e)
                })?;
                Ok(metadata
                    .topics()
                    .iter()
                    .filter(|topic| topic.error().is_none())
                    .map(|topic| topic.name().to_owned())
                    .collect())
            })
            .await?;
        Ok(topics
            .iter()
            .copied()
            .filter(|topic| !names.iter().any(|name| name == topic.name()))
            .collect())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce() -> Result<T, BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        tokio::task::spawn_blocking(ask)
            .await
            .map_err(|e| BusError::Fatal(e.to_string()))?
    }

    /// Waits until a broker answers, at most `patience`.
    ///
    /// # Errors
    /// [`BusError::Fatal`] when none answered in time.
    pub async fn wait_ready(&self, patience: Duration) -> Result<(), BusError> {
        let bus = self.clone();
        self.blocking(move || {
            let deadline = Instant::now() + patience;
            let client = bus.asker()?;
            loop {
                match client.fetch_metadata(None, Duration::from_millis(500)) {
                    Ok(_) => return Ok(()),
                    Err(error) if Instant::now() >= deadline => {
                        return Err(BusError::Fatal(format!(
                            "no Kafka broker answers at {} within {patience:?}: {error}",
                            bus.config().brokers
                        )));
                    }
                    Err(_) => {}
                }
            }
        })
        .await
    }

    pub(super) fn asker(&self) -> Result<BaseConsumer, BusError> {
        self.config()
            .consumer("marquee-asker", None, Duration::ZERO)
            .create()
            .map_err(|e| BusError::from_kafka("creating a client", e))
    }

    /// First and next offsets of every partition of `topic`. Blocks on the network: not for async code.
    ///
    /// # Errors
    /// [`BusError::Transient`] while the broker cannot be reached, [`BusError::Fatal`] if there is no such topic.
    pub fn watermarks_blocking(&self, topic: Topic) -> Result<Watermarks, BusError> {
        watermarks(&self.asker()?, topic)
    }

    /// First and next offsets of every partition of `topic`.
    ///
    /// # Errors
    /// As [`Bus::watermarks_blocking`].
    pub async fn watermarks(&self, topic: Topic) -> Result<Watermarks, BusError> {
        let bus = self.clone();
        self.blocking(move || bus.watermarks_blocking(topic)).await
    }
}

/// The partitions of `topic`; at least one.
pub(super) fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: Topic,
    patience: Duration,
) -> Result<Vec<i32>, BusError> {
    let asking = || format!("asking for the partitions of {topic}");
    let metadata = consumer
        .fetch_metadata(Some(topic.name()), patience)
        .map_err(|e| BusError::from_kafka(asking(), e))?;
    let found = metadata
        .topics()
        .iter()
        .find(|found| found.name() == topic.name());
    match found.map(|found| (found.error(), found.partitions())) {
        Some((None, partitions)) if !partitions.is_empty() => {
            Ok(partitions.iter().map(MetadataPartition::id).collect())
        }
        // For example without a leader while the broker starts.
        Some((Some(code), _)) if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => Err(
            BusError::from_kafka(asking(), KafkaError::MetadataFetch(code.into())),
        ),
        _ => Err(BusError::Fatal(format!("the broker has no topic {topic}"))),
    }
}

/// First and next offset of a partition.
pub(super) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: Topic,
    partition: i32,
    patience: Duration,
) -> Result<(i64, i64), BusError> {
    consumer
        .fetch_watermarks(topic.name(), partition, patience)
        .map_err(|e| BusError::from_kafka(format!("asking for the bounds of {topic}/{partition}"), e))
}

pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: Topic,
) -> Result<Watermarks, BusError> {
    partitions(consumer, topic, ASK)?
        .into_iter()
        .map(|partition| Ok((partition, bounds(consumer, topic, partition, ASK)?)))
        .collect::<Result<_, _>>()
        .map(Watermarks)
}
