use std::sync::{Arc, Mutex};

use super::*;
use crate::registry::{self, ModelState};
use crate::snapshot::bounds_of;
use crate::{manual_retrain_event, testing};
use marquee_runtime::ManualClock;
use marquee_schemas::{ModelEvent, ModelEventKind, Topic};

/// The world outside the trainer: the log with its events, and what was published. It survives kills.
#[derive(Clone)]
struct World {
    dir: Arc<tempfile::TempDir>,
    /// Interactions in the log.
    events: Arc<Mutex<u64>>,
    /// Retrain records.
    retrains: Arc<Mutex<Vec<RawRecord>>>,
    published: Arc<Mutex<Vec<Outgoing>>>,
    /// Reads that fail as a broker that is away does.
    refuse: Arc<Mutex<Option<&'static str>>>,
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
    fn new() -> Self {
        Self {
            dir: Arc::new(tempfile::tempdir().unwrap()),
            events: Arc::new(Mutex::new(900)),
            retrains: Arc::default(),
            published: Arc::default(),
            refuse: Arc::default(),
        }
    }

    fn ask(&self, event: &RetrainEvent) {
        self.ask_bytes(Some(marquee_schemas::encode(event)));
    }

    fn ask_bytes(&self, value: Option<Vec<u8>>) {
        let mut retrains = self.retrains.lock().unwrap();
        let offset = retrains.len() as i64;
        retrains.push(RawRecord {
            topic: Topic::RetrainEvents,
            partition: 0,
            offset,
            timestamp_ms: 1,
            key: None,
            value,
        });
    }

    fn grow(&self, by: u64) {
        *self.events.lock().unwrap() += by;
    }

    fn config(&self) -> Config {
        Config {
            registry_dir: self.dir.path().join("registry"),
            threads: 1,
            max_attempts: 3,
            ..Config::default()
        }
    }

    fn worker(&self) -> Worker<World, World> {
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

    /// What a subscriber does with a worker: everything from its checkpoint, in batches of `batch`.
    fn drive(&self, worker: &mut Worker<World, World>, batch: usize) -> Result<(), Error> {
        worker.settle()?;
        loop {
            let next = worker
                .registry()
                .state()
                .next_offsets
                .get(&0)
                .copied()
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
                return Ok(());
            }
            worker.take(&records)?;
        }
    }

    fn model_events(&self) -> Vec<ModelEvent> {
        let published = self.published.lock().unwrap();
        published
            .iter()
            .filter(|record| record.topic == Topic::ModelEvents)
            .map(|record| marquee_schemas::decode(record.value.as_deref().unwrap()).unwrap())
            .collect()
    }

    /// Published ids, each once, as consumers that deduplicate see them.
    fn distinct_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for event in self.model_events() {
            if !ids.contains(&event.event_id) {
                ids.push(event.event_id);
            }
        }
        ids
    }
}

fn ask(reason: &str) -> RetrainEvent {
    manual_retrain_event(reason, &ManualClock::at(5))
}

#[test]
fn a_retrain_event_gives_a_version_that_loads_and_two_events() {
    let world = World::new();
    world.ask(&ask("first"));
    let mut worker = world.worker();
    world.drive(&mut worker, 10).unwrap();
    assert_eq!(world.distinct_ids(), ["v000001/trained", "v000001/promoted"]);
    let events = world.model_events();
    let promoted = &events[1];
    assert_eq!(promoted.reason.split(':').next(), Some("first model"));
    assert!(promoted.numbers.contains_key("ndcg@10"));
    assert_eq!(promoted.retrain_event_id, Some(ask("first").event_id));
    let bundle = Bundle::of_event(promoted, &world.config().registry_dir)
        .unwrap()
        .unwrap();
    assert_eq!(bundle.manifest.offsets, promoted.offsets);
    assert!(worker.registry().state().outbox.is_empty() && worker.registry().state().run.is_none());
}

#[test]
fn a_kill_after_any_step_loses_nothing_and_doubles_nothing() {
    let undisturbed = World::new();
    undisturbed.ask(&ask("first"));
    undisturbed.drive(&mut undisturbed.worker(), 10).unwrap();
    let expected = registry::list(&undisturbed.config().registry_dir).unwrap();

    for step in [
        Durable::RunRecorded,
        Durable::BundleStored,
        Durable::Committed,
        Durable::EventsSent,
    ] {
        let world = World::new();
        world.ask(&ask("first"));
        {
            let mut worker = world.worker();
            worker.kill_after = Some(step);
            world.drive(&mut worker, 10).unwrap_err();
            // Nobody learns of a model before its bundle is there and the registry names it.
            let known = registry::list(&world.config().registry_dir).unwrap();
            assert!(known.len() == 1 || world.model_events().is_empty(), "{step:?}");
        }
        // More data arrives while the process is down; the recorded run must not see it.
        world.grow(120);
        let mut worker = world.worker();
        world.drive(&mut worker, 10).unwrap();
        assert_eq!(
            world.distinct_ids(),
            ["v000001/trained", "v000001/promoted"],
            "{step:?}"
        );
        let versions = registry::list(&world.config().registry_dir).unwrap();
        assert_eq!(versions, expected, "{step:?}: the same run gives the same bundle");
        drop(worker);
        // The event is delivered once more: it was answered.
        world.ask(&ask("first"));
        world.drive(&mut world.worker(), 10).unwrap();
        assert_eq!(
            registry::list(&world.config().registry_dir).unwrap().len(),
            1,
            "{step:?}"
        );
    }
}

