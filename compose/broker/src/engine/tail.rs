//! The newest records of each partition in memory, in front of the engine's storage.
//!
//! The storage answers one request at a time, and each with several SQL statements, also "nothing new": a handful of
//! idle consumers would occupy it. Here every append passes through, so the ends of the partitions and the batches
//! appended last are known without asking it. Consumers that keep up are served the very batches that producers
//! sent; only whoever lies further back reads the file.
//!
//! What is remembered is dropped whenever it could differ from the file: after a failed append, and after any call
//! that removes or renames.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tansu_sans_io::record::deflated::Batch;
use tansu_sans_io::{ErrorCode, IsolationLevel};
use tansu_storage::{Error, MetadataResponse, OffsetStage, Result, Storage, TopicId, Topition};
use tokio::sync::Notify;

/// Bytes of batches kept per partition.
const KEPT_BYTES: usize = 1024 * 1024;

/// A storage with its newest records in memory. Clones share them.
#[derive(Clone)]
pub(super) struct Tail<S> {
    pub(super) inner: S,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    /// Appends happen in the order in which they are remembered.
    appending: tokio::sync::Mutex<()>,
    appended: Notify,
}

#[derive(Default)]
struct Known {
    partitions: HashMap<Topition, Partition>,
    topics: HashMap<TopicId, MetadataResponse>,
    /// Counts what was forgotten: an answer asked for before is not remembered after.
    generation: u64,
}

struct Partition {
    stage: OffsetStage,
    /// Batches without a gap between them, the last one ending at the high watermark.
    batches: VecDeque<Batch>,
    bytes: usize,
}

impl<S> fmt::Debug for Tail<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").finish_non_exhaustive()
    }
}

impl Partition {
    fn new(stage: OffsetStage) -> Self {
        Self {
            stage,
            batches: VecDeque::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, batch: Batch) {
        if self
            .batches
            .back()
            .is_some_and(|last| last.max_offset() + 1 != batch.base_offset)
        {
            self.batches.clear();
            self.bytes = 0;
        }
        // A batch with holes cannot be served by counting its records.
        if i64::from(batch.record_count) != i64::from(batch.last_offset_delta) + 1 {
            self.batches.clear();
            self.bytes = 0;
            return;
        }
        self.bytes += batch.record_data.len();
        self.batches.push_back(batch);
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= oldest.record_data.len();
        }
    }

    /// Batches from exactly `offset` on, at least one, up to `max_bytes`. `None` if `offset` is no batch's beginning:
    /// the caller counts records from it.
    fn from(&self, offset: i64, max_bytes: usize) -> Option<Vec<Batch>> {
        let first = self
            .batches
            .binary_search_by_key(&offset, |batch| batch.base_offset)
            .ok()?;
        let mut bytes = 0;
        Some(
            self.batches
                .range(first..)
                .take_while(|batch| {
                    let fits = bytes == 0 || bytes + batch.record_data.len() <= max_bytes;
                    bytes += batch.record_data.len();
                    fits
                })
                .cloned()
                .collect(),
        )
    }
}

impl<S: Storage> Tail<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            shared: Arc::default(),
        }
    }

    /// Is notified after each append.
    pub(super) fn appended(&self) -> &Notify {
        &self.shared.appended
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is complete before anything can panic.
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: the file has the truth.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        known.partitions.clear();
        known.topics.clear();
        known.generation += 1;
    }

    /// The partition's offsets.
    ///
    /// Asked for a partition that does not exist the storage panics, and its task with it: never ask.
    pub(super) async fn stage(&self, topition: &Topition) -> Result<OffsetStage> {
        let generation = {
            let known = self.known();
            if let Some(partition) = known.partitions.get(topition) {
                return Ok(partition.stage);
            }
            known.generation
        };
        if !self.exists(topition).await? {
            return Err(Error::Api(ErrorCode::UnknownTopicOrPartition));
        }
        let stage = self.inner.offset_stage(topition).await?;
        let mut known = self.known();
        if known.generation != generation {
            return Ok(stage);
        }
        // An append may have been faster.
        Ok(known
            .partitions
            .entry(topition.clone())
            .or_insert_with(|| Partition::new(stage))
            .stage)
    }

    async fn exists(&self, topition: &Topition) -> Result<bool> {
        let answer = self.describe(Some(&[TopicId::from(topition.topic())])).await?;
        Ok(answer.topics().iter().any(|topic| {
            topic.name.as_deref() == Some(topition.topic())
                && topic
                    .partitions
                    .iter()
                    .flatten()
                    .any(|partition| partition.partition_index == topition.partition())
        }))
    }

    pub(super) async fn append(
        &self,
        transaction_id: Option<&str>,
        topition: &Topition,
        batch: Batch,
    ) -> Result<i64> {
        let _in_order = self.shared.appending.lock().await;
        let mut kept = batch.clone();
        let appended = async {
            let base_offset = self.inner.produce(transaction_id, topition, batch).await?;
            Ok((base_offset, self.inner.offset_stage(topition).await?))
        }
        .await;
        match appended {
            Ok((base_offset, stage)) => {
                kept.base_offset = base_offset;
                let mut known = self.known();
                let partition = known
                    .partitions
                    .entry(topition.clone())
                    .or_insert_with(|| Partition::new(stage));
                partition.stage = stage;
                partition.push(kept);
                drop(known);
                self.shared.appended.notify_waiters();
                Ok(base_offset)
            }
            Err(error) => {
                // Perhaps it was written all the same.
                let mut known = self.known();
                known.partitions.remove(topition);
                known.generation += 1;
                Err(error)
            }
        }
    }

    pub(super) async fn read(
        &self,
        topition: &Topition,
        offset: i64,
        min_bytes: u32,
        max_bytes: u32,
        isolation: IsolationLevel,
    ) -> Result<Vec<Batch>> {
        if offset >= self.stage(topition).await?.high_watermark() {
            return Ok(Vec::new());
        }
        let kept = self
            .known()
            .partitions
            .get(topition)
            .and_then(|partition| partition.from(offset, max_bytes as usize));
        match kept {
            Some(batches) => Ok(batches),
            None => {
                self.inner
                    .fetch(topition, offset, min_bytes, max_bytes, isolation)
                    .await
            }
        }
    }

    pub(super) async fn describe(&self, topics: Option<&[TopicId]>) -> Result<MetadataResponse> {
        let Some([topic]) = topics else {
            return self.inner.metadata(topics).await;
        };
        let generation = {
            let known = self.known();
            if let Some(answer) = known.topics.get(topic) {
                return Ok(answer.clone());
            }
            known.generation
        };
        let answer = self.inner.metadata(topics).await?;
        let exists = answer
            .topics()
            .first()
            .is_some_and(|topic| topic.error_code == 0 && topic.name.is_some());
        let mut known = self.known();
        if exists && known.generation == generation {
            known.topics.insert(topic.clone(), answer.clone());
        }
        Ok(answer)
    }
}
