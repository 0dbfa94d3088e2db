//! Reading a topic between two named positions, once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use marquee_schemas::Topic;
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::subscriber::RawRecord;
use super::{Bus, BusError, admin};

/// How long a reader waits for the next record before it asks whether the end can still be reached.
const STALL: Duration = Duration::from_secs(20);

impl Bus {
    /// Reads `topic` from `from` (a missing partition: its start) up to, not including, `to` (a missing partition:
    /// its end now), calling `each` for every record: in offset order within a partition, partitions interleaved.
    /// Returns the positions reached, which are those of `to`. Blocks: not for async code.
    ///
    /// Offsets that compaction removed are passed over.
    ///
    /// # Errors
    /// [`BusError::CheckpointBeyondEnd`] if `to` lies beyond the log, [`BusError::Handler`] with whatever `each`
    /// fails with, [`BusError::Transient`] if the broker stops answering.
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
        let consumer = self.asker()?;
        let bounds = admin::watermarks(&consumer, topic)?;
        let mut open = BTreeMap::new();
        let mut reached = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for (&partition, &(low, high)) in &bounds.0 {
            let end = to.get(&partition).copied().unwrap_or(high);
            if end > high {
                return Err(BusError::CheckpointBeyondEnd {
                    topic: topic.to_string(),
                    partition,
                    offset: end,
                    high,
                });
            }
            let start = from.get(&partition).copied().unwrap_or(low).max(low);
            reached.insert(partition, end);
            if start < end {
                open.insert(partition, (start, end));
                list.add_partition_offset(topic.name(), partition, Offset::Offset(start))
                    .map_err(|e| BusError::from_kafka("naming an offset", e))?;
            }
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
                    let Some(&(_, end)) = open.get(&record.partition) else {
                        continue;
                    };
                    let (partition, offset) = (record.partition, record.offset);
                    if offset < end {
                        each(record).map_err(|e| BusError::Handler(e.into()))?;
                    }
                    if offset + 1 >= end {
                        open.remove(&partition);
                    }
                }
                Some(Err(error)) => tracing::warn!(kafka.topic = %topic, %error, "reading"),
                None => {}
            }
            // The tail of a compacted partition may hold no record: the position then says that the end is reached.
            if !open.is_empty() && last_progress.elapsed() > Duration::from_millis(300) {
                let position = consumer
                    .position()
                    .map_err(|e| BusError::from_kafka("asking for positions", e))?;
                for element in position.elements() {
                    if let Offset::Offset(next) = element.offset()
                        && open
                            .get(&element.partition())
                            .is_some_and(|&(_, end)| next >= end)
                    {
                        open.remove(&element.partition());
                    }
                }
                if last_progress.elapsed() > STALL {
                    return Err(BusError::Transient {
                        context: format!(
                            "{topic}: no record for {STALL:?} with partitions {open:?} unfinished"
                        ),
                        source: rdkafka::error::KafkaError::MessageConsumption(
                            rdkafka::error::RDKafkaErrorCode::OperationTimedOut,
                        ),
                    });
                }
            }
        }
        Ok(reached)
    }
}