#[test]
fn events_that_wait_together_are_answered_by_one_training_with_all_their_reasons() {
    let world = World::new();
    for reason in ["one", "two", "three"] {
        world.ask(&ask(reason));
    }
    world.ask(&ask("two"));
    world.drive(&mut world.worker(), 10).unwrap();
    let versions = registry::list(&world.config().registry_dir).unwrap();
    assert_eq!(versions.len(), 1);
    assert_eq!(versions[0].retrain_event_ids.len(), 3);
    assert_eq!(
        world.model_events()[0].reason,
        "manual: one; manual: two; manual: three"
    );
}

#[test]
fn later_events_train_later_versions_on_more_data() {
    let world = World::new();
    world.ask(&ask("one"));
    world.drive(&mut world.worker(), 1).unwrap();
    world.grow(400);
    world.ask(&ask("two"));
    world.drive(&mut world.worker(), 1).unwrap();
    let versions = registry::list(&world.config().registry_dir).unwrap();
    assert_eq!(versions.len(), 2);
    assert!(
        versions[1].decision.numbers.contains_key("champion_ndcg@10"),
        "{:?}",
        versions[1]
    );
    assert_eq!(
        versions[1].state == ModelState::Production,
        versions[1].decision.promoted
    );
    let ends = |entry: &registry::Entry| bounds_of(&entry.offsets, Topic::Interactions);
    assert!(ends(&versions[1])[&0] > ends(&versions[0])[&0]);
}

#[test]
fn a_training_that_fails_is_an_event_and_the_next_one_is_served() {
    let world = World::new();
    *world.events.lock().unwrap() = 50;
    world.ask(&ask("too early"));
    let mut beyond = ask("no such data");
    beyond.offsets = vec![testing::at("interactions", 0, 1_000_000)];
    world.ask(&beyond);
    let mut worker = world.worker();
    world.drive(&mut worker, 1).unwrap();
    let events = world.model_events();
    assert!(events.iter().all(|event| event.kind == ModelEventKind::Failed));
    assert!(
        events[0].reason.contains("not enough data"),
        "{}",
        events[0].reason
    );
    assert!(
        events[1].reason.contains("beyond the log's end"),
        "{}",
        events[1].reason
    );

    *world.refuse.lock().unwrap() = Some("panic");
    world.grow(850);
    world.ask(&ask("panics"));
    world.drive(&mut worker, 1).unwrap();
    assert!(world.model_events()[2].reason.contains("panicked"));

    *world.refuse.lock().unwrap() = None;
    world.ask(&ask("now"));
    world.drive(&mut worker, 1).unwrap();
    assert_eq!(worker.registry().state().champion().unwrap().0, "v000001");
}

#[test]
fn a_damaged_champion_is_replaced_and_the_reason_says_so() {
    let world = World::new();
    world.ask(&ask("one"));
    world.drive(&mut world.worker(), 1).unwrap();
    let models = registry::models_dir(&world.config().registry_dir);
    std::fs::write(models.join("v000001/model.safetensors"), b"oops").unwrap();
    world.ask(&ask("two"));
    world.drive(&mut world.worker(), 1).unwrap();
    let newest = registry::show(&world.config().registry_dir, "champion").unwrap();
    assert_eq!(newest.version.0, "v000002");
    assert!(
        newest.decision.reason.contains("cannot be loaded"),
        "{}",
        newest.decision.reason
    );
}

#[test]
fn unreadable_retrain_events_are_dead_lettered_and_passed() {
    let world = World::new();
    world.ask_bytes(Some(b"{oops".to_vec()));
    world.ask_bytes(None);
    world.drive(&mut world.worker(), 10).unwrap();
    let published = world.published.lock().unwrap();
    let letters: Vec<DeadLetter> = published
        .iter()
        .map(|record| marquee_schemas::decode(record.value.as_deref().unwrap()).unwrap())
        .collect();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].payload.0, b"{oops");
    assert_eq!(letters[1].reason, Reason::Empty);
    drop(published);
    assert_eq!(world.worker().registry().state().next_offsets[&0], 2);
}

#[test]
fn a_stop_abandons_the_training_at_once_and_the_next_start_repeats_it() {
    let world = World::new();
    world.ask(&ask("one"));
    *world.refuse.lock().unwrap() = Some("hang");
    let mut worker = world.worker();
    let token = worker.token.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(60));
        token.cancel();
    });
    let error = world.drive(&mut worker, 1).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(worker.registry().state().run.as_ref().unwrap().attempts, 0);
    stopper.join().unwrap();
    drop(worker);
    *world.refuse.lock().unwrap() = None;
    world.drive(&mut world.worker(), 1).unwrap();
    assert_eq!(world.distinct_ids(), ["v000001/trained", "v000001/promoted"]);
}

#[test]
fn a_run_that_keeps_killing_its_process_is_given_up_as_failed() {
    let world = World::new();
    world.ask(&ask("deadly"));
    for _ in 0..3 {
        let mut worker = world.worker();
        worker.kill_after = Some(Durable::BundleStored);
        world.drive(&mut worker, 1).unwrap_err();
    }
    world.drive(&mut world.worker(), 1).unwrap();
    let events = world.model_events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, ModelEventKind::Failed);
    assert!(events[0].reason.contains("given up"), "{}", events[0].reason);
}
