//! A handler that keeps a model of durable state, and what scenarios need around it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use marquee_runtime::bus::{Handler, Outgoing, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError};
use marquee_schemas::{ALL_TOPICS, Topic};
use marquee_testkit::{Broker, eventually_async};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine, shorter than anybody's patience with a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a scenario on a broker whose topics exist and are empty.
pub(crate) fn run<F: Future<Output = ()>>(broker: Broker, scenario: impl FnOnce(Broker) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        broker.bus().wait_ready(PATIENCE).await.unwrap();
        broker.bus().ensure_topics(&ALL_TOPICS).await.unwrap();
        tokio::time::timeout(4 * PATIENCE, scenario(broker))
            .await
            .expect("the scenario hangs");
    });
    runtime.shutdown_background();
}

/// What handlers made durable: records and next offsets, changed together or not at all. Several members of a group
/// share one, as the owners of a partition hand its store on.
#[derive(Debug, Clone, Default)]
pub(crate) struct State(Arc<Mutex<Durable>>);

#[derive(Debug, Default)]
pub(crate) struct Durable {
    pub(crate) records: Vec<RawRecord>,
    pub(crate) next: BTreeMap<(Topic, i32), i64>,
    pub(crate) owners: BTreeMap<(Topic, i32), &'static str>,
    /// Broken promises of the bus, in words.
    pub(crate) broken: Vec<String>,
}

impl State {
    pub(crate) fn get(&self) -> MutexGuard<'_, Durable> {
        self.0.lock().unwrap()
    }

    /// A state that has everything of the partition below `next`.
    pub(crate) fn with_checkpoint(topic: Topic, partition: i32, next: i64) -> Self {
        let state = Self::default();
        state.get().next.insert((topic, partition), next);
        state
    }

    pub(crate) fn len(&self) -> usize {
        self.get().records.len()
    }

    pub(crate) fn values(&self) -> Vec<String> {
        self.get().records.iter().map(text).collect()
    }

    pub(crate) fn owned_by(&self, member: &str) -> usize {
        self.get()
            .owners
            .values()
            .filter(|owner| **owner == member)
            .count()
    }

    /// Waits until `count` records are durable; more is a failure too.
    pub(crate) async fn reaches(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.len() < count && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let durable = self.get();
        assert_eq!(
            durable.records.len(),
            count,
            "next offsets {:?}, owners {:?}, broken promises {:?}",
            durable.next,
            durable.owners,
            durable.broken
        );
    }

    pub(crate) fn assert_promises_kept(&self) {
        let durable = self.get();
        assert!(durable.broken.is_empty(), "{:#?}", durable.broken);
    }
}

pub(crate) fn text(record: &RawRecord) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default()).unwrap()
}

#[derive(Debug, thiserror::Error)]
#[error("the power went off")]
pub(crate) struct PowerCut;

/// The handler under the subscriber: applies batches to its [`State`] and notes every broken promise.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) member: &'static str,
    pub(crate) state: State,
    /// Where to begin without a checkpoint.
    pub(crate) fresh: Start,
    /// Fail on reaching this many durable records, with the batch's effect not made durable.
    pub(crate) power_cut_at: Option<usize>,
}

impl Recorder {
    pub(crate) fn new(state: &State) -> Self {
        Self {
            member: "only",
            state: state.clone(),
            fresh: Start::Earliest,
            power_cut_at: None,
        }
    }
}

impl Handler for Recorder {
    type Error = PowerCut;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, PowerCut> {
        let mut durable = self.state.get();
        let mut starts = BTreeMap::new();
        for &partition in partitions {
            if let Some(owner) = durable.owners.insert((topic, partition), self.member) {
                durable.broken.push(format!(
                    "{topic}/{partition} given to {} while {owner} has it",
                    self.member
                ));
            }
            let start = durable.next.get(&(topic, partition)).copied();
            starts.insert(partition, start.map_or(self.fresh, Start::At));
        }
        Ok(starts)
    }

    fn revoked(&mut self, topic: Topic, partitions: &[i32]) {
        let mut durable = self.state.get();
        for &partition in partitions {
            let owner = durable.owners.remove(&(topic, partition));
            if owner != Some(self.member) {
                durable.broken.push(format!(
                    "{topic}/{partition} taken from {} but {owner:?} had it",
                    self.member
                ));
            }
        }
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), PowerCut> {
        let mut durable = self.state.get();
        if self
            .power_cut_at
            .is_some_and(|count| durable.records.len() + batch.len() > count)
        {
            return Err(PowerCut);
        }
        for record in batch {
            let place = (record.topic, record.partition);
            if durable.owners.get(&place) != Some(&self.member) {
                durable.broken.push(format!(
                    "{} was given {place:?} {} without owning it",
                    self.member, record.offset
                ));
            }
            if let Some(&next) = durable.next.get(&place)
                && record.offset != next
            {
                durable.broken.push(format!(
                    "{place:?} went on at {} instead of {next}",
                    record.offset
                ));
            }
            durable.next.insert(place, record.next_offset());
            durable.records.push(record);
        }
        Ok(())
    }
}

