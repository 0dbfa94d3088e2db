//! What ends in the middle is mended by the next start.

use std::time::Duration;

use marquee_schemas::ModelEventKind;

use super::super::Durable;
use super::world::{World, ask};
use crate::{Error, registry};

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
