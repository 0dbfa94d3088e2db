//! Fetching that waits for records instead of for the clock.
//!
//! The engine's own service sleeps for the whole `max_wait` of a request, whether there are records or not, and would
//! cost every hop of an event that time. This one answers as soon as there is something.

use std::future::Future;
use std::time::Duration;

use rama::{Context, Service};
use tansu_broker::Error;
use tansu_sans_io::fetch_request::{FetchPartition, FetchTopic};
use tansu_sans_io::fetch_response::{FetchableTopicResponse, PartitionData};
use tansu_sans_io::record::deflated::{Batch, Frame};
use tansu_sans_io::{ErrorCode, FetchRequest, FetchResponse, IsolationLevel};
use tansu_storage::{Storage, TopicId, Topition};
use tokio::time::Instant;

use super::tail::Tail;

/// The most bytes of one answer, whatever the request allows; and of one partition's share, however little the request
/// allows, so that the largest record the broker takes fits into it.
const MAX_BYTES: u32 = 5 * 1024 * 1024;
/// The longest a request may wait.
const MAX_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(super) struct Fetch<S>(Tail<S>);

/// A topic of the request with what it is called.
struct Wanted<'a> {
    request: &'a FetchTopic,
    /// `None` for a topic that does not exist.
    found: Option<(String, Option<[u8; 16]>)>,
}

impl<S: Storage> Fetch<S> {
    pub(super) fn new(storage: Tail<S>) -> Self {
        Self(storage)
    }

    async fn wanted<'a>(&self, topics: &'a [FetchTopic]) -> Result<Vec<Wanted<'a>>, Error> {
        let mut wanted = Vec::with_capacity(topics.len());
        for request in topics {
            let id = match (&request.topic, request.topic_id) {
                (Some(name), _) => Some(TopicId::from(name.as_str())),
                (None, Some(id)) => Some(TopicId::from(id)),
                (None, None) => None,
            };
            let found = match id {
                Some(id) => self
                    .0
                    .describe(Some(&[id]))
                    .await?
                    .topics()
                    .first()
                    .and_then(|topic| Some((topic.name.clone()?, topic.topic_id))),
                None => None,
            };
            wanted.push(Wanted { request, found });
        }
        Ok(wanted)
    }

    /// Whether an answer would hold a record or an error.
    async fn has_news(&self, wanted: &[Wanted<'_>]) -> bool {
        for topic in wanted {
            let Some((name, _)) = &topic.found else {
                return true;
            };
            for partition in topic.request.partitions.iter().flatten() {
                match self
                    .0
                    .stage(&Topition::new(name.as_str(), partition.partition))
                    .await
                {
                    Ok(stage) if stage.high_watermark() == partition.fetch_offset => {}
                    _ => return true,
                }
            }
        }
        false
    }

    async fn answer(
        &self,
        wanted: &[Wanted<'_>],
        isolation: IsolationLevel,
        mut budget: u32,
    ) -> Result<Vec<FetchableTopicResponse>, Error> {
        let mut topics = Vec::with_capacity(wanted.len());
        for Wanted { request, found } in wanted {
            let mut partitions = Vec::new();
            for partition in request.partitions.iter().flatten() {
                partitions.push(match found {
                    Some((name, _)) => self.partition(name, partition, isolation, &mut budget).await?,
                    None => refusal(partition.partition, ErrorCode::UnknownTopicOrPartition),
                });
            }
            topics.push(
                FetchableTopicResponse::default()
                    .topic(request.topic.clone())
                    .topic_id(found.as_ref().and_then(|(_, id)| *id).or(request.topic_id))
                    .partitions(Some(partitions)),
            );
        }
        Ok(topics)
    }

    async fn partition(
        &self,
        topic: &str,
        request: &FetchPartition,
        isolation: IsolationLevel,
        budget: &mut u32,
    ) -> Result<PartitionData, Error> {
        let index = request.partition;
        let topition = Topition::new(topic, index);
        let stage = match self.0.stage(&topition).await {
            Ok(stage) => stage,
            Err(error) => {
                tracing::debug!(%error, topic, partition = index, "fetch");
                return Ok(refusal(index, ErrorCode::UnknownTopicOrPartition));
            }
        };
        let offset = request.fetch_offset;
        if offset < 0 || offset > stage.high_watermark() {
            return Ok(refusal(index, ErrorCode::OffsetOutOfRange)
                .high_watermark(stage.high_watermark())
                .last_stable_offset(Some(stage.last_stable()))
                .log_start_offset(Some(stage.log_start())));
        }
        let mut batches: Vec<Batch> = Vec::new();
        if *budget > 0 && offset < stage.high_watermark() {
            batches = self.0.read(&topition, offset, 1, MAX_BYTES, isolation).await?;
            // The storage says "nothing" with a batch of no records.
            batches.retain(|batch| batch.record_count > 0);
            let bytes: usize = batches.iter().map(|batch| batch.record_data.len()).sum();
            *budget = budget.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        // Read after the records: never behind them.
        let stage = self.0.stage(&topition).await?;
        Ok(PartitionData::default()
            .partition_index(index)
            .error_code(ErrorCode::None.into())
            .high_watermark(stage.high_watermark())
            .last_stable_offset(Some(stage.last_stable()))
            .log_start_offset(Some(stage.log_start()))
            .aborted_transactions(Some([].into()))
            .preferred_read_replica(Some(-1))
            .records((!batches.is_empty()).then_some(Frame { batches })))
    }

    async fn fetch(&self, request: FetchRequest) -> Result<FetchResponse, Error> {
        let topics = request.topics.unwrap_or_default();
        let isolation = match request.isolation_level {
            Some(level) => IsolationLevel::try_from(level)?,
            None => IsolationLevel::ReadUncommitted,
        };
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
        let budget = request
            .max_bytes
            .and_then(|bytes| u32::try_from(bytes).ok())
            .map_or(MAX_BYTES, |bytes| bytes.min(MAX_BYTES));
        let wanted = self.wanted(&topics).await?;
        let deadline = Instant::now() + wait;
        while request.min_bytes > 0 && !wanted.is_empty() {
            let appended = self.0.appended().notified();
            tokio::pin!(appended);
            // From here on no append is missed.
            appended.as_mut().enable();
            if self.has_news(&wanted).await || tokio::time::timeout_at(deadline, appended).await.is_err() {
                break;
            }
        }
        Ok(FetchResponse::default()
            .throttle_time_ms(Some(0))
            .error_code(Some(ErrorCode::None.into()))
            .session_id(Some(0))
            .node_endpoints(Some([].into()))
            .responses(Some(self.answer(&wanted, isolation, budget).await?)))
    }
}

fn refusal(partition: i32, code: ErrorCode) -> PartitionData {
    PartitionData::default()
        .partition_index(partition)
        .error_code(code.into())
        .high_watermark(-1)
        .last_stable_offset(Some(-1))
        .log_start_offset(Some(-1))
        .aborted_transactions(Some([].into()))
        .preferred_read_replica(Some(-1))
        .records(None)
}

impl<S: Storage> Service<(), FetchRequest> for Fetch<S> {
    type Response = FetchResponse;
    type Error = Error;

    fn serve(
        &self,
        _context: Context<()>,
        request: FetchRequest,
    ) -> impl Future<Output = Result<Self::Response, Self::Error>> + Send + '_ {
        self.fetch(request)
    }
}
