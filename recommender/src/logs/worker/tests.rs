use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use marquee_runtime::ManualClock;
use marquee_schemas::{Endpoint, Filters, SchemaVersion};

use super::*;
use crate::logs::{LogQueue, SpoolConfig};
use crate::sink::Acknowledged;

/// A broker that can go away in two ways: refusing at once, or never acknowledging.
#[derive(Debug, Default)]
struct Broker {
    away: AtomicBool,
    silent: AtomicBool,
    got: Mutex<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Wire(Arc<Broker>);

impl Sink for Wire {
    fn send(&self, record: &Outgoing) -> Result<Acknowledged, SinkError> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(SinkError::Later("away".into()));
        }
        if self.0.silent.load(Ordering::SeqCst) {
            return Ok(Box::pin(std::future::pending()));
        }
        let log: RequestLog = decode(record.value.as_deref().unwrap()).unwrap();
        if log.request_id == "poison" {
            return Err(SinkError::Refused("too large".into()));
        }
        self.0.got.lock().unwrap().push(log.request_id);
        Ok(Box::pin(std::future::ready(Ok(()))))
    }
}

fn log(id: impl ToString) -> RequestLog {
    RequestLog {
        schema_version: SchemaVersion,
        request_id: id.to_string(),
        timestamp: 1,
        endpoint: Endpoint::Recommend,
        status: 200,
        user_id: None,
        surface: None,
        model_version: None,
        policy: "ranked".into(),
        experiment: None,
        arm: None,
        assignment_hash: None,
        feature_version: None,
        k: 1,
        candidates: 0,
        seeds: Vec::new(),
        filters: Filters::default(),
        items: Vec::new(),
        fallback_reason: None,
        left_out: Vec::new(),
        latency_ms: 0.0,
        stages: Vec::new(),
    }
}

struct Rig {
    broker: Arc<Broker>,
    queue: LogQueue,
    alerts: Alerts,
    token: CancellationToken,
    worker: tokio::task::JoinHandle<u64>,
}

impl Rig {
    fn start(broker: Arc<Broker>, dir: &std::path::Path, max_bytes: u64) -> Self {
        let alerts = Alerts::new(None, Arc::new(ManualClock::at(0)));
        let (queue, receiver) = LogQueue::bounded(1_000, alerts.clone());
        let config = SpoolConfig {
            max_bytes,
            segment_bytes: 2_000,
        };
        let worker = Worker::new(
            receiver,
            Wire(Arc::clone(&broker)),
            Spool::open(dir, config).unwrap(),
            WorkerConfig {
                batch: 7,
                ack_timeout: Duration::from_millis(100),
                retry: Duration::from_millis(5),
                flush: Duration::from_millis(300),
            },
            Arc::clone(queue.stats()),
            alerts.clone(),
        );
        let token = CancellationToken::new();
        Self {
            broker,
            queue,
            alerts,
            worker: tokio::spawn(worker.run(token.clone())),
            token,
        }
    }

