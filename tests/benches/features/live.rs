//! A processor at 1,000 events per second: how soon the changelog knows, and how fast features are looked up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use marquee_feature_processor::{Config, Service};
use marquee_runtime::bus::{Bus, Handler, Outgoing, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{FeatureRecord, Interaction, Kind, MovieId, SchemaVersion, Topic, UserId, decode};
use marquee_testkit::Broker;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::stream::{MOVIES, USERS};
use crate::topic::{fill, runtime};
use crate::{Outcome, number, worker};

/// Events in the store before the clock starts.
const BEFORE: u64 = 500_000;
const EVENTS_PER_SECOND: u64 = 1_000;
const LOOKUPS_PER_SECOND: u64 = 500;
const LIVE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(5);
/// Those who act while the clock runs; lookups are about the others, who have long histories.
const ACTORS_FROM: u64 = 1 << 40;
const ACTORS: u64 = 2_000;
/// Keep-alive connections.
const CONNECTIONS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(figures: &mut BTreeMap<String, Value>) -> Outcome<()> {
    let result = worker(&["live"])?;
    println!("at {EVENTS_PER_SECOND} events/s, embedded broker in the same process, {BEFORE} events before");
    for (name, what) in [
        ("event_to_changelog", "event to changelog"),
        ("lookup", "GET /features/users/{id} meanwhile"),
        ("lookup_idle", "GET /features/users/{id}, idle"),
    ] {
        println!(
            "{what:<36} p50 {:>7.2} ms, p99 {:>7.2} ms",
            number(&result, &format!("{name}_p50_ms"))?,
            number(&result, &format!("{name}_p99_ms"))?,
        );
    }
    if let Some(values) = result.as_object() {
        figures.extend(
            values
                .iter()
                .map(|(name, value)| (format!("live_{name}"), value.clone())),
        );
    }
    Ok(())
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("a histogram")
}

/// By actor: when the events that the changelog has not shown yet were due.
type Waiting = HashMap<u64, VecDeque<Instant>>;

#[derive(Debug)]
struct Watch {
    waiting: Waiting,
    /// By actor: events shown so far.
    shown: HashMap<u64, u64>,
    latency_us: Histogram<u64>,
}

/// Reads the changelog.
#[derive(Debug)]
struct Changelog(Arc<Mutex<Watch>>);

impl Handler for Changelog {
    type Error = Infallible;

    fn assigned(&mut self, _: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Infallible> {
        Ok(partitions
            .iter()
            .map(|&partition| (partition, Start::Latest))
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Infallible> {
        let arrived = Instant::now();
        let mut watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = &mut *watch;
        for record in batch {
            let Ok(FeatureRecord::User(user)) = decode(record.value.as_deref().unwrap_or_default()) else {
                continue;
            };
            if user.user_id.0 < ACTORS_FROM {
                continue;
            }
            let shown = watch.shown.entry(user.user_id.0).or_default();
            let waiting = watch.waiting.entry(user.user_id.0).or_default();
            while *shown < user.seq
                && let Some(due) = waiting.pop_front()
            {
                *shown += 1;
                let took = arrived.saturating_duration_since(due);
                watch.latency_us.saturating_record(took.as_micros() as u64);
            }
        }
        Ok(())
    }
}

pub(crate) fn run(_: &[&str]) -> Outcome<Value> {
    runtime()?.block_on(measure_live())
}

async fn measure_live() -> Outcome<Value> {
    let broker = Broker::embedded();
    let bus = broker.bus();
    fill(&bus, BEFORE).await?;
    let folder = tempfile::tempdir()?;
    let config = Config {
        state_dir: folder.path().to_owned(),
        listen: "127.0.0.1:0".into(),
        all_partitions: true,
        copy_rows_every_ms: 0,
        ..Config::default()
    };
    let token = CancellationToken::new();
    let mut service = Service::new(config, bus.clone(), Arc::new(SystemClock))?;
    let address = service.bind().await?.ok_or("no address")?;
    let service = tokio::spawn(service.run(token.clone()));
    let last = bus.watermarks(Topic::Interactions).await?.len();
    caught_up(address, last).await?;

    let watch = Arc::new(Mutex::new(Watch {
        waiting: HashMap::new(),
        shown: HashMap::new(),
        latency_us: histogram(),
    }));
    let mut reading = SubscriberConfig::new("marquee-bench-changelog", Subscription::All);
    reading.idle_every = Duration::from_millis(5);
    let changelog = tokio::spawn(
        bus.subscriber(&[Topic::Features], reading)
            .run(Changelog(Arc::clone(&watch)), token.clone()),
    );
    let idle = tokio::task::spawn_blocking(move || lookups(address, IDLE)).await?;
    let busy = tokio::task::spawn_blocking(move || lookups(address, LIVE));
    let sent = act(&bus, &watch).await?;
    let busy = busy.await?;
    let deadline = Instant::now() + PATIENCE;
    let seen = || {
        let watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.latency_us.len()
    };
    while seen() < sent && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    token.cancel();
    service.await??;
    changelog.await??;
    let watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
    if watch.latency_us.len() < sent {
        return Err(format!("the changelog showed {} of {sent} events", watch.latency_us.len()).into());
    }
    let mut result = json!({ "events": sent, "lookups": busy.0.len(), "lookups_failed": busy.1 + idle.1 });
    for (name, latency) in [
        ("event_to_changelog", &watch.latency_us),
        ("lookup", &busy.0),
        ("lookup_idle", &idle.0),
    ] {
        for (quantile, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            result[format!("{name}_{quantile}_ms")] = json!(latency.value_at_quantile(share) as f64 / 1e3);
        }
    }
    Ok(result)
}

fn url(address: SocketAddr, user: u64) -> String {
    format!("http://{address}/features/users/{user}")
}

/// Waits until all of the history is folded: the processor serves each partition's state as of its last commit.
async fn caught_up(address: SocketAddr, events: i64) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let folded = tokio::task::spawn_blocking(move || {
            let answer = ureq::get(format!("http://{address}/features")).call().ok()?;
            let body: Value = serde_json::from_str(&answer.into_body().read_to_string().ok()?).ok()?;
            body["records"].as_i64()
        })
        .await?;
        if folded == Some(events) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{folded:?} of {events} events folded in time").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Open-loop load: event n is due at n / rate, whatever became of the others.
async fn act(bus: &Bus, watch: &Mutex<Watch>) -> Outcome<u64> {
    let publisher = bus.publisher("marquee-bench-actors")?;
    let begun = Instant::now();
    let run = SystemClock.now_ms();
    let mut n = 0;
    while begun.elapsed() < LIVE {
        let due = begun + Duration::from_secs_f64(n as f64 / EVENTS_PER_SECOND as f64);
        tokio::time::sleep_until(due.into()).await;
        let user = ACTORS_FROM + n % ACTORS;
        let event = Interaction {
            schema_version: SchemaVersion,
            event_id: format!("live/{run}/{n}"),
            user_id: UserId(user),
            movie_id: Some(MovieId(1 + (n * 7_919 % u64::from(MOVIES)) as u32)),
            kind: Kind::Rating,
            rating: Some(4.0),
            genres: Vec::new(),
            timestamp: SystemClock.now_ms(),
            session_id: None,
            request_id: None,
            source: Some("bench".into()),
        };
        watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .waiting
            .entry(user)
            .or_default()
            .push_back(due);
        // Acknowledgements are not waited for: an event that is lost is missed in the changelog.
        drop(publisher.enqueue(&Outgoing::of(&event)).await?);
        n += 1;
    }
    publisher.flush_blocking(PATIENCE)?;
    Ok(n)
}

/// Open-loop lookups over keep-alive connections; latencies count from when a request was due. Also: how many failed.
fn lookups(address: SocketAddr, span: Duration) -> (Histogram<u64>, u64) {
    let begun = Instant::now();
    let total = span.as_secs() * LOOKUPS_PER_SECOND;
    let one = |worker: u64| {
        let agent = ureq::Agent::new_with_defaults();
        let (mut latency, mut failed) = (histogram(), 0);
        // The first opens the connection.
        drop(agent.get(url(address, 1)).call());
        for n in (worker..total).step_by(CONNECTIONS as usize) {
            let due = begun + Duration::from_secs_f64(0.1 + n as f64 / LOOKUPS_PER_SECOND as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let user = 1 + n * 7_919 % USERS;
            let body = agent
                .get(url(address, user))
                .call()
                .and_then(|answer| answer.into_body().read_to_string());
            match body {
                Ok(_) => latency.saturating_record(due.elapsed().as_micros() as u64),
                // A few of the least active may have no history.
                Err(ureq::Error::StatusCode(404)) => {}
                Err(_) => failed += 1,
            }
        }
        (latency, failed)
    };
    let (mut all, mut failures) = (histogram(), 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|worker| scope.spawn(move || one(worker)))
            .collect();
        for thread in threads {
            let (latency, failed) = thread.join().expect("a thread that does not panic");
            all.add(latency).expect("the same bounds");
            failures += failed;
        }
    });
    (all, failures)
}
