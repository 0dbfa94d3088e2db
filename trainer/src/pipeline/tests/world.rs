//! The world around a worker: a log, what was published, and a way to drive it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use marquee_runtime::bus::{Outgoing, RawRecord};
use marquee_runtime::{BusError, ManualClock};
use marquee_schemas::{
    ModelAction, ModelCommand, ModelEvent, ModelEventKind, PartitionOffset, RetrainEvent, SchemaVersion,
    Topic,
};
use tokio_util::sync::CancellationToken;

use super::super::{Sink, Source, Worker};
use crate::snapshot::{Snapshot, bounds_of};
use crate::{Config, Error, Registry, manual_retrain_event, testing};

/// The world outside the trainer: the log with its events, and what was published. It survives kills.
#[derive(Clone)]
pub(super) struct World {
    pub(super) dir: Arc<tempfile::TempDir>,
    /// Interactions in the log.
    pub(super) events: Arc<Mutex<u64>>,
    /// Retrain records.
    pub(super) retrains: Arc<Mutex<Vec<RawRecord>>>,
    pub(super) published: Arc<Mutex<Vec<Outgoing>>>,
    /// Reads that fail as a broker that is away does.
    pub(super) refuse: Arc<Mutex<Option<&'static str>>>,
}

impl Source for World {
    fn pin(&self, named: &[PartitionOffset]) -> Result<Vec<PartitionOffset>, BusError> {
        let named = bounds_of(named, Topic::Interactions);
        let mut all = testing::offsets_of(&testing::rows(*self.events.lock().unwrap()));
        for at in all.iter_mut().filter(|at| at.topic == "interactions") {
            if let Some(&offset) = named.get(&at.partition) {
                if offset > at.offset.0 {
                    return Err(BusError::CheckpointBeyondEnd {
                        topic: at.topic.clone(),
                        partition: at.partition,
                        offset,
                        high: at.offset.0,
                    });
                }
                at.offset.0 = offset;
            }
        }
        Ok(all)
    }

    fn read(&self, offsets: &[PartitionOffset], stop: &dyn Fn() -> bool) -> Result<Snapshot, BusError> {
        let refuse = *self.refuse.lock().unwrap();
        match refuse {
            Some("panic") => panic!("planted"),
            Some("hang") => {
                while !stop() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            _ => {}
        }
        let ends = bounds_of(offsets, Topic::Interactions);
        let mut rows = testing::rows(*self.events.lock().unwrap());
        rows.rows.retain(|row| row.offset < ends[&row.partition]);
        Ok(Snapshot::assemble(rows, testing::movies(), offsets.to_vec()))
    }
}

impl Sink for World {
    fn send(&self, records: &[Outgoing], _stop: &dyn Fn() -> bool) -> Result<(), BusError> {
        self.published.lock().unwrap().extend_from_slice(records);
        Ok(())
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            dir: Arc::new(tempfile::tempdir().unwrap()),
            events: Arc::new(Mutex::new(900)),
            retrains: Arc::default(),
            published: Arc::default(),
            refuse: Arc::default(),
        }
    }

    pub(super) fn ask(&self, event: &RetrainEvent) {
        self.ask_bytes(Some(marquee_schemas::encode(event)));
    }

    pub(super) fn ask_bytes(&self, value: Option<Vec<u8>>) {
        let mut retrains = self.retrains.lock().unwrap();
        let offset = retrains.len() as i64;
        retrains.push(record(Topic::RetrainEvents, offset, value));
    }

    pub(super) fn grow(&self, by: u64) {
        *self.events.lock().unwrap() += by;
    }

    pub(super) fn config(&self) -> Config {
        Config {
            registry_dir: self.dir.path().join("registry"),
            threads: 1,
            max_attempts: 3,
            yielding: false,
            gate: crate::GateConfig {
                // Thirty users in this world, and few positives held out.
                min_users: 10,
                ..crate::GateConfig::default()
            },
            ..Config::default()
        }
    }

