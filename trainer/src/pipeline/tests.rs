use std::sync::{Arc, Mutex};

use super::*;
use crate::registry::{self, ModelState};
use crate::snapshot::bounds_of;
use crate::{Bundle, manual_retrain_event, testing};
use marquee_runtime::ManualClock;
use marquee_schemas::{
    DeadLetter, ModelAction, ModelCommand, ModelEvent, ModelEventKind, QualityMetric, Reason, RetrainEvent,
    SchemaVersion, Topic, online,
};

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
        retrains.push(record(Topic::RetrainEvents, offset, value));
    }

    fn grow(&self, by: u64) {
        *self.events.lock().unwrap() += by;
    }

    fn config(&self) -> Config {
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

    /// What a subscriber does with a worker: everything from its checkpoint, in batches of `batch`, then ticks until
    /// nothing is left to do.
    fn drive(&self, worker: &mut Worker<World, World>, batch: usize) -> Result<(), Error> {
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

    fn settle(&self, worker: &mut Worker<World, World>) -> Result<(), Error> {
        self.tick_until(worker, Worker::is_idle)
    }

    fn tick_until(
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

    fn command(&self, id: &str, action: ModelAction, version: Option<&str>, offset: i64) -> RawRecord {
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

    fn stages(&self) -> Vec<String> {
        let all = self.all_model_events();
        let stages = all
            .iter()
            .filter(|event| event.kind == ModelEventKind::TrainingStage);
        stages.map(|event| event.reason.clone()).collect()
    }

    /// All but the progress.
    fn model_events(&self) -> Vec<ModelEvent> {
        let mut events = self.all_model_events();
        events.retain(|event| event.kind != ModelEventKind::TrainingStage);
        events
    }

    fn all_model_events(&self) -> Vec<ModelEvent> {
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

fn record(topic: Topic, offset: i64, value: Option<Vec<u8>>) -> RawRecord {
    RawRecord {
        topic,
        partition: 0,
        offset,
        timestamp_ms: 1,
        key: None,
        value,
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
        Durable::Taken,
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
        if step != Durable::Taken {
            world.grow(120);
        }
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
        versions[1].decision.numbers.contains_key("gain"),
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
    assert_eq!(
        world
            .worker()
            .registry()
            .state()
            .position(Topic::RetrainEvents, 0),
        Some(2)
    );
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

#[test]
fn events_that_arrive_while_a_training_runs_wait_and_join_the_next_one() {
    let world = World::new();
    world.ask(&ask("first"));
    let mut worker = world.worker();
    let offset = |n: usize| world.retrains.lock().unwrap()[n].clone();
    worker.take(&[offset(0)]).unwrap();
    world
        .tick_until(&mut worker, |worker| worker.registry().state().run.is_some())
        .unwrap();
    for reason in ["second", "third"] {
        world.ask(&ask(reason));
    }
    worker.take(&[offset(1), offset(2)]).unwrap();
    assert!(worker.registry().state().pending.len() == 2 || worker.registry().state().versions.len() == 1);
    world.settle(&mut worker).unwrap();
    let versions = registry::list(&world.config().registry_dir).unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(
        versions[1].retrain_event_ids,
        [ask("second").event_id, ask("third").event_id]
    );
    let joined = world
        .model_events()
        .into_iter()
        .find(|event| event.version.0 == "v000002")
        .unwrap();
    assert_eq!(joined.joined_retrain_event_ids, [ask("third").event_id]);
}

#[test]
fn progress_names_every_stage_once_and_ends_with_the_peak_of_the_memory() {
    let world = World::new();
    world.ask(&ask("first"));
    world.drive(&mut world.worker(), 10).unwrap();
    assert_eq!(
        world.stages(),
        [
            "snapshot",
            "validate",
            "fit_for_evaluation",
            "evaluate",
            "fit",
            "serialise",
            "done"
        ]
    );
    let all = world.all_model_events();
    let done = all.iter().find(|event| event.reason == "done").unwrap();
    assert_eq!(done.retrain_event_id, Some(ask("first").event_id));
    assert!(done.numbers.contains_key("elapsed_ms"));
    if cfg!(target_os = "linux") {
        assert!(done.numbers["peak_memory_bytes"] > 1e6);
    }
}

#[test]
fn a_cancelled_training_fails_its_events_at_once_and_leaves_no_model() {
    let world = World::new();
    world.ask(&ask("one"));
    *world.refuse.lock().unwrap() = Some("hang");
    let mut worker = world.worker();
    worker.take(&[world.retrains.lock().unwrap()[0].clone()]).unwrap();
    world
        .tick_until(&mut worker, |worker| worker.training.is_some())
        .unwrap();
    let cancel = world.command("c1", ModelAction::CancelTraining, None, 0);
    worker.take(std::slice::from_ref(&cancel)).unwrap();
    assert!(worker.registry().state().run.is_none());
    *world.refuse.lock().unwrap() = None;
    world.settle(&mut worker).unwrap();
    let events = world.model_events();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].kind, events[0].command_id.as_deref()),
        (ModelEventKind::Failed, Some("c1"))
    );
    assert!(
        events[0].reason.contains("cancelled: by the test (by ada)"),
        "{}",
        events[0].reason
    );
    // Neither the command, delivered again, nor another one finds anything to cancel.
    worker.take(&[cancel]).unwrap();
    let again = world.command("c2", ModelAction::CancelTraining, None, 1);
    worker.take(&[again]).unwrap();
    world.settle(&mut worker).unwrap();
    let events = world.model_events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].event_id, "refused/c2");
    assert_eq!(events[1].kind, ModelEventKind::CommandRefused);
    assert!(registry::list(&world.config().registry_dir).unwrap().is_empty());
}

/// A world with a champion and a challenger that is staged.
fn staged() -> (World, Worker<World, World>) {
    let world = World::new();
    let mut worker = world.worker();
    worker.config.rollout.enabled = true;
    worker.config.rollout.min_stage_ms = 0;
    // Whatever comes second passes: what is tried here comes after the gate.
    worker.config.gate.min_relative_gain = -0.99;
    worker.config.gate.max_secondary_loss = 1.0;
    worker.config.gate.floors.clear();
    world.ask(&ask("one"));
    world.drive(&mut worker, 1).unwrap();
    (world, worker)
}

fn figures(offset: i64, ctr: f64) -> Vec<RawRecord> {
    [(1, 0.2), (2, ctr)]
        .into_iter()
        .zip(offset..)
        .map(|((version, value), offset)| {
            let version = marquee_schemas::ModelVersion::from_ordinal(version);
            let figure = QualityMetric {
                schema_version: SchemaVersion,
                metric_id: format!("ctr/{version}/{offset}"),
                name: online::CTR.to_owned(),
                scope: "model".to_owned(),
                population: "all".to_owned(),
                model_version: Some(version),
                value,
                lo: None,
                hi: None,
                n: 20_000,
                window_start_ms: 100,
                window_end_ms: 200,
            };
            record(
                Topic::QualityMetrics,
                offset,
                Some(marquee_schemas::encode(&figure)),
            )
        })
        .collect()
}

/// Stages the second model by hand where the gate would not have let it pass.
fn stage_second(world: &World, worker: &mut Worker<World, World>) -> bool {
    world.grow(400);
    world.ask(&ask("two"));
    let next = worker
        .registry()
        .state()
        .position(Topic::RetrainEvents, 0)
        .unwrap() as usize;
    let record = world.retrains.lock().unwrap()[next].clone();
    worker.take(&[record]).unwrap();
    world
        .tick_until(worker, |worker| worker.registry().state().versions.len() == 2)
        .unwrap();
    worker.registry().state().rollout.is_some()
}

fn shares(world: &World) -> Vec<f64> {
    world
        .model_events()
        .iter()
        .filter_map(ModelEvent::rollout_share)
        .collect()
}

#[test]
fn a_challenger_is_rolled_out_in_steps_on_evidence_and_a_kill_repeats_no_step() {
    let (world, mut worker) = staged();
    assert!(
        stage_second(&world, &mut worker),
        "{:?}",
        worker.registry().state().versions[1]
    );
    world
        .tick_until(&mut worker, |worker| {
            worker.registry().state().rollout.as_ref().unwrap().stage == 1
        })
        .unwrap();
    // At ten percent nothing moves without figures.
    for _ in 0..3 {
        worker.tick().unwrap();
    }
    assert_eq!(shares(&world), [0.0, 0.1]);
    let config = worker.config.clone();
    let mut offset = 0;
    for expected in [2, 3] {
        worker.kill_after = Some(Durable::RolloutMoved);
        worker.take(&figures(offset, 0.25)).unwrap();
        worker.tick().unwrap_err();
        drop(worker);
        // The figures are delivered again to the next start.
        worker = world.worker();
        worker.config = config.clone();
        worker.take(&figures(offset, 0.25)).unwrap();
        world.settle(&mut worker).unwrap();
        offset += 2;
        let moved = worker
            .registry()
            .state()
            .rollout
            .as_ref()
            .map_or(3, |rollout| rollout.stage);
        assert_eq!(moved, expected);
    }
    assert_eq!(shares(&world), [0.0, 0.1, 0.5]);
    let last = world.model_events().pop().unwrap();
    assert_eq!(
        (last.kind, last.version.0.as_str()),
        (ModelEventKind::Promoted, "v000002")
    );
    assert_eq!(last.numbers["champion_ctr"], 0.2);
    assert_eq!(worker.registry().state().champion().unwrap().0, "v000002");
}

#[test]
fn a_challenger_that_is_bad_online_is_rolled_back_by_itself() {
    let (world, mut worker) = staged();
    assert!(stage_second(&world, &mut worker));
    world
        .tick_until(&mut worker, |worker| {
            worker.registry().state().rollout.as_ref().unwrap().stage == 1
        })
        .unwrap();
    worker.take(&figures(0, 0.05)).unwrap();
    world.settle(&mut worker).unwrap();
    let last = world.model_events().pop().unwrap();
    assert_eq!(
        (last.kind, last.version.0.as_str()),
        (ModelEventKind::RolledBack, "v000001")
    );
    assert_eq!(last.previous.unwrap().0, "v000002");
    assert!(last.reason.contains("ctr 0.0500"), "{}", last.reason);
    let state = worker.registry().state();
    assert_eq!(state.champion().unwrap().0, "v000001");
    assert_eq!(state.find("v000002").unwrap().state, ModelState::Archived);
}

#[test]
fn a_person_may_take_each_step_and_end_the_rollout() {
    let (world, mut worker) = staged();
    worker.config.rollout.min_stage_ms = 1_000_000;
    assert!(stage_second(&world, &mut worker));
    worker
        .take(&[world.command("go", ModelAction::AdvanceRollout, None, 0)])
        .unwrap();
    worker.tick().unwrap();
    assert_eq!(shares(&world), [0.0, 0.1]);
    let stepped = world.model_events().pop().unwrap();
    assert_eq!(stepped.command_id.as_deref(), Some("go"));
    worker
        .take(&[world.command("end", ModelAction::Rollback, None, 1)])
        .unwrap();
    worker.tick().unwrap();
    assert!(worker.registry().state().rollout.is_none());
    // And may promote what was archived, or name what does not exist.
    worker
        .take(&[
            world.command("up", ModelAction::Promote, Some("v000002"), 2),
            world.command("up?", ModelAction::Promote, Some("v000099"), 3),
        ])
        .unwrap();
    worker.tick().unwrap();
    assert_eq!(worker.registry().state().champion().unwrap().0, "v000002");
    let events = world.model_events();
    let last_two: Vec<_> = events.iter().rev().take(2).map(|event| event.kind).collect();
    assert_eq!(
        last_two,
        [ModelEventKind::CommandRefused, ModelEventKind::Promoted]
    );
}
