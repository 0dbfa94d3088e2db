//! The service against a broker: topics in, rows out, restarts and the broker's absence in between.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use marquee_replay::{Config, Error, Format, Service, SinkCounts, SqlEngine, SqlOptions};
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Bus, Clock, ManualClock, SystemClock};
use marquee_schemas::{
    ALL_TOPICS, Alert, DeadLetter, Endpoint, Filters, Interaction, Kind, LoggedItem, ModelVersion, Movie,
    MovieId, QualityMetric, Record, RequestLog, SchemaVersion, Topic, UserId, decode, online,
};
use marquee_testkit::{Broker, eventually_async};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
/// 2024-05-01.
const MAY: i64 = 1_714_521_600_000;

fn log(user: u64, at: i64, movies: &[u32]) -> RequestLog {
    RequestLog {
        schema_version: SchemaVersion,
        request_id: format!("{user}-{at}"),
        timestamp: at,
        endpoint: Endpoint::Recommend,
        status: 200,
        user_id: Some(UserId(user)),
        surface: None,
        model_version: Some(ModelVersion::from_ordinal(1)),
        policy: "ranked".into(),
        experiment: None,
        arm: None,
        assignment_hash: None,
        feature_version: None,
        k: 10,
        candidates: 10,
        seeds: vec![],
        filters: Filters::default(),
        items: (0..)
            .zip(movies)
            .map(|(rank, &movie)| LoggedItem {
                movie_id: MovieId(movie),
                rank,
                score: 1.0,
                source: "als".into(),
                propensity: 1.0,
                explored: false,
            })
            .collect(),
        fallback_reason: None,
        left_out: Vec::new(),
        latency_ms: 1.5,
        stages: vec![],
    }
}

fn view(user: u64, at: i64, movie: u32) -> Interaction {
    Interaction {
        schema_version: SchemaVersion,
        event_id: format!("{user}-{at}-{movie}"),
        user_id: UserId(user),
        movie_id: Some(MovieId(movie)),
        kind: Kind::View,
        rating: None,
        genres: vec![],
        timestamp: at,
        session_id: None,
        request_id: None,
        source: None,
    }
}

struct Running {
    token: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
    counts: Arc<SinkCounts>,
}

impl Running {
    fn start(config: &Config, bus: &Bus, clock: Arc<dyn Clock>) -> Self {
        let service = Service::new(config.clone(), bus.clone(), clock);
        let token = CancellationToken::new();
        Self {
            counts: service.counts(),
            task: tokio::spawn(service.run(token.clone())),
            token,
        }
    }

    async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Drops the service where it stands, without its final flush, and waits until its thread has let go of the lake.
    async fn kill(self, lake: &Path) {
        self.task.abort();
        drop(self.task.await);
        let lock = std::fs::File::open(lake.join(".lock")).unwrap();
        eventually_async("the lake is free", PATIENCE, || {
            lock.try_lock().is_ok().then_some(())
        })
        .await;
    }
}

fn config(lake: &Path) -> Config {
    let mut config = Config {
        lake_dir: lake.to_owned(),
        ..Config::default()
    };
    config.flush.max_age_ms = 200;
    config.http.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    // The tests that look at it switch it on.
    config.monitoring.enabled = false;
    config
}

async fn world() -> (Broker, Bus, Publisher, tempfile::TempDir) {
    let broker = Broker::embedded();
    let bus = broker.bus();
    bus.ensure_topics(&ALL_TOPICS).await.unwrap();
    let publisher = bus.publisher("test").unwrap();
    (broker, bus, publisher, tempfile::tempdir().unwrap())
}

async fn count(engine: &SqlEngine, table: &str) -> (i64, i64) {
    let query = format!(
        "SELECT count(*) AS n, count(DISTINCT kafka_partition * 1000000 + kafka_offset) AS d FROM {table}"
    );
    let text = engine.run(&query).await.unwrap().render(Format::Json).unwrap();
    let row: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    (row["n"].as_i64().unwrap(), row["d"].as_i64().unwrap())
}

