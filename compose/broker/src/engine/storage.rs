//! The engine's storage with the records in logs of our own ([`super::log`]).
//!
//! Topics, groups and committed offsets stay in SQLite, where the engine keeps them. Records would cost it several SQL
//! statements each, and each answer of "nothing new" as well; here they are appended and read as the bytes they are.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tansu_sans_io::create_topics_request::CreatableTopic;
use tansu_sans_io::delete_groups_response::DeletableGroupResult;
use tansu_sans_io::delete_records_request::DeleteRecordsTopic;
use tansu_sans_io::delete_records_response::DeleteRecordsTopicResult;
use tansu_sans_io::describe_cluster_response::DescribeClusterBroker;
use tansu_sans_io::describe_configs_response::DescribeConfigsResult;
use tansu_sans_io::describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic;
use tansu_sans_io::incremental_alter_configs_request::AlterConfigsResource;
use tansu_sans_io::incremental_alter_configs_response::AlterConfigsResourceResponse;
use tansu_sans_io::list_groups_response::ListedGroup;
use tansu_sans_io::record::deflated::Batch;
use tansu_sans_io::txn_offset_commit_response::TxnOffsetCommitResponseTopic;
use tansu_sans_io::{ConfigResource, ErrorCode, IsolationLevel, ListOffset, ScramMechanism};
use tansu_storage::{
    BrokerRegistrationRequest, Error, GroupDetail, ListOffsetResponse, MetadataResponse, NamedGroupDetail,
    OffsetCommitRequest, OffsetStage, ProducerIdResponse, Result, ScramCredential, Storage, TopicId,
    Topition, TxnAddPartitionsRequest, TxnAddPartitionsResponse, TxnOffsetCommitRequest, UpdateError,
    Version,
};
use tokio::sync::Notify;
use url::Url;
use uuid::Uuid;

use super::log::{AppendError, PartitionLog, SEGMENT_BYTES, batch_bytes};

/// How long a record that removes its key stays in a compacted topic, unless the topic says otherwise, ms.
const REMOVALS_STAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The longest name of a topic, as Kafka has it.
const LONGEST_NAME: usize = 249;
/// The largest batch of a topic whose `max.message.bytes` is not set, as Kafka has it.
const LARGEST_BATCH: usize = 1_048_588;

/// A storage with its records in logs. Clones share them.
#[derive(Clone)]
pub(super) struct Records<S> {
    inner: S,
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    segment_bytes: u64,
    /// Held by whoever maintains the logs: once at a time.
    maintenance: tokio::sync::Mutex<()>,
    partitions: RwLock<HashMap<Topition, Arc<Mutex<PartitionLog>>>>,
    topics: RwLock<HashMap<TopicId, MetadataResponse>>,
    /// By topic: the largest batch, in bytes.
    limits: RwLock<HashMap<String, usize>>,
    /// By topic: rung at each append, and when the topic goes.
    bells: RwLock<HashMap<String, Arc<Notify>>>,
}

/// Offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// Of the oldest record kept.
    pub(super) start: i64,
    /// One past the newest.
    pub(super) end: i64,
}