/// A subscriber at work.
pub(crate) struct Running {
    token: CancellationToken,
    task: JoinHandle<Result<Recorder, BusError>>,
}

impl Running {
    pub(crate) fn start(bus: &Bus, topic: Topic, subscription: Subscription, recorder: Recorder) -> Self {
        Self::start_with(
            bus,
            topic,
            SubscriberConfig::new(recorder.member, subscription),
            recorder,
        )
    }

    pub(crate) fn start_with(bus: &Bus, topic: Topic, config: SubscriberConfig, recorder: Recorder) -> Self {
        let token = CancellationToken::new();
        let subscriber = bus.subscriber(&[topic], config);
        Self {
            task: tokio::spawn(subscriber.run(recorder, token.clone())),
            token,
        }
    }

    /// Stops it in good order.
    pub(crate) async fn stop(self) -> Recorder {
        self.token.cancel();
        self.ended().await.unwrap()
    }

    /// Waits for the end that it finds by itself.
    pub(crate) async fn ended(self) -> Result<Recorder, BusError> {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the subscriber does not end")
            .unwrap()
    }
}

pub(crate) fn group(name: &str) -> Subscription {
    Subscription::Group(name.into())
}

pub(crate) fn outgoing(
    topic: Topic,
    partition: Option<i32>,
    key: &str,
    value: impl Into<String>,
) -> Outgoing {
    Outgoing {
        topic,
        partition,
        key: key.into(),
        value: Some(value.into().into_bytes()),
    }
}

/// `count` records `first..` with their number as key and value, partitioned by key.
pub(crate) fn numbered(topic: Topic, numbers: std::ops::Range<u32>) -> Vec<Outgoing> {
    numbers
        .map(|n| outgoing(topic, None, &n.to_string(), n.to_string()))
        .collect()
}

/// Everything in the topic, as the log has it.
pub(crate) async fn whole_log(bus: &Bus, topic: Topic) -> Vec<RawRecord> {
    let bus = bus.clone();
    tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        bus.read_range(topic, &BTreeMap::new(), &BTreeMap::new(), |record| {
            records.push(record);
            Ok::<(), PowerCut>(())
        })
        .unwrap();
        records
    })
    .await
    .unwrap()
}

/// Publishes numbered records one after another until stopped; returns the numbers that were acknowledged. One that
/// fails for a passing reason is sent again under the same number, as every producer of ours does.
pub(crate) struct Stream {
    stop: CancellationToken,
    sent: Arc<Mutex<u32>>,
    task: JoinHandle<BTreeSet<u32>>,
}

impl Stream {
    pub(crate) fn start(bus: &Bus, topic: Topic) -> Self {
        let publisher = bus.publisher("stream").unwrap();
        let stop = CancellationToken::new();
        let sent = Arc::new(Mutex::new(0));
        let task = tokio::spawn({
            let (stop, sent) = (stop.clone(), Arc::clone(&sent));
            async move {
                let mut acknowledged = BTreeSet::new();
                let mut number = 0;
                while !stop.is_cancelled() {
                    // Several in flight, so that a restart catches some between sending and acknowledgement.
                    let records = numbered(topic, number..number + 20);
                    publisher.publish_all(&records).await.unwrap();
                    acknowledged.extend(number..number + 20);
                    number += 20;
                    *sent.lock().unwrap() = number;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                acknowledged
            }
        });
        Self { stop, sent, task }
    }

    /// Waits until `count` more records are acknowledged than now.
    pub(crate) async fn advances_by(&self, count: u32) {
        let goal = *self.sent.lock().unwrap() + count;
        eventually_async("the stream advances", PATIENCE, || {
            assert!(!self.task.is_finished(), "the publisher failed");
            (*self.sent.lock().unwrap() >= goal).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) -> BTreeSet<u32> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the publisher does not end")
            .unwrap()
    }
}

/// The numbers that [`numbered`] wrote, each of which must be there exactly once.
pub(crate) fn assert_exactly(records: &[RawRecord], numbers: &BTreeSet<u32>) {
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    for record in records {
        *seen.entry(text(record).parse().unwrap()).or_default() += 1;
    }
    let missing: Vec<_> = numbers
        .iter()
        .filter(|n| !seen.contains_key(n))
        .take(10)
        .collect();
    let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).take(10).collect();
    assert!(
        missing.is_empty() && doubled.is_empty() && seen.len() == numbers.len(),
        "{} sent, {} seen; missing {missing:?}, doubled {doubled:?}",
        numbers.len(),
        seen.len()
    );
}
