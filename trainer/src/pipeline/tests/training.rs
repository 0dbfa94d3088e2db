//! From retrain events to versions.

use marquee_schemas::{DeadLetter, ModelAction, ModelEventKind, Reason, Topic};

use super::world::{World, ask};
use crate::registry::{self, ModelState};
use crate::snapshot::bounds_of;
use crate::{Bundle, testing};

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