impl<S> fmt::Debug for Records<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// Every change is complete before anything can panic.
fn locked(log: &Mutex<PartitionLog>) -> MutexGuard<'_, PartitionLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A name becomes the name of folders.
fn is_legal(topic: &str) -> bool {
    !matches!(topic, "" | "." | "..")
        && topic.len() <= LONGEST_NAME
        && topic
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

fn disk(error: &io::Error) -> Error {
    tracing::error!(%error, "the broker's log");
    Error::Api(ErrorCode::KafkaStorageError)
}

impl<S: Storage> Records<S> {
    /// Opens the logs in `folder` of all topics that `inner` knows, and removes those of topics it has forgotten.
    ///
    /// # Errors
    /// The disk's and the storage's; records that `inner` holds itself.
    pub(super) async fn open(inner: S, folder: &Path) -> Result<Self> {
        Self::with_segments_of(inner, folder, SEGMENT_BYTES).await
    }

    /// As [`Self::open`], with segments that end at so many bytes.
    pub(super) async fn with_segments_of(inner: S, folder: &Path, segment_bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let records = Self {
            inner,
            shared: Arc::new(Shared {
                folder: folder.to_owned(),
                segment_bytes,
                maintenance: tokio::sync::Mutex::default(),
                partitions: RwLock::default(),
                topics: RwLock::default(),
                limits: RwLock::default(),
                bells: RwLock::default(),
            }),
        };
        let known = records.inner.metadata(None).await?;
        for topition in topitions(&known) {
            // The engine kept them in SQLite before there were logs.
            let held = records.inner.offset_stage(&topition).await?.high_watermark();
            if held > 0 {
                return Err(Error::Message(format!(
                    "{held} records of {} lie where an earlier version kept them; begin with an empty state folder",
                    topition.topic()
                )));
            }
            records.open_partition(topition)?;
        }
        for topic in known.topics().iter().filter_map(|topic| topic.name.as_deref()) {
            records.learn_limit(topic).await?;
        }
        let wanted: Vec<PathBuf> = read(&records.shared.partitions)
            .keys()
            .map(|topition| records.path(topition))
            .collect();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if !wanted.contains(&path) {
                tracing::info!(path = %path.display(), "removing the log of a deleted topic");
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(records)
    }

    fn path(&self, topition: &Topition) -> PathBuf {
        self.shared
            .folder
            .join(format!("{}-{}", topition.topic(), topition.partition()))
    }

    fn open_partition(&self, topition: Topition) -> io::Result<()> {
        let path = self.path(&topition);
        if let Entry::Vacant(place) = write(&self.shared.partitions).entry(topition) {
            place.insert(Arc::new(Mutex::new(PartitionLog::open(
                &path,
                self.shared.segment_bytes,
            )?)));
        }
        Ok(())
    }

    fn partition(&self, topition: &Topition) -> Result<Arc<Mutex<PartitionLog>>> {
        read(&self.shared.partitions)
            .get(topition)
            .cloned()
            .ok_or(Error::Api(ErrorCode::UnknownTopicOrPartition))
    }

    /// Is notified after each append to the topic, and when it is deleted.
    pub(super) fn bell(&self, topic: &str) -> Arc<Notify> {
        if let Some(bell) = read(&self.shared.bells).get(topic) {
            return Arc::clone(bell);
        }
        Arc::clone(write(&self.shared.bells).entry(topic.to_owned()).or_default())
    }

    fn ring(&self, topic: &str) {
        if let Some(bell) = read(&self.shared.bells).get(topic) {
            bell.notify_waiters();
        }
    }

    /// The partition's offsets.
    ///
    /// # Errors
    /// There is no such partition.
    pub(super) fn ends(&self, topition: &Topition) -> Result<Ends> {
        let log = self.partition(topition)?;
        let log = locked(&log);
        Ok(Ends {
            start: log.start(),
            end: log.end(),
        })
    }

    /// About how many bytes of records there are from `offset` on; `None` where there cannot be any.
    pub(super) fn waiting(&self, topition: &Topition, offset: i64) -> Option<u64> {
        let log = self.partition(topition).ok()?;
        let log = locked(&log);
        if offset == log.end() {
            return Some(0);
        }
        log.locate(offset).map(|span| span.bytes())
    }

    /// Batches from the one with `offset` on, up to about `max_bytes` and at least one; none at the end.
    ///
    /// # Errors
    /// There is no such partition, or the disk's.
    pub(super) fn read(&self, topition: &Topition, offset: i64, max_bytes: usize) -> Result<Vec<Batch>> {
        let log = self.partition(topition)?;
        let span = locked(&log).locate(offset);
        match span {
            Some(span) => span.read(max_bytes).map_err(|error| disk(&error)),
            None => Ok(Vec::new()),
        }
    }

    fn list(&self, topition: &Topition, wanted: &ListOffset) -> Result<ListOffsetResponse> {
        let log = self.partition(topition)?;
        let log = locked(&log);
        let (offset, timestamp) = match wanted {
            ListOffset::Earliest => (log.start(), None),
            ListOffset::Latest => (log.end(), None),
            ListOffset::Timestamp(time) => match log.first_at(ms(*time)).map_err(|error| disk(&error))? {
                Some((offset, time)) => {
                    let time = u64::try_from(time).ok().map(Duration::from_millis);
                    (offset, time.map(|age| UNIX_EPOCH + age))
                }
                None => (-1, None),
            },
        };
        Ok(ListOffsetResponse {
            error_code: ErrorCode::None,
            timestamp,
            offset: Some(offset),
        })
    }

    /// Writes what was appended to the disk itself, so that it survives a power cut.
    pub(super) fn sync(&self) {
        let logs: Vec<_> = read(&self.shared.partitions).values().cloned().collect();
        for log in logs {
            // Appends go on meanwhile.
            let file = locked(&log).unsynced();
            if let Some(Err(error)) = file.map(|file| file.sync_data()) {
                locked(&log).sync_failed();
                tracing::error!(%error, "syncing the broker's log");
            }
        }
    }

    pub(super) async fn describe(&self, topics: Option<&[TopicId]>) -> Result<MetadataResponse> {
        let Some([topic]) = topics else {
            return self.inner.metadata(topics).await;
        };
        if let Some(answer) = read(&self.shared.topics).get(topic) {
            return Ok(answer.clone());
        }
        let answer = self.inner.metadata(topics).await?;
        // Only of a topic with logs: what is deleted meanwhile is not remembered.
        let partitions = read(&self.shared.partitions);
        let there: Vec<Topition> = topitions(&answer).collect();
        if !there.is_empty() && there.iter().all(|topition| partitions.contains_key(topition)) {
            write(&self.shared.topics).insert(topic.clone(), answer.clone());
        }
        Ok(answer)
    }

    /// What was set for the topic itself.
    async fn settings(&self, topic: &str) -> Result<HashMap<String, String>> {
        let described = self
            .inner
            .describe_config(topic, ConfigResource::Topic, None)
            .await?;
        let configs = described.configs.into_iter().flatten();
        Ok(configs
            .filter_map(|config| Some((config.name, config.value?)))
            .collect())
    }

    async fn learn_limit(&self, topic: &str) -> Result<()> {
        let settings = self.settings(topic).await?;
        let limit = settings
            .get("max.message.bytes")
            .and_then(|bytes| bytes.parse().ok());
        write(&self.shared.limits).insert(topic.to_owned(), limit.unwrap_or(LARGEST_BATCH));
        Ok(())
    }

    /// A larger batch is refused, as Kafka does: whoever reads the topic counts on it.
    fn check_size(&self, topic: &str, batch: &Batch) -> Result<()> {
        let limit = read(&self.shared.limits).get(topic).copied();
        if batch_bytes(batch) > limit.unwrap_or(LARGEST_BATCH) {
            return Err(Error::Api(ErrorCode::MessageTooLarge));
        }
        Ok(())
    }

    /// Records older than the topic's own `retention.ms` go, by whole segments; of a compacted topic, those that newer ones
    /// of their key replace.
    async fn clean(&self, topic: &str, now_ms: i64) -> Result<()> {
        let settings = self.settings(topic).await?;
        let setting = |name: &str| settings.get(name);
        let ms = |name: &str| setting(name).and_then(|ms| ms.parse::<i64>().ok());
        let logs: Vec<_> = read(&self.shared.partitions)
            .iter()
            .filter(|(topition, _)| topition.topic() == topic)
            .map(|(topition, log)| (topition.partition(), Arc::clone(log)))
            .collect();
        if setting("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            let removals_stay = ms("delete.retention.ms").unwrap_or(REMOVALS_STAY_MS).max(0);
            for (partition, log) in logs {
                compact(topic, partition, log, now_ms.saturating_sub(removals_stay)).await?;
            }
            return Ok(());
        }
        let Some(retention) = ms("retention.ms").filter(|ms| *ms >= 0) else {
            return Ok(());
        };
        for (_, log) in logs {
            locked(&log).expire(now_ms.saturating_sub(retention))?;
        }
        Ok(())
    }
}

/// Compacts a partition where that is worth it, on a thread that may block.
async fn compact(topic: &str, partition: i32, log: Arc<Mutex<PartitionLog>>, before_ms: i64) -> Result<()> {
    let Some(compaction) = locked(&log).compaction() else {
        return Ok(());
    };
    let work = move || compaction.run(before_ms, |rewritten| locked(&log).replace(rewritten));
    let compacted = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Message(error.to_string()))??;
    tracing::info!(
        kafka.topic = topic,
        kafka.partition = partition,
        bytes_before = compacted.bytes_before,
        bytes_after = compacted.bytes_after,
        "compacted"
    );
    Ok(())
}

/// All partitions of all topics that exist.
fn topitions(answer: &MetadataResponse) -> impl Iterator<Item = Topition> {
    answer
        .topics()
        .iter()
        .filter(|topic| topic.error_code == 0)
        .flat_map(|topic| {
            topic.name.iter().flat_map(|name| {
                let partitions = topic.partitions.iter().flatten();
                partitions.map(|partition| Topition::new(name.as_str(), partition.partition_index))
            })
        })
}

#[async_trait]
impl<S: Storage> Storage for Records<S> {
    async fn produce(&self, transaction_id: Option<&str>, topition: &Topition, batch: Batch) -> Result<i64> {
        if transaction_id.is_some() {
            return Err(Error::Api(ErrorCode::InvalidTxnState));
        }
        let log = self.partition(topition)?;
        self.check_size(topition.topic(), &batch)?;
        let appended = locked(&log).append(batch);
        match appended {
            Ok(offset) => {
                self.ring(topition.topic());
                Ok(offset)
            }
            Err(AppendError::Refused(code)) => Err(Error::Api(code)),
            Err(AppendError::Disk(error)) => Err(disk(&error)),
        }
    }

    async fn fetch(
        &self,
        topition: &'_ Topition,
        offset: i64,
        _min_bytes: u32,
        max_bytes: u32,
        _isolation: IsolationLevel,
    ) -> Result<Vec<Batch>> {
        self.read(topition, offset, max_bytes as usize)
    }

    /// Asked for by the engine's own fetch only, which is not among the routes.
    async fn offset_stage(&self, _topition: &Topition) -> Result<OffsetStage> {
        Err(Error::Api(ErrorCode::UnsupportedVersion))
    }

    async fn metadata(&self, topics: Option<&[TopicId]>) -> Result<MetadataResponse> {
        self.describe(topics).await
    }

    async fn register_broker(&self, broker_registration: BrokerRegistrationRequest) -> Result<()> {
        self.inner.register_broker(broker_registration).await
    }

    async fn create_topic(&self, topic: CreatableTopic, validate_only: bool) -> Result<Uuid> {
        if !is_legal(&topic.name) {
            return Err(Error::Api(ErrorCode::InvalidTopicException));
        }
        let name = topic.name.clone();
        let id = self.inner.create_topic(topic, validate_only).await?;
        if !validate_only {
            self.learn_limit(&name).await?;
            let created = self.inner.metadata(Some(&[TopicId::from(name.as_str())])).await?;
            for topition in topitions(&created) {
                self.open_partition(topition)?;
            }
        }
        Ok(id)
    }

    async fn incremental_alter_resource(
        &self,
        resource: AlterConfigsResource,
    ) -> Result<AlterConfigsResourceResponse> {
        let name = resource.resource_name.clone();
        let answer = self.inner.incremental_alter_resource(resource).await?;
        if read(&self.shared.limits).contains_key(&name) {
            self.learn_limit(&name).await?;
        }
        Ok(answer)
    }

    async fn delete_records(&self, topics: &[DeleteRecordsTopic]) -> Result<Vec<DeleteRecordsTopicResult>> {
        // Not among the routes: the engine has no answer to it.
        self.inner.delete_records(topics).await
    }

    async fn delete_topic(&self, topic: &TopicId) -> Result<ErrorCode> {
        let doomed: Vec<Topition> =
            topitions(&self.inner.metadata(Some(std::slice::from_ref(topic))).await?).collect();
        let outcome = self.inner.delete_topic(topic).await?;
        if outcome == ErrorCode::None {
            // From here on nobody appends; what a crash leaves behind is removed at the next start.
            {
                let mut partitions = write(&self.shared.partitions);
                write(&self.shared.topics).clear();
                partitions.retain(|topition, log| {
                    let stays = !doomed.contains(topition);
                    if !stays {
                        locked(log).forsake();
                    }
                    stays
                });
                let mut limits = write(&self.shared.limits);
                limits.retain(|topic, _| doomed.iter().all(|topition| topition.topic() != topic));
            }
            for topition in &doomed {
                std::fs::remove_dir_all(self.path(topition))?;
            }
            // Whoever waits for its records learns that there will be none.
            for topition in &doomed {
                self.ring(topition.topic());
            }
        }
        Ok(outcome)
    }

    async fn maintain(&self, now: SystemTime) -> Result<()> {
        let Ok(_alone) = self.shared.maintenance.try_lock() else {
            return Ok(());
        };
        let mut topics: Vec<String> = read(&self.shared.partitions)
            .keys()
            .map(|topition| topition.topic().to_owned())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        let mut outcome = Ok(());
        for topic in topics {
            // One that is damaged does not keep the others from being cleaned.
            if let Err(error) = self.clean(&topic, ms(now)).await {
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    async fn brokers(&self) -> Result<Vec<DescribeClusterBroker>> {
        self.inner.brokers().await
    }

    async fn list_offsets(
        &self,
        _isolation: IsolationLevel,
        offsets: &[(Topition, ListOffset)],
    ) -> Result<Vec<(Topition, ListOffsetResponse)>> {
        let answer = |(topition, wanted): &(Topition, ListOffset)| {
            let response = match self.list(topition, wanted) {
                Ok(response) => response,
                Err(Error::Api(error_code)) => ListOffsetResponse {
                    error_code,
                    offset: Some(-1),
                    ..ListOffsetResponse::default()
                },
                Err(error) => return Err(error),
            };
            Ok((topition.clone(), response))
        };
        offsets.iter().map(answer).collect()
    }

    async fn offset_commit(
        &self,
        group_id: &str,
        retention_time_ms: Option<Duration>,
        offsets: &[(Topition, OffsetCommitRequest)],
    ) -> Result<Vec<(Topition, ErrorCode)>> {
        self.inner
            .offset_commit(group_id, retention_time_ms, offsets)
            .await
    }

    async fn offset_fetch(
        &self,
        group_id: Option<&str>,
        topics: &[Topition],
        require_stable: Option<bool>,
    ) -> Result<BTreeMap<Topition, i64>> {
        self.inner.offset_fetch(group_id, topics, require_stable).await
    }

    async fn committed_offset_topitions(&self, group_id: &str) -> Result<BTreeMap<Topition, i64>> {
        self.inner.committed_offset_topitions(group_id).await
    }

    async fn upsert_user_scram_credential(
        &self,
        user: &str,
        mechanism: ScramMechanism,
        credential: ScramCredential,
    ) -> Result<()> {
        self.inner
            .upsert_user_scram_credential(user, mechanism, credential)
            .await
    }

    async fn delete_user_scram_credential(&self, user: &str, mechanism: ScramMechanism) -> Result<()> {
        self.inner.delete_user_scram_credential(user, mechanism).await
    }

    async fn user_scram_credential(
        &self,
        user: &str,
        mechanism: ScramMechanism,
    ) -> Result<Option<ScramCredential>> {
        self.inner.user_scram_credential(user, mechanism).await
    }

    async fn describe_config(
        &self,
        name: &str,
        resource: ConfigResource,
        keys: Option<&[String]>,
    ) -> Result<DescribeConfigsResult> {
        self.inner.describe_config(name, resource, keys).await
    }

    async fn list_groups(&self, states_filter: Option<&[String]>) -> Result<Vec<ListedGroup>> {
        self.inner.list_groups(states_filter).await
    }

    async fn delete_groups(&self, group_ids: Option<&[String]>) -> Result<Vec<DeletableGroupResult>> {
        self.inner.delete_groups(group_ids).await
    }

    async fn describe_groups(
        &self,
        group_ids: Option<&[String]>,
        include_authorized_operations: bool,
    ) -> Result<Vec<NamedGroupDetail>> {
        self.inner
            .describe_groups(group_ids, include_authorized_operations)
            .await
    }

    async fn describe_topic_partitions(
        &self,
        topics: Option<&[TopicId]>,
        partition_limit: i32,
        cursor: Option<Topition>,
    ) -> Result<Vec<DescribeTopicPartitionsResponseTopic>> {
        self.inner
            .describe_topic_partitions(topics, partition_limit, cursor)
            .await
    }

    async fn update_group(
        &self,
        group_id: &str,
        detail: GroupDetail,
        version: Option<Version>,
    ) -> Result<Version, UpdateError<GroupDetail>> {
        self.inner.update_group(group_id, detail, version).await
    }

    async fn init_producer(
        &self,
        transaction_id: Option<&str>,
        transaction_timeout_ms: i32,
        producer_id: Option<i64>,
        producer_epoch: Option<i16>,
    ) -> Result<ProducerIdResponse> {
        if transaction_id.is_some_and(|id| !id.is_empty()) {
            return Ok(ProducerIdResponse {
                error: ErrorCode::TransactionalIdAuthorizationFailed,
                id: -1,
                epoch: -1,
            });
        }
        self.inner
            .init_producer(
                transaction_id,
                transaction_timeout_ms,
                producer_id,
                producer_epoch,
            )
            .await
    }

    async fn txn_add_offsets(
        &self,
        transaction_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        group_id: &str,
    ) -> Result<ErrorCode> {
        self.inner
            .txn_add_offsets(transaction_id, producer_id, producer_epoch, group_id)
            .await
    }

    async fn txn_add_partitions(
        &self,
        partitions: TxnAddPartitionsRequest,
    ) -> Result<TxnAddPartitionsResponse> {
        self.inner.txn_add_partitions(partitions).await
    }

    async fn txn_offset_commit(
        &self,
        offsets: TxnOffsetCommitRequest,
    ) -> Result<Vec<TxnOffsetCommitResponseTopic>> {
        self.inner.txn_offset_commit(offsets).await
    }

    async fn txn_end(
        &self,
        transaction_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        committed: bool,
    ) -> Result<ErrorCode> {
        self.inner
            .txn_end(transaction_id, producer_id, producer_epoch, committed)
            .await
    }

    async fn cluster_id(&self) -> Result<String> {
        self.inner.cluster_id().await
    }

    async fn node(&self) -> Result<i32> {
        self.inner.node().await
    }

    async fn advertised_listener(&self) -> Result<Url> {
        self.inner.advertised_listener().await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
}
