//! Rollouts, on evidence and by hand.

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{ModelAction, ModelEvent, ModelEventKind, QualityMetric, SchemaVersion, Topic, online};

use super::super::{Durable, Worker};
use super::world::{World, ask, record};
use crate::registry::ModelState;

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
fn a_rollout_without_evidence_ends_with_the_champion_and_frees_the_way() {
    let (world, mut worker) = staged();
    worker.config.rollout.max_stage_ms = 0;
    stage_second(&world, &mut worker);
    world
        .tick_until(&mut worker, |worker| worker.registry().state().rollout.is_none())
        .unwrap();
    assert_eq!(shares(&world), [0.0, 0.1]);
    let last = world.model_events().pop().unwrap();
    assert_eq!(
        (last.kind, last.version.0.as_str()),
        (ModelEventKind::RolledBack, "v000001")
    );
    assert!(last.reason.contains("the champion stays"), "{}", last.reason);
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
