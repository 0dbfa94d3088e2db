//! `marquee e2e-check`: how long after a new user's ratings were published does that user's list change?
//!
//! For each of many new users: ask for a list (a fallback), publish five ratings to the topic as a foreign producer
//! would, ask again until the answer rests on all five and its list has changed. The clock runs from before the first
//! rating is handed to the client library until the changed answer has arrived. A plain consumer of the same topic
//! gives the broker's own share of that time.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use marquee_runtime::bus::{
    Bus, Handler, Outgoing, Publisher, RawRecord, Start, SubscriberConfig, Subscription,
};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{Interaction, Kind, Movie, MovieId, SchemaVersion, Topic, UserId, decode};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::cli::{Common, E2eCheckArgs};
use crate::config::Config;
use crate::instance::StateDir;

/// Ids of the users that a check makes up; far above those of any data set.
const FIRST_USER: u64 = 1 << 40;
/// Distance from the checked users' ids to those of the background; all stay below 2^53.
const BACKGROUND_USERS: u64 = 1 << 51;
const RATINGS: usize = 5;
/// Pause between two questions about the same user: the figures are late by up to this, and each question is a
/// request that is logged.
const ASK_AGAIN: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(common: &Common, args: E2eCheckArgs) -> Result<()> {
    let url = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => StateDir::new(&common.state_dir)?
            .running()
            .and_then(|instance| instance.http)
            .map(|address| format!("http://{address}"))
            .context("no instance runs on this state directory: start `marquee up` or give --url")?,
    };
    let bus = Config::load(common)?.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(5)).await?;
    let movies = Arc::new(catalogue(bus.clone()).await?);
    if movies.len() < 50 {
        bail!("the catalogue has only {} movies", movies.len());
    }
    // Users of an earlier run are known already; the time makes new ones.
    let first_user = FIRST_USER + u64::try_from(SystemClock.now_ms()).unwrap_or(0) % (1 << 38) * 4096;

    let stop = CancellationToken::new();
    let publisher = bus.publisher("marquee-e2e-check")?;
    let sent = Arc::new(AtomicU64::new(0));
    let background = tokio::spawn(background(
        bus.publisher("marquee-e2e-background")?,
        Arc::clone(&movies),
        args.background,
        first_user + BACKGROUND_USERS,
        Arc::clone(&sent),
        stop.clone(),
    ));
    let arrivals = Arrivals::default();
    let ready = Arc::new(AtomicBool::new(false));
    let mut config = SubscriberConfig::new("marquee-e2e-arrivals", Subscription::All);
    config.idle_every = Duration::from_millis(20);
    let watcher = tokio::spawn(
        bus.subscriber(&[Topic::Interactions], config)
            .run(ArrivalHandler(arrivals.clone(), Arc::clone(&ready)), stop.clone()),
    );
    let deadline = Instant::now() + PATIENCE;
    while !ready.load(Ordering::SeqCst) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let users = args.users;
    let begun = Instant::now();
    let measured =
        tokio::task::spawn_blocking(move || measure(&url, &publisher, &movies, first_user, users, &arrivals))
            .await?;
    let elapsed = begun.elapsed().as_secs_f64();
    stop.cancel();
    background.await?;
    watcher.await??;
    report(&args, &measured?, sent.load(Ordering::Relaxed) as f64 / elapsed)
}

async fn catalogue(bus: Bus) -> Result<Vec<MovieId>> {
    tokio::task::spawn_blocking(move || {
        let mut movies = BTreeMap::new();
        bus.read_range(Topic::Movies, &BTreeMap::new(), &BTreeMap::new(), |record| {
            if let Some(Ok(movie)) = record.value.as_deref().map(decode::<Movie>) {
                movies.insert(movie.movie_id, ());
            }
            Ok::<_, Infallible>(())
        })?;
        Ok(movies.into_keys().collect())
    })
    .await?
}

fn rating(user: u64, movie: MovieId, ordinal: u64) -> Outgoing {
    let stars = [5.0, 4.0, 4.5, 3.5, 5.0][(ordinal % 5) as usize];
    Outgoing::of(&Interaction {
        schema_version: SchemaVersion,
        event_id: format!("e2e/{user}/{ordinal}"),
        user_id: UserId(user),
        movie_id: Some(movie),
        kind: Kind::Rating,
        rating: Some(stars),
        genres: Vec::new(),
        timestamp: SystemClock.now_ms(),
        session_id: None,
        request_id: None,
        source: Some("e2e-check".into()),
    })
}

/// A small linear congruential step (Knuth, MMIX): which movie comes next need only be varied and repeatable.
fn pick(movies: &[MovieId], n: u64) -> MovieId {
    let mixed = n
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
        >> 33;
    movies[(mixed % movies.len() as u64) as usize]
}

async fn background(
    publisher: Publisher,
    movies: Arc<Vec<MovieId>>,
    per_second: u32,
    first_user: u64,
    sent: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    if per_second == 0 {
        return;
    }
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut n = 0_u64;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while n < due {
            // Each background user rates a movie every few seconds, as a busy site's users do.
            let user = first_user + n % 2000;
            match publisher.try_send(&rating(user, pick(&movies, n), n)) {
                Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(%error, "background event");
                    break;
                }
            };
            n += 1;
        }
    }
}

/// When the last rating of each checked user came back from the broker.
#[derive(Debug, Clone, Default)]
struct Arrivals(Arc<Mutex<HashMap<u64, (usize, Instant)>>>);

