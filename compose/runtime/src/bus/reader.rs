//! Reading a topic between two named positions, once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use marquee_schemas::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::subscriber::RawRecord;
use super::{Bus, BusError, admin};

/// How long a reader waits for the next record before it gives up.
const STALL: Duration = Duration::from_secs(20);

/// Its errors come back from `poll`, the end of a partition among them; the default context would log each one.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Quiet {}

impl Bus {
    /// Reads `topic` from `from` (a missing partition: its start) up to, not including, `to` (a missing partition:
    /// its end now), calling `each` for every record: in offset order within a partition, partitions interleaved.
    /// Returns the positions reached, which are those of `to`. Blocks: not for async code.
    ///
    /// Offsets without a record (compaction removed it, or they mark a transaction) are passed over.
    ///
    /// # Errors
    /// [`BusError::CheckpointBeyondEnd`] if `to` lies beyond the log (a partition that does not exist ends at 0),
    /// [`BusError::Truncated`] if the log no longer has what `from` names, [`BusError::Handler`] with whatever
    /// `each` fails with, [`BusError::Transient`] if the broker stops answering.
    pub fn read_range<E>(
        &self,
        topic: Topic,
        from: &BTreeMap<i32, i64>,
        to: &BTreeMap<i32, i64>,
        mut each: impl FnMut(RawRecord) -> Result<(), E>,
    ) -> Result<BTreeMap<i32, i64>, BusError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let consumer: BaseConsumer<Quiet> = self
            .config()
            .consumer("marquee-reader", None, Duration::ZERO)
            .set("enable.partition.eof", "true")
            .create_with_context(Quiet)
            .map_err(|e| BusError::from_kafka("creating a reader", e))?;
        let bounds = admin::watermarks(&consumer, topic)?.0;
        for (&partition, &end) in to {
            let high = bounds.get(&partition).map_or(0, |&(_, high)| high);
            if end > high {
                return Err(BusError::CheckpointBeyondEnd {
                    topic: topic.to_string(),
                    partition,
                    offset: end,
                    high,
                });
            }
        }
        // Partition → end, of those that are not read yet.
        let mut open = BTreeMap::new();
        let mut reached = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for (&partition, &(low, high)) in &bounds {
            let end = to.get(&partition).copied().unwrap_or(high);
            let start = from.get(&partition).copied().unwrap_or(low);
            reached.insert(partition, end);
            if start >= end {
                continue;
            }
            if start < low {
                return Err(BusError::Truncated {
                    topic: topic.to_string(),
                    partition,
                    offset: start,
                    low,
                });
            }
            open.insert(partition, end);
            list.add_partition_offset(topic.name(), partition, Offset::Offset(start))
                .map_err(|e| BusError::from_kafka("naming an offset", e))?;
        }
        if open.is_empty() {
            return Ok(reached);
        }
        consumer
            .assign(&list)
            .map_err(|e| BusError::from_kafka(format!("assigning {topic}"), e))?;
        let mut last_progress = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last_progress = Instant::now();
                    let record = RawRecord::from_message(topic, &message);
                    let Some(&end) = open.get(&record.partition) else {
                        continue;
                    };
                    let (partition, next) = (record.partition, record.next_offset());
                    if next <= end {
                        each(record).map_err(|e| BusError::Handler(e.into()))?;
                    }
                    if next >= end {
                        open.remove(&partition);
                    }
                }
                // The last offsets of a partition may hold no record. This event follows all of its records, and
                // says that the log's end is reached, beyond which `to` cannot lie.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    last_progress = Instant::now();
                    open.remove(&partition);
                }
                Some(Err(error)) if is_final(&error) => {
                    return Err(BusError::Fatal(format!("reading {topic}: {error}")));
                }
                Some(Err(error)) => tracing::debug!(kafka.topic = %topic, %error, "reading"),
                None => {}
            }
            if last_progress.elapsed() > STALL {
                return Err(BusError::Transient {
                    context: format!("{topic}: no record for {STALL:?} with partitions {open:?} unfinished"),
                    source: KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut),
                });
            }
        }
        Ok(reached)
    }
}

/// Errors that waiting does not mend: what was named is no longer in the log, or may not be read.
fn is_final(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::Fatal
        )
    )
}