    pub(super) fn worker(&self) -> Worker<World, World> {
        let config = self.config();
        let registry = Registry::open(&config.registry_dir).unwrap();
        let clock = Arc::new(ManualClock::at(77));
        Worker::new(
            config,
            registry,
            self.clone(),
            self.clone(),
            clock,
            CancellationToken::new(),
        )
    }

    /// What a subscriber does with a worker: everything from its checkpoint, in batches of `batch`, then ticks until
    /// nothing is left to do.
    pub(super) fn drive(&self, worker: &mut Worker<World, World>, batch: usize) -> Result<(), Error> {
        loop {
            let next = worker
                .registry()
                .state()
                .position(Topic::RetrainEvents, 0)
                .unwrap_or(0);
            let records: Vec<RawRecord> = self
                .retrains
                .lock()
                .unwrap()
                .iter()
                .skip(next as usize)
                .take(batch)
                .cloned()
                .collect();
            if records.is_empty() {
                return self.settle(worker);
            }
            worker.take(&records)?;
            if batch == 1 {
                self.settle(worker)?;
            }
        }
    }

    pub(super) fn settle(&self, worker: &mut Worker<World, World>) -> Result<(), Error> {
        self.tick_until(worker, Worker::is_idle)
    }

    pub(super) fn tick_until(
        &self,
        worker: &mut Worker<World, World>,
        enough: impl Fn(&Worker<World, World>) -> bool,
    ) -> Result<(), Error> {
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        while !enough(worker) {
            if worker.token.is_cancelled() {
                worker.stop()?;
                return Err(Error::Cancelled);
            }
            worker.tick()?;
            assert!(std::time::Instant::now() < deadline, "not idle in time");
            std::thread::sleep(Duration::from_millis(2));
        }
        // What is idle has told all its progress.
        worker.tick()
    }

    pub(super) fn command(
        &self,
        id: &str,
        action: ModelAction,
        version: Option<&str>,
        offset: i64,
    ) -> RawRecord {
        let command = ModelCommand {
            schema_version: SchemaVersion,
            command_id: id.to_owned(),
            action,
            version: version.map(|version| marquee_schemas::ModelVersion(version.to_owned())),
            reason: "by the test".to_owned(),
            issued_by: Some("ada".to_owned()),
            issued_at_ms: 3,
        };
        record(
            Topic::ModelCommands,
            offset,
            Some(marquee_schemas::encode(&command)),
        )
    }

    pub(super) fn stages(&self) -> Vec<String> {
        let all = self.all_model_events();
        let stages = all
            .iter()
            .filter(|event| event.kind == ModelEventKind::TrainingStage);
        stages.map(|event| event.reason.clone()).collect()
    }

    /// All but the progress.
    pub(super) fn model_events(&self) -> Vec<ModelEvent> {
        let mut events = self.all_model_events();
        events.retain(|event| event.kind != ModelEventKind::TrainingStage);
        events
    }

    pub(super) fn all_model_events(&self) -> Vec<ModelEvent> {
        let published = self.published.lock().unwrap();
        published
            .iter()
            .filter(|record| record.topic == Topic::ModelEvents)
            .map(|record| marquee_schemas::decode(record.value.as_deref().unwrap()).unwrap())
            .collect()
    }

    /// Published ids, each once, as consumers that deduplicate see them.
    pub(super) fn distinct_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for event in self.model_events() {
            if !ids.contains(&event.event_id) {
                ids.push(event.event_id);
            }
        }
        ids
    }
}

pub(super) fn record(topic: Topic, offset: i64, value: Option<Vec<u8>>) -> RawRecord {
    RawRecord {
        topic,
        partition: 0,
        offset,
        timestamp_ms: 1,
        key: None,
        value,
    }
}

pub(super) fn ask(reason: &str) -> RetrainEvent {
    manual_retrain_event(reason, &ManualClock::at(5))
}
