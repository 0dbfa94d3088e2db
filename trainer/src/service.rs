//! The service: reads `retrain-events`, trains, publishes `model-events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use marquee_runtime::bus::{Handler, Outgoing, Publisher, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::{PartitionOffset, Topic};
use tokio_util::sync::CancellationToken;

use crate::pipeline::{Sink, Source, Worker};
use crate::snapshot::{Snapshot, SnapshotReader};
use crate::{Config, Error, Registry};

/// The trainer.
///
/// One training at a time. Retrain events that arrive meanwhile wait in their topic; when the training ends, all that
/// wait are answered by one further training, which carries all their reasons. The position in the topic is stored
/// with the registry, so a retrain event is answered exactly once, whenever the process is killed. A training that
/// fails becomes a `failed` event; only a registry that cannot be written, or a broker that refuses for good, ends
/// the service.
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
        let worker = Worker::new(self.config, registry, source, sink, self.clock, token.clone());
        let subscriber = self.bus.subscriber(
            &[Topic::RetrainEvents],
            SubscriberConfig::new("marquee-trainer", Subscription::All),
        );
        match subscriber.run(Retrains(worker), token.clone()).await {
            Ok(_) => Ok(()),
            Err(BusError::Handler(error)) => match error.downcast::<Error>() {
                Ok(error) if matches!(*error, Error::Cancelled) && token.is_cancelled() => Ok(()),
                Ok(error) => Err(*error),
                Err(error) => Err(Error::Bus(BusError::Handler(error))),
            },
            Err(error) => Err(Error::Bus(error)),
        }
    }
}

/// The worker as the subscriber sees it. It trains on the polling thread: the partitions are assigned by hand, so no
/// group can time out, and not polling is what makes further events wait.
struct Retrains(Worker<BusSource, BusSink>);

impl Handler for Retrains {
    type Error = Error;

    fn assigned(&mut self, _topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Error> {
        let next = &self.0.registry().state().next_offsets;
        Ok(partitions
            .iter()
            .map(|partition| {
                let start = next
                    .get(partition)
                    .map_or(Start::Earliest, |&offset| Start::At(offset));
                (*partition, start)
            })
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Error> {
        self.0.take(&batch)
    }

    fn tick(&mut self) -> Result<(), Error> {
        self.0.settle()
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