struct ArrivalHandler(Arrivals, Arc<AtomicBool>);

impl Handler for ArrivalHandler {
    type Error = Infallible;

    fn assigned(&mut self, _: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Infallible> {
        Ok(partitions
            .iter()
            .map(|&partition| (partition, Start::Latest))
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Infallible> {
        let now = Instant::now();
        let mut seen = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        for record in batch {
            let user = record
                .key
                .as_deref()
                .and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
            if let Some(user) = user {
                let entry = seen.entry(user).or_insert((0, now));
                *entry = (entry.0 + 1, now);
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Infallible> {
        self.1.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    feature_version: Option<u64>,
    items: Vec<Item>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Item {
    movie_id: MovieId,
}

struct Measured {
    freshness: Histogram<u64>,
    broker: Histogram<u64>,
    /// Number and time of the slowest list.
    slowest: Option<(u64, Duration)>,
    requests: u64,
    unchanged: u32,
}

fn ask(agent: &ureq::Agent, url: &str, user: u64) -> Result<Answer> {
    let body = format!("{{\"user_id\":{user},\"k\":10}}");
    let mut response = agent
        .post(format!("{url}/recommend"))
        .header("content-type", "application/json")
        .send(body)
        .context("POST /recommend")?;
    let text = response
        .body_mut()
        .read_to_string()
        .context("reading the answer")?;
    serde_json::from_str(&text).with_context(|| format!("unexpected answer: {text}"))
}

fn measure(
    url: &str,
    publisher: &Publisher,
    movies: &[MovieId],
    first_user: u64,
    users: u32,
    arrivals: &Arrivals,
) -> Result<Measured> {
    let agent = ureq::Agent::new_with_defaults();
    let progress = ProgressBar::new(u64::from(users)).with_style(
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} users, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    progress.set_message("checking");
    let mut measured = Measured {
        freshness: Histogram::new(3)?,
        broker: Histogram::new(3)?,
        slowest: None,
        requests: 0,
        unchanged: 0,
    };
    for n in 0..u64::from(users) {
        let user = first_user + n;
        let before = ask(&agent, url, user)?;
        let begun = Instant::now();
        for ordinal in 0..RATINGS as u64 {
            let movie = pick(movies, n * 31 + ordinal);
            publisher.try_send(&rating(user, movie, ordinal))?;
        }
        loop {
            let answer = ask(&agent, url, user)?;
            measured.requests += 1;
            let complete = answer
                .feature_version
                .is_some_and(|version| version >= RATINGS as u64);
            if complete && answer.items != before.items {
                let took = begun.elapsed();
                measured.freshness.record(u64::try_from(took.as_micros())?)?;
                if measured.slowest.is_none_or(|(_, slowest)| took > slowest) {
                    measured.slowest = Some((n, took));
                }
                break;
            }
            if begun.elapsed() > PATIENCE {
                measured.unchanged += 1;
                tracing::warn!(feature_version = ?answer.feature_version, "a list did not change in time");
                break;
            }
            std::thread::sleep(ASK_AGAIN);
        }
        if let Some(&(count, at)) = arrivals
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&user)
            && count >= RATINGS
        {
            measured
                .broker
                .record(u64::try_from(at.saturating_duration_since(begun).as_micros())?)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(measured)
}

fn report(args: &E2eCheckArgs, measured: &Measured, background_per_s: f64) -> Result<()> {
    let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    let p99 = ms(&measured.freshness, 0.99);
    if args.json {
        println!(
            "{}",
            serde_json::json!({
                "users": args.users,
                "background_events_per_s": (background_per_s * 10.0).round() / 10.0,
                "freshness_p50_ms": ms(&measured.freshness, 0.5),
                "freshness_p90_ms": ms(&measured.freshness, 0.9),
                "freshness_p99_ms": p99,
                "freshness_max_ms": measured.freshness.max() as f64 / 1000.0,
                "slowest_sample": measured.slowest.map(|(n, _)| n),
                "broker_only_p50_ms": ms(&measured.broker, 0.5),
                "broker_only_p99_ms": ms(&measured.broker, 0.99),
                "broker_only_max_ms": measured.broker.max() as f64 / 1000.0,
                "users_unchanged": measured.unchanged,
            })
        );
    } else {
        println!(
            "from five published ratings to a changed list, {} new users, {background_per_s:.0} other events/s",
            args.users
        );
        println!(
            "  {:>8} {:>8} {:>8} {:>8}",
            "p50 ms", "p90 ms", "p99 ms", "max ms"
        );
        for (name, histogram) in [("list", &measured.freshness), ("broker", &measured.broker)] {
            println!(
                "  {:>8.1} {:>8.1} {:>8.1} {:>8.1}  {name}",
                ms(histogram, 0.5),
                ms(histogram, 0.9),
                ms(histogram, 0.99),
                histogram.max() as f64 / 1000.0
            );
        }
        println!("  {} lists did not change", measured.unchanged);
    }
    if measured.unchanged > 0 {
        bail!(
            "{} of {} lists did not change within {PATIENCE:?}",
            measured.unchanged,
            args.users
        );
    }
    if let Some(limit) = args.max_p99_ms
        && p99 > limit
    {
        bail!("the 99th percentile of {p99:.1} ms is above {limit} ms");
    }
    Ok(())
}