/// All records of a topic.
async fn published<T: Record>(bus: &Bus) -> Vec<T> {
    let bus = bus.clone();
    let read = move || {
        let mut found: Vec<T> = Vec::new();
        bus.read_range(T::TOPIC, &BTreeMap::new(), &BTreeMap::new(), |record| {
            found.push(decode(&record.value.unwrap()).unwrap());
            Ok::<_, std::convert::Infallible>(())
        })
        .unwrap();
        found
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn lake(dir: &tempfile::TempDir) -> SqlEngine {
    SqlEngine::new(dir.path(), SqlOptions::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_becomes_one_row_or_one_dead_letter_across_restarts_and_kills() {
    let (_broker, bus, publisher, dir) = world().await;
    let config = config(dir.path());
    let mut sent = 0;
    for round in 0..6_u32 {
        let mut records: Vec<Outgoing> = (0..500)
            .map(|n| Outgoing::of(&view(n, MAY + i64::from(round) * 1_000, 1)))
            .collect();
        records.push(Outgoing {
            topic: Topic::Interactions,
            partition: None,
            key: b"bad".to_vec(),
            value: Some(format!("not JSON {round}").into_bytes()),
        });
        publisher.publish_all(&records).await.unwrap();
        sent += 500;
        let running = Running::start(&config, &bus, Arc::new(SystemClock));
        if round % 2 == 0 {
            // Killed as soon as something is committed, or at the latest when all is.
            let counts = Arc::clone(&running.counts);
            eventually_async("a first commit", PATIENCE, || {
                (counts.commits() > 0).then_some(())
            })
            .await;
            running.kill(dir.path()).await;
        } else {
            let engine = lake(&dir);
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while count(&engine, "interactions").await.0 < sent {
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "the sink does not get there"
                );
                tokio::task::yield_now().await;
            }
            running.stop().await;
        }
    }
    assert_eq!(count(&lake(&dir), "interactions").await, (sent, sent));

    let mut letters = BTreeMap::new();
    let read = bus.clone();
    tokio::task::spawn_blocking(move || {
        read.read_range(Topic::DeadLetters, &BTreeMap::new(), &BTreeMap::new(), |record| {
            let letter: DeadLetter = decode(&record.value.unwrap()).unwrap();
            assert_eq!(
                (letter.stage.as_str(), letter.topic.as_str()),
                ("replay", "interactions")
            );
            letters.insert((letter.partition, letter.offset), letter.payload.0);
            Ok::<_, std::convert::Infallible>(())
        })
        .unwrap();
        assert_eq!(letters.len(), 6, "{letters:?}");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_rows_are_visible_before_their_flush_and_once_after_it() {
    let (mut broker, bus, publisher, dir) = world().await;
    let mut config = config(dir.path());
    config.flush.max_age_ms = 3_600_000;
    config.evaluation.enabled = false;
    let movie = |id: u32, title: &str| Movie {
        schema_version: SchemaVersion,
        movie_id: MovieId(id),
        title: title.into(),
        year: None,
        genres: vec![],
        imdb_id: None,
        tmdb_id: None,
    };
    let publish = async |from: u64| {
        let mut records: Vec<Outgoing> = (from..from + 100)
            .flat_map(|n| {
                [
                    Outgoing::of(&log(n, MAY, &[1, 2])),
                    Outgoing::of(&view(n, MAY, 1)),
                ]
            })
            .collect();
        records.push(Outgoing::of(&movie(7, &format!("Title {from}"))));
        records.push(Outgoing::of(&movie(100 + u32::try_from(from).unwrap(), "Other")));
        publisher.publish_all(&records).await.unwrap();
    };
    let titles = async |engine: &SqlEngine| {
        let result = engine
            .run("SELECT title FROM movies ORDER BY movie_id")
            .await
            .unwrap();
        assert_eq!(result.notices, Vec::<String>::new());
        result.render(Format::Csv).unwrap()
    };
    publish(0).await;
    let hot = lake(&dir).with_hot_tail(bus.clone());
    assert_eq!(count(&lake(&dir), "request_logs").await, (0, 0));
    assert_eq!(count(&hot, "request_logs").await, (100, 100));
    assert_eq!(count(&hot, "impressions").await, (200, 100));
    assert_eq!(titles(&hot).await, "title\nTitle 0\nOther\n");

    let running = Running::start(&config, &bus, Arc::new(SystemClock));
    let counts = Arc::clone(&running.counts);
    eventually_async("all records read", PATIENCE, || {
        (counts.taken() >= 202).then_some(())
    })
    .await;
    let engine = lake(&dir);
    // Nothing is due: what is buffered is visible only as the hot tail, and is written by the stop.
    assert_eq!(count(&engine, "request_logs").await, (0, 0));
    assert_eq!(count(&hot, "request_logs").await, (100, 100));
    running.stop().await;
    assert_eq!(count(&engine, "request_logs").await, (100, 100));
    assert_eq!(count(&engine, "interactions").await, (100, 100));
    assert_eq!(count(&hot, "request_logs").await, (100, 100));
    publish(1_000).await;
    assert_eq!(count(&engine, "request_logs").await, (100, 100));
    assert_eq!(count(&hot, "request_logs").await, (200, 200));
    assert_eq!(count(&hot, "interactions").await, (200, 200));
    assert_eq!(titles(&hot).await, "title\nTitle 1000\nOther\nOther\n");

    broker.stop();
    let options = SqlOptions {
        hot: marquee_replay::sql::HotOptions {
            timeout_ms: 300,
            ..Default::default()
        },
        ..SqlOptions::default()
    };
    let alone = SqlEngine::new(dir.path(), options).unwrap().with_hot_tail(bus);
    let result = alone.run("SELECT * FROM request_logs").await.unwrap();
    assert_eq!(
        (result.num_rows(), result.notices.len()),
        (100, 1),
        "{:?}",
        result.notices
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_served_is_evaluated_once_its_window_is_over_and_never_twice() {
    let (_broker, bus, publisher, dir) = world().await;
    let config = config(dir.path());
    let minute = 60_000;
    let mut records = Vec::new();
    for user in 0..20 {
        records.push(Outgoing::of(&log(user, MAY + minute, &[1, 2, 3])));
        // Half of the users go on to watch what was shown second, the others something else.
        let movie = if user % 2 == 0 { 2 } else { 9 };
        records.push(Outgoing::of(&view(user, MAY + 2 * minute, movie)));
    }
    publisher.publish_all(&records).await.unwrap();
    let clock = ManualClock::at(MAY + 39 * minute);
    let metrics = async || published::<QualityMetric>(&bus).await;
    let running = Running::start(&config, &bus, Arc::new(clock.clone()));
    let counts = Arc::clone(&running.counts);
    eventually_async("all rows", PATIENCE, || {
        clock.advance(1);
        (counts.rows() >= 40).then_some(())
    })
    .await;
    assert_eq!(metrics().await, []);
    clock.advance(2 * minute);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while metrics().await.len() < 6 {
        assert!(tokio::time::Instant::now() < deadline, "no metrics");
    }
    running.stop().await;

    let found = metrics().await;
    // Three figures of all lists, and the same of the cold ones, which all of them are. Nothing reports clicks.
    assert_eq!(found.len(), 6);
    assert_eq!(found[0].name, "next_interaction_hit_rate@10");
    assert_eq!(
        (found[0].population.as_str(), found[3].population.as_str()),
        ("all", "cold")
    );
    assert_eq!((found[0].value, found[0].n), (0.5, 20));
    assert_eq!(
        (found[0].window_start_ms, found[0].window_end_ms),
        (MAY, MAY + 10 * minute)
    );
    assert_eq!(found[1].name, "next_interaction_ndcg@10");
    assert!((found[1].value - 0.5 / 3_f64.log2()).abs() < 1e-9);

    // The next window, after a restart: only its own figures are added.
    publisher
        .publish_all(&[
            Outgoing::of(&log(1, MAY + 11 * minute, &[1, 2, 3])),
            Outgoing::of(&view(1, MAY + 12 * minute, 1)),
        ])
        .await
        .unwrap();
    let again = Running::start(&config, &bus, Arc::new(clock.clone()));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while metrics().await.len() < 12 {
        clock.advance(minute);
        assert!(tokio::time::Instant::now() < deadline, "no metrics");
    }
    again.stop().await;
    let found = metrics().await;
    let ids: BTreeSet<&str> = found.iter().map(|metric| metric.metric_id.as_str()).collect();
    assert_eq!((found.len(), ids.len()), (12, 12));
    assert_eq!(
        (found[6].value, found[6].window_start_ms),
        (1.0, MAY + 10 * minute)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_requests_were_answered_is_published_by_model_and_a_passed_limit_raises_one_alert() {
    let (_broker, bus, publisher, dir) = world().await;
    let mut config = config(dir.path());
    config.evaluation.enabled = false;
    config.monitoring.enabled = true;
    let minute = 60_000;
    // Two minutes; the second model fails every fourth request in both.
    let mut records = Vec::new();
    for n in 0..400_u64 {
        let mut request = log(n, MAY + i64::try_from(n % 2).unwrap() * minute, &[1, 2]);
        request.latency_ms = f64::from(u32::try_from(n / 4 + 1).unwrap());
        let challenger = n / 2 % 2 == 1;
        request.model_version = Some(ModelVersion::from_ordinal(1 + u64::from(challenger)));
        if challenger && n / 4 % 4 == 0 {
            request.status = if n / 4 % 8 == 0 { 503 } else { 408 };
        }
        if n / 4 % 2 == 0 {
            request.fallback_reason = Some("unknown_user".into());
        }
        records.push(Outgoing::of(&request));
        // Nobody saw a shadow list, and nobody waited for it.
        request.endpoint = Endpoint::Shadow;
        request.latency_ms = 1e6;
        records.push(Outgoing::of(&request));
    }
    publisher.publish_all(&records).await.unwrap();
    let clock = ManualClock::at(MAY + 3 * minute);
    let running = Running::start(&config, &bus, Arc::new(clock.clone()));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while published::<QualityMetric>(&bus).await.len() < 12 {
        clock.advance(1_000);
        assert!(tokio::time::Instant::now() < deadline, "no figures");
    }
    running.stop().await;

    let found = published::<QualityMetric>(&bus).await;
    let ids: BTreeSet<&str> = found.iter().map(|metric| metric.metric_id.as_str()).collect();
    assert_eq!((found.len(), ids.len()), (12, 12));
    let of = |name: &str, version: u64| -> Vec<f64> {
        let version = ModelVersion::from_ordinal(version);
        let of_model = found
            .iter()
            .filter(|metric| metric.name == name && metric.model_version.as_ref() == Some(&version));
        of_model
            .inspect(|metric| {
                assert_eq!(
                    (metric.scope.as_str(), metric.population.as_str()),
                    ("model", "all")
                );
                assert_eq!(metric.n, 100);
                assert!(metric.lo.unwrap() <= metric.value && metric.value <= metric.hi.unwrap());
            })
            .map(|metric| metric.value)
            .collect()
    };
    assert_eq!(of(online::LATENCY_P95_MS, 1), [95.0, 95.0]);
    assert_eq!(of(online::ERROR_RATE, 1), [0.0, 0.0]);
    assert_eq!(of(online::ERROR_RATE, 2), [0.25, 0.25]);
    assert_eq!(of(online::FALLBACK_RATE, 2), [0.5, 0.5]);

    // Two windows of one stretch show the same condition: one alert.
    let alerts = published::<Alert>(&bus).await;
    let conditions: Vec<&str> = alerts.iter().map(|alert| alert.condition.as_str()).collect();
    assert_eq!(conditions, ["error_rate_high"]);
    assert_eq!(alerts[0].source, "replay");
    assert!(alerts[0].message.contains("v000002"), "{}", alerts[0].message);
}
