//! Fetching that waits for records instead of for the clock.
//!
//! The engine's own service sleeps for the whole `max_wait` of a request, whether there are records or not, and would
//! cost every hop of an event that time. This one answers as soon as there is something.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::select_all;
use rama::{Context, Service};
use tansu_broker::Error;
use tansu_sans_io::fetch_request::{FetchPartition, FetchTopic};
use tansu_sans_io::fetch_response::{FetchableTopicResponse, PartitionData};
use tansu_sans_io::record::deflated::{Batch, Frame};
use tansu_sans_io::{ErrorCode, FetchRequest, FetchResponse};
use tansu_storage::{Storage, TopicId, Topition};
use tokio::time::Instant;

use super::storage::{Ends, Records};

/// The most bytes of one answer, whatever the request allows; and of one partition's share, however little the request
/// allows, so that the largest record the broker takes fits into it.
const MAX_BYTES: u32 = 5 * 1024 * 1024;
/// The longest a request may wait.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The shortest time between two answers with records over one connection. A consumer that keeps up with a busy topic
/// is else told of each append, at the price of a request each; the first record after a pause still comes at once.
const PACE: Duration = Duration::from_millis(8);

/// The fetches of one connection.
#[derive(Debug, Clone)]
pub(super) struct Fetch<S> {
    records: Records<S>,
    /// When the next answer with records may go out.
    not_before: Arc<Mutex<Instant>>,
}

/// A topic of the request with what it is called.
struct Wanted<'a> {
    request: &'a FetchTopic,
    /// `None` for a topic that does not exist.
    found: Option<(String, Option<[u8; 16]>)>,
}

impl<S: Storage> Fetch<S> {
    pub(super) fn new(records: Records<S>) -> Self {
        Self {
            records,
            not_before: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Waits out the pace.
    async fn pace(&self) {
        let not_before = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep_until(not_before).await;
        *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + PACE;
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
                    .records
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

    /// Whether an answer would hold an error, or records of about `min_bytes`.
    fn is_worth_it(&self, wanted: &[Wanted<'_>], min_bytes: u64) -> bool {
        let mut bytes = 0;
        for topic in wanted {
            let Some((name, _)) = &topic.found else {
                return true;
            };
            for partition in topic.request.partitions.iter().flatten() {
                let topition = Topition::new(name.as_str(), partition.partition);
                match self.records.waiting(&topition, partition.fetch_offset) {
                    Some(waiting) => bytes += waiting,
                    None => return true,
                }
            }
        }
        bytes >= min_bytes
    }

    fn answer(&self, wanted: &[Wanted<'_>], mut budget: u32) -> Result<Vec<FetchableTopicResponse>, Error> {
        let mut topics = Vec::with_capacity(wanted.len());
        for Wanted { request, found } in wanted {
            let mut partitions = Vec::new();
            for partition in request.partitions.iter().flatten() {
                partitions.push(match found {
                    Some((name, _)) => self.partition(name, partition, &mut budget)?,
                    None => without_records(partition.partition, ErrorCode::UnknownTopicOrPartition),
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

    fn partition(
        &self,
        topic: &str,
        request: &FetchPartition,
        budget: &mut u32,
    ) -> Result<PartitionData, Error> {
        let index = request.partition;
        let topition = Topition::new(topic, index);
        let Ok(ends) = self.records.ends(&topition) else {
            return Ok(without_records(index, ErrorCode::UnknownTopicOrPartition));
        };
        let offset = request.fetch_offset;
        if !(ends.start..=ends.end).contains(&offset) {
            return Ok(at(without_records(index, ErrorCode::OffsetOutOfRange), ends));
        }
        let mut batches: Vec<Batch> = Vec::new();
        if *budget > 0 && offset < ends.end {
            batches = self.records.read(&topition, offset, *budget as usize)?;
            let bytes: usize = batches.iter().map(|batch| batch.record_data.len()).sum();
            *budget = budget.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        // Read after the records: never behind them.
        let ends = self.records.ends(&topition)?;
        Ok(at(without_records(index, ErrorCode::None), ends)
            .records((!batches.is_empty()).then_some(Frame { batches })))
    }

    async fn fetch(&self, request: FetchRequest) -> Result<FetchResponse, Error> {
        let topics = request.topics.unwrap_or_default();
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
        let budget = request
            .max_bytes
            .and_then(|bytes| u32::try_from(bytes).ok())
            .map_or(MAX_BYTES, |bytes| bytes.min(MAX_BYTES));
        let wanted = self.wanted(&topics).await?;
        let deadline = Instant::now() + wait;
        let names = wanted.iter().filter_map(|topic| topic.found.as_ref());
        let bells: Vec<_> = names.map(|(name, _)| self.records.bell(name)).collect();
        let min_bytes = u64::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(u64::from(budget));
        while min_bytes > 0 && !wanted.is_empty() {
            let rung: Vec<_> = bells
                .iter()
                .map(|bell| {
                    let mut rung = Box::pin(bell.notified());
                    // From here on no append is missed.
                    rung.as_mut().enable();
                    rung
                })
                .collect();
            if self.is_worth_it(&wanted, min_bytes) {
                self.pace().await;
                break;
            }
            if tokio::time::timeout_at(deadline, select_all(rung)).await.is_err() {
                break;
            }
        }
        Ok(FetchResponse::default()
            .throttle_time_ms(Some(0))
            .error_code(Some(ErrorCode::None.into()))
            .session_id(Some(0))
            .node_endpoints(Some([].into()))
            .responses(Some(self.answer(&wanted, budget)?)))
    }
}

/// With the partition's offsets; nothing is in doubt here, so all of it is stable.
fn at(data: PartitionData, ends: Ends) -> PartitionData {
    data.high_watermark(ends.end)
        .last_stable_offset(Some(ends.end))
        .log_start_offset(Some(ends.start))
}

fn without_records(partition: i32, code: ErrorCode) -> PartitionData {
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
