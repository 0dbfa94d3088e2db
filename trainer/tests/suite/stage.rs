//! A log to train on, behind librdkafka's own mock of a broker, which lives in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use marquee_runtime::bus::Outgoing;
use marquee_runtime::{Bus, BusConfig, ManualClock};
use marquee_schemas::{
    Interaction, Kind, ModelEvent, ModelEventKind, Movie, MovieId, PartitionOffset, SchemaVersion, Topic,
    UserId,
};
use marquee_trainer::snapshot::SnapshotReader;
use marquee_trainer::{Config, Service};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    pub(crate) bus: Bus,
    dir: tempfile::TempDir,
}

pub(crate) fn stage() -> Stage {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in [
        (Topic::Interactions, 2),
        (Topic::Movies, 1),
        (Topic::RetrainEvents, 1),
        (Topic::ModelEvents, 1),
        (Topic::ModelCommands, 1),
        (Topic::QualityMetrics, 1),
        (Topic::DeadLetters, 1),
    ] {
        cluster.create_topic(topic.name(), partitions, 1).unwrap();
    }
    Stage {
        bus: Bus::new(BusConfig::for_brokers(cluster.bootstrap_servers())),
        _cluster: cluster,
        dir: tempfile::tempdir().unwrap(),
    }
}

fn rating(n: u64) -> Interaction {
    let user = n % 30 + 1;
    Interaction {
        schema_version: SchemaVersion,
        event_id: format!("e{n}"),
        user_id: UserId(user),
        movie_id: Some(MovieId(((n / 30 + user * 3) % 100) as u32 + 1)),
        kind: Kind::Rating,
        rating: Some(if n.is_multiple_of(4) { 2.0 } else { 5.0 }),
        genres: Vec::new(),
        timestamp: 1_000_000 + n as i64 * 60_000,
        session_id: None,
        request_id: None,
        source: None,
    }
}

impl Stage {
    pub(crate) fn config(&self) -> Config {
        Config {
            registry_dir: self.dir.path().join("registry"),
            cache_dir: self.dir.path().join("cache"),
            threads: 1,
            yielding: false,
            ..Config::default()
        }
    }

    pub(crate) async fn publish(&self, records: Vec<Outgoing>) {
        let publisher = self.bus.publisher("test").unwrap();
        publisher.publish_all(&records).await.unwrap();
    }

    pub(crate) async fn publish_ratings(&self, from: u64, to: u64) {
        self.publish((from..to).map(|n| Outgoing::of(&rating(n))).collect())
            .await;
    }

    pub(crate) async fn publish_movies(&self) {
        let movies = (1..=100).map(|id| {
            Outgoing::of(&Movie {
                schema_version: SchemaVersion,
                movie_id: MovieId(id),
                title: format!("Movie {id}"),
                year: None,
                genres: vec!["Drama".into()],
                imdb_id: None,
                tmdb_id: None,
            })
        });
        self.publish(movies.collect()).await;
    }

    pub(crate) fn start(
        &self,
    ) -> (
        tokio::task::JoinHandle<Result<(), marquee_trainer::Error>>,
        CancellationToken,
    ) {
        self.start_with(self.config())
    }

    pub(crate) fn start_with(
        &self,
        config: Config,
    ) -> (
        tokio::task::JoinHandle<Result<(), marquee_trainer::Error>>,
        CancellationToken,
    ) {
        let token = CancellationToken::new();
        let service = Service::new(config, self.bus.clone(), Arc::new(ManualClock::at(42)));
        (tokio::spawn(service.run(token.clone())), token)
    }

    /// All events but the progress, once there are enough.
    pub(crate) async fn events(&self, enough: impl Fn(&[ModelEvent]) -> bool) -> Vec<ModelEvent> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let bus = self.bus.clone();
            let events = tokio::task::spawn_blocking(move || {
                let mut events: Vec<ModelEvent> = Vec::new();
                let nowhere = Default::default();
                bus.read_range(Topic::ModelEvents, &nowhere, &nowhere, |record| {
                    events.push(marquee_schemas::decode(
                        record.value.as_deref().unwrap_or_default(),
                    )?);
                    Ok::<_, marquee_schemas::DecodeError>(())
                })
                .unwrap();
                events.retain(|event| event.kind != ModelEventKind::TrainingStage);
                events
            })
            .await
            .unwrap();
            if enough(&events) {
                return events;
            }
            assert!(Instant::now() < deadline, "only {events:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn snapshot(
        &self,
        offsets: Vec<PartitionOffset>,
    ) -> marquee_trainer::snapshot::Snapshot {
        let reader = SnapshotReader::new(self.bus.clone(), self.config().cache_dir);
        tokio::task::spawn_blocking(move || {
            let offsets = reader.pin(&offsets).unwrap();
            reader.read(&offsets, || false).unwrap()
        })
        .await
        .unwrap()
    }
}
