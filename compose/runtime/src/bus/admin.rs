//! Creating topics and asking for their bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use marquee_schemas::{CleanupPolicy, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::{Bus, BusError};

pub(super) const ASK: Duration = Duration::from_secs(10);

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
    /// Creates those of `topics` that do not exist; existing ones are left as they are.
    ///
    /// # Errors
    /// [`BusError::Transient`] while the broker cannot be reached, [`BusError::Fatal`] if it refuses.
    pub async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), BusError> {
        let admin: AdminClient<DefaultClientContext> = self
            .config()
            .admin()
            .create()
            .map_err(|e| BusError::from_kafka("creating an admin client", e))?;
        let texts: Vec<_> = topics
            .iter()
            .map(|topic| {
                let spec = topic.spec();
                let (policy, retention) = match spec.cleanup {
                    CleanupPolicy::Compact => ("compact", -1),
                    CleanupPolicy::Delete(keep) => ("delete", keep.unwrap_or(-1)),
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
        let existing = self.existing(&admin)?;
        let new: Vec<_> = new
            .into_iter()
            .filter(|topic| !existing.contains(&topic.name.to_owned()))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
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
                    return Err(BusError::Fatal(format!("creating topic {topic}: {code}")));
                }
            }
        }
        Ok(())
    }

    fn existing(&self, admin: &AdminClient<DefaultClientContext>) -> Result<Vec<String>, BusError> {
        let metadata = admin.inner().fetch_metadata(None, ASK).map_err(|e| {
            BusError::from_kafka(format!("asking {} for its topics", self.config().brokers), e)
        })?;
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| topic.name().to_owned())
            .collect())
    }

    /// Waits until a broker answers, at most `patience`.
    ///
    /// # Errors
    /// [`BusError::Fatal`] when none answered in time.
    pub async fn wait_ready(&self, patience: Duration) -> Result<(), BusError> {
        let bus = self.clone();
        let asked = tokio::task::spawn_blocking(move || -> Result<(), BusError> {
            let deadline = std::time::Instant::now() + patience;
            let client = bus.asker()?;
            loop {
                match client.fetch_metadata(None, Duration::from_millis(500)) {
                    Ok(_) => return Ok(()),
                    Err(error) if std::time::Instant::now() >= deadline => {
                        return Err(BusError::Fatal(format!(
                            "no Kafka broker answers at {} within {patience:?}: {error}",
                            bus.config().brokers
                        )));
                    }
                    Err(_) => {}
                }
            }
        });
        asked.await.map_err(|e| BusError::Fatal(e.to_string()))?
    }

    pub(super) fn asker(&self) -> Result<BaseConsumer, BusError> {
        self.config()
            .consumer("marquee-asker", None)
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
        tokio::task::spawn_blocking(move || bus.watermarks_blocking(topic))
            .await
            .map_err(|e| BusError::Fatal(e.to_string()))?
    }
}

pub(super) fn partitions<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: Topic,
) -> Result<Vec<i32>, BusError> {
    let metadata = consumer
        .fetch_metadata(Some(topic.name()), ASK)
        .map_err(|e| BusError::from_kafka(format!("asking for the partitions of {topic}"), e))?;
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic.name() && found.error().is_none())
        .flat_map(|found| {
            found
                .partitions()
                .iter()
                .map(rdkafka::metadata::MetadataPartition::id)
        })
        .collect();
    if partitions.is_empty() {
        return Err(BusError::Fatal(format!("the broker has no topic {topic}")));
    }
    Ok(partitions)
}

pub(super) fn watermarks<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: Topic,
) -> Result<Watermarks, BusError> {
    partitions(consumer, topic)?
        .into_iter()
        .map(|partition| {
            consumer
                .fetch_watermarks(topic.name(), partition, ASK)
                .map(|bounds| (partition, bounds))
                .map_err(|e| BusError::from_kafka(format!("asking for the bounds of {topic}/{partition}"), e))
        })
        .collect::<Result<_, _>>()
        .map(Watermarks)
}
