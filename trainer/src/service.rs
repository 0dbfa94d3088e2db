//! The service: reads `retrain-events`, `model-commands` and `quality-metrics`, trains, publishes `model-events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use marquee_runtime::bus::{Handler, Outgoing, Publisher, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::{PartitionOffset, Topic};
use tokio_util::sync::CancellationToken;

use crate::pipeline::{Sink, Source, Worker};
use crate::snapshot::{Snapshot, SnapshotReader};
use crate::{Config, Error, Registry, chores, metrics};

/// The trainer.
///
/// One training at a time. Retrain events that arrive meanwhile wait in the registry; when the training ends, all that
/// wait are answered by one further training, which carries all their reasons. The positions in the topics are stored
/// with the registry, so a retrain event or command is answered exactly once, whenever the process is killed. A
/// training that fails becomes a `failed` event; only a registry that cannot be written, or a broker that refuses for
/// good, ends the service.
#[derive(Debug)]
pub struct Service {
    config: Config,
    bus: Bus,
    clock: Arc<dyn Clock>,
}

impl Service {
    /// A trainer with these settings, on this bus.
    #[must_use]
    pub fn new(config: Config, bus: Bus, clock: Arc<dyn Clock>) -> Self {
        Self { config, bus, clock }
    }

    /// Trains until `token` is cancelled. A training under way is then abandoned at once and repeated by the next
    /// start.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of their domain, [`Error::Registry`] when the registry is locked, damaged or
    /// cannot be written, [`Error::Bus`] when the broker refuses for good.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        self.config.check()?;
        let registry_dir = self.config.registry_dir.clone();
        let registry = tokio::task::spawn_blocking(move || Registry::open(&registry_dir))
            .await
            .map_err(|error| BusError::Fatal(format!("opening the registry: {error}")))??;
        tracing::info!(
            path = %self.config.registry_dir.display(),
            champion = registry.state().champion().map_or("none", |version| version.0.as_str()),
            threads = self.config.training_threads(),
            "trainer ready"
        );
        let source = BusSource(SnapshotReader::new(
            self.bus.clone(),
            self.config.cache_dir.clone(),
        ));
        let sink = BusSink(self.bus.publisher("marquee-trainer")?);
        let token_of_chores = token.child_token();
        let mirror = tokio::spawn(chores::mirror(self.config.clone(), token_of_chores.clone()));
        let exports = tokio::spawn(chores::exports(
            self.config.clone(),
            self.bus.clone(),
            token_of_chores.clone(),
        ));
        let evaluations = tokio::spawn(chores::evaluations(
            self.config.clone(),
            self.bus.clone(),
            Arc::clone(&self.clock),
            token_of_chores,
        ));
        let own = self.config.clone();
        let worker = Worker::new(self.config, registry, source, sink, self.clock, token.clone());
        let metrics = tokio::spawn(metrics::serve(own, worker.progress(), token.child_token()));
        let subscriber = self.bus.subscriber(
            &[Topic::RetrainEvents, Topic::ModelCommands, Topic::QualityMetrics],
            SubscriberConfig::new("marquee-trainer", Subscription::All),
        );
        let outcome = match subscriber.run(Retrains(worker), token.clone()).await {
            Ok(mut handler) => handler.0.stop(),
            Err(BusError::Handler(error)) => match error.downcast::<Error>() {
                Ok(error) if matches!(*error, Error::Cancelled) && token.is_cancelled() => Ok(()),
                Ok(error) => Err(*error),
                Err(error) => Err(Error::Bus(BusError::Handler(error))),
            },
            Err(error) => Err(Error::Bus(error)),
        };
        // An evaluation, an export or a call to MLflow under way is left to itself: the next start makes up for it.
        mirror.abort();
        exports.abort();
        metrics.abort();
        evaluations.abort();
        outcome
    }
}

/// The worker as the subscriber sees it.
struct Retrains(Worker<BusSource, BusSink>);

impl Handler for Retrains {
    type Error = Error;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Error> {
        let state = self.0.registry().state();
        Ok(partitions
            .iter()
            .map(|&partition| {
                // Figures expire: what is gone is no evidence any more, and what was taken is passed over.
                let position = state
                    .position(topic, partition)
                    .filter(|_| topic != Topic::QualityMetrics);
                (partition, position.map_or(Start::Earliest, Start::At))
            })
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Error> {
        self.0.take(&batch)
    }

    fn tick(&mut self) -> Result<(), Error> {
        self.0.tick()
    }
}

struct BusSource(SnapshotReader);

impl Source for BusSource {
    fn pin(&self, named: &[PartitionOffset]) -> Result<Vec<PartitionOffset>, BusError> {
        self.0.pin(named)
    }

    fn read(&self, offsets: &[PartitionOffset], stop: &dyn Fn() -> bool) -> Result<Snapshot, BusError> {
        self.0.read(offsets, stop)
    }
}

struct BusSink(Publisher);

impl Sink for BusSink {
    fn send(&self, records: &[Outgoing], stop: &dyn Fn() -> bool) -> Result<(), BusError> {
        self.0.publish_all_blocking(records, stop)
    }
}
