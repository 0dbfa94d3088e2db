//! From a pre-filled topic to the changelog, through a broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use marquee_feature_processor::{BusSink, Config, Error, Processor, TopicCatalogue};
use marquee_runtime::SystemClock;
use marquee_runtime::bus::{
    Bus, BusConfig, Handler, Outgoing, RawRecord, Start, SubscriberConfig, Subscription,
};
use marquee_schemas::{ALL_TOPICS, Movie, MovieId, SchemaVersion, Topic};
use marquee_testkit::Broker;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::stream::{MOVIES, Stream, USERS, genres};
use crate::{Outcome, files_mib, number, peak_rss_mib, worker};

/// Records sent before their acknowledgements are waited for.
const SEND: usize = 50_000;

pub(crate) fn embedded(events: u64, figures: &mut BTreeMap<String, Value>) -> Outcome<()> {
    through("embedded", &Broker::embedded(), events, figures)
}

pub(crate) fn kafka(events: u64, figures: &mut BTreeMap<String, Value>) -> Outcome<()> {
    match Broker::apache() {
        Ok(broker) => through("kafka", &broker, events, figures),
        Err(error) => {
            println!("skipped: {error}");
            figures.insert("kafka_skipped".into(), json!(error.to_string()));
            Ok(())
        }
    }
}

fn through(name: &str, broker: &Broker, events: u64, figures: &mut BTreeMap<String, Value>) -> Outcome<()> {
    let bus = broker.bus();
    let begun = Instant::now();
    runtime()?.block_on(fill(&bus, events))?;
    println!(
        "{name}: {events} events published in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let plain = worker(&["topic", "read", &broker.brokers()])?;
    let folded = worker(&["topic", "fold", &broker.brokers()])?;
    for (what, result) in [("plain consumer", &plain), ("processor and changelog", &folded)] {
        println!(
            "{what:<24} {:>10.0} events/s, peak {:.0} MiB",
            number(result, "events_per_second")?,
            number(result, "peak_rss_mib")?
        );
    }
    for (figure, value) in [
        ("plain_consumer_events_per_second", &plain["events_per_second"]),
        ("end_to_end_events_per_second", &folded["events_per_second"]),
        ("peak_rss_mib", &folded["peak_rss_mib"]),
        ("files_mib", &folded["files_mib"]),
    ] {
        figures.insert(format!("{name}_{figure}"), value.clone());
    }
    Ok(())
}

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Creates the topics, publishes the catalogue and `events` interactions.
pub(crate) async fn fill(bus: &Bus, events: u64) -> Outcome<()> {
    bus.ensure_topics(&ALL_TOPICS).await?;
    let publisher = bus.publisher("marquee-bench")?;
    let movies: Vec<Outgoing> = (1..=MOVIES)
        .map(|movie| {
            Outgoing::of(&Movie {
                schema_version: SchemaVersion,
                movie_id: MovieId(movie),
                title: format!("Movie {movie}"),
                year: None,
                genres: genres(movie),
                imdb_id: None,
                tmdb_id: None,
            })
        })
        .collect();
    publisher.publish_all(&movies).await?;
    let mut stream = Stream::new(USERS, 30.0);
    let mut left = usize::try_from(events)?;
    while left > 0 {
        let count = left.min(SEND);
        let records: Vec<Outgoing> = stream
            .by_ref()
            .take(count)
            .map(|event| Outgoing::of(&event))
            .collect();
        publisher.publish_all(&records).await?;
        left -= count;
    }
    Ok(())
}

/// Ends its subscriber once every partition has been handled to the end that was named.
struct Until<H> {
    inner: H,
    /// Partition → end, of those that are not reached.
    open: BTreeMap<i32, i64>,
    token: CancellationToken,
}

impl<H: Handler<Error = Error>> Handler for Until<H> {
    type Error = Error;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Error> {
        self.inner.assigned(topic, partitions)
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Error> {
        let mut reached = BTreeMap::new();
        for record in &batch {
            reached.insert(record.partition, record.next_offset());
        }
        self.inner.handle(batch)?;
        for (partition, next) in reached {
            if self.open.get(&partition).is_some_and(|&end| next >= end) {
                self.open.remove(&partition);
            }
        }
        if self.open.is_empty() {
            self.token.cancel();
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Error> {
        self.inner.tick()
    }
}

/// `read` or `fold`, and the brokers.
pub(crate) fn consume(words: &[&str]) -> Outcome<Value> {
    let &[mode, brokers] = words else {
        return Err(format!("{words:?} is no consumer").into());
    };
    let bus = Bus::new(BusConfig::for_brokers(brokers));
    let watermarks = bus.watermarks_blocking(Topic::Interactions)?;
    let events = watermarks.len() as f64;
    let folder = tempfile::tempdir()?;
    let seconds = match mode {
        "read" => {
            let begun = Instant::now();
            let nowhere = BTreeMap::new();
            let mut bytes = 0;
            bus.read_range(Topic::Interactions, &nowhere, &watermarks.ends(), |record| {
                bytes += record.value.map_or(0, |value| value.len());
                Ok::<(), Error>(())
            })?;
            if bytes == 0 {
                return Err("an empty topic".into());
            }
            begun.elapsed()
        }
        "fold" => {
            let token = CancellationToken::new();
            let config = Config {
                state_dir: folder.path().to_owned(),
                // As `marquee up` has it: there is no other process to copy rows for.
                copy_rows_every_ms: 0,
                ..Config::default()
            };
            let mut reading = SubscriberConfig::new("marquee-bench-processor", Subscription::All);
            reading.max_batch = config.max_batch_records;
            let publisher = bus.publisher("marquee-bench-processor")?;
            let sink = BusSink::new(publisher, token.clone(), Arc::new(SystemClock));
            let movies = TopicCatalogue::new(bus.clone(), token.clone());
            let handler = Until {
                inner: Processor::new(config, Arc::new(SystemClock), movies, sink)?,
                open: watermarks
                    .ends()
                    .into_iter()
                    .filter(|&(_, end)| end > 0)
                    .collect(),
                token: token.clone(),
            };
            let begun = Instant::now();
            let done = runtime()?.block_on(
                bus.subscriber(&[Topic::Interactions], reading)
                    .run(handler, token),
            )?;
            let took = begun.elapsed();
            let summary = done.inner.close()?;
            let applied: u64 = summary.partitions.values().map(|counters| counters.applied).sum();
            if applied as f64 != events {
                return Err(format!("{applied} of {events} events were applied").into());
            }
            took
        }
        other => return Err(format!("no mode {other}").into()),
    }
    .as_secs_f64();
    Ok(json!({
        "events_per_second": events / seconds,
        "seconds": seconds,
        "peak_rss_mib": peak_rss_mib()?,
        "files_mib": files_mib(folder.path())?,
    }))
}