    fn log(&self, range: std::ops::Range<u32>) {
        for n in range {
            self.queue.log(log(n));
        }
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(Instant::now() < deadline, "never came: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) -> u64 {
        self.token.cancel();
        self.worker.await.unwrap()
    }

    /// What arrived, each id once, at its first place.
    fn got(&self) -> Vec<u32> {
        let mut seen = std::collections::HashSet::new();
        self.broker
            .got
            .lock()
            .unwrap()
            .iter()
            .filter_map(|id| id.parse().ok())
            .filter(|id| seen.insert(*id))
            .collect()
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[tokio::test]
async fn logs_arrive_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(Arc::default(), dir.path(), 1 << 20);
    rig.log(0..100);
    rig.until("all", |rig| rig.queue.stats().delivered() == 100).await;
    assert_eq!(rig.got(), numbers(0..100));
    assert_eq!(rig.queue.stats().spooled(), 0);
    assert_eq!(rig.stop().await, 0);
}

#[tokio::test]
async fn an_outage_goes_to_disk_and_is_replayed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(Arc::default(), dir.path(), 1 << 20);
    rig.log(0..10);
    rig.until("the first", |rig| rig.queue.stats().delivered() == 10)
        .await;
    rig.broker.away.store(true, Ordering::SeqCst);
    rig.log(10..60);
    rig.until("the spool", |rig| rig.queue.stats().spool_records() == 50)
        .await;
    rig.broker.away.store(false, Ordering::SeqCst);
    rig.log(60..70);
    rig.until("all", |rig| rig.queue.stats().delivered() == 70).await;
    assert_eq!(rig.got(), numbers(0..70));
    assert_eq!(
        (rig.queue.stats().lost(), rig.queue.stats().spool_records()),
        (0, 0)
    );
    assert_eq!(rig.stop().await, 0);
}

#[tokio::test]
async fn a_broker_that_never_acknowledges_does_not_stop_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(Arc::default(), dir.path(), 1 << 20);
    rig.broker.silent.store(true, Ordering::SeqCst);
    rig.log(0..30);
    rig.until("the spool", |rig| rig.queue.stats().spool_records() == 30)
        .await;
    assert_eq!(rig.queue.depth(), 0);
    assert_eq!(rig.stop().await, 30);
}

#[tokio::test]
async fn what_a_stop_finds_in_the_queue_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(Arc::default(), dir.path(), 1 << 20);
    rig.log(0..200);
    let (broker, stats) = (Arc::clone(&rig.broker), Arc::clone(rig.queue.stats()));
    assert_eq!(rig.stop().await, 0);
    assert_eq!(broker.got.lock().unwrap().len(), 200);
    assert_eq!(stats.delivered(), 200);
}

#[tokio::test]
async fn what_a_stop_cannot_send_is_spooled_and_sent_first_after_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Arc::new(Broker::default());
    broker.away.store(true, Ordering::SeqCst);
    let rig = Rig::start(Arc::clone(&broker), dir.path(), 1 << 20);
    rig.log(0..40);
    assert_eq!(rig.stop().await, 40);

    broker.away.store(false, Ordering::SeqCst);
    let rig = Rig::start(broker, dir.path(), 1 << 20);
    rig.log(40..50);
    rig.until("all", |rig| rig.got().len() == 50).await;
    assert_eq!(rig.got(), numbers(0..50));
    assert_eq!(rig.stop().await, 0);
}

#[tokio::test]
async fn a_full_spool_drops_counts_and_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Arc::new(Broker::default());
    broker.away.store(true, Ordering::SeqCst);
    let rig = Rig::start(broker, dir.path(), 3_000);
    rig.log(0..100);
    rig.until("both", |rig| {
        rig.queue.stats().spooled() + rig.queue.stats().dropped_spool() == 100
    })
    .await;
    let stats = Arc::clone(rig.queue.stats());
    assert!(stats.dropped_spool() > 0 && stats.spool_bytes() <= 3_000);
    assert!(rig.alerts.counts()["request_log_overflow"] > 0);
    assert_eq!(rig.stop().await, stats.spooled());
}

#[tokio::test]
async fn a_record_that_no_broker_takes_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(Arc::default(), dir.path(), 1 << 20);
    rig.log(0..5);
    rig.queue.log(log("poison"));
    rig.log(5..10);
    rig.until("the others", |rig| rig.queue.stats().delivered() == 10)
        .await;
    assert_eq!(rig.got(), numbers(0..10));
    assert_eq!(rig.queue.stats().refused(), 1);
    assert_eq!(rig.stop().await, 0);
}

#[tokio::test]
async fn a_full_queue_drops_counts_and_alerts_without_waiting() {
    let alerts = Alerts::new(None, Arc::new(ManualClock::at(0)));
    let (queue, receiver) = LogQueue::bounded(3, alerts.clone());
    for n in 0..10 {
        queue.log(log(n));
    }
    assert_eq!((queue.depth(), queue.stats().dropped_queue()), (3, 7));
    assert_eq!(alerts.counts()["request_log_overflow"], 7);
    drop(receiver);
}
