//! kill -9 of the process that trains, at every stage of a training: no request lost, no version doubled, nothing half
//! published.

use std::collections::BTreeSet;

use marquee_runtime::bus::Bus;
use marquee_schemas::{ModelEvent, ModelEventKind};
use marquee_trainer::registry;
use marquee_trainer::run::Stage;

use crate::harness::{Marquee, ask_for_training, beginning_of_ml_100k, data_dir, eventually, records};

fn events(bus: &Bus) -> Vec<ModelEvent> {
    records::<ModelEvent>(bus)
}

fn answers(event: &ModelEvent, id: &str) -> bool {
    event.retrain_event_id.as_deref() == Some(id)
        || event.joined_retrain_event_ids.iter().any(|joined| joined == id)
}

#[test]
fn a_kill_at_any_stage_of_a_training_loses_no_request_and_doubles_no_version() {
    let Some(data) = data_dir() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let args = beginning_of_ml_100k(&data, "1/s");
    let mut marquee = Marquee::up(&state, None, &args);
    marquee.wait_model();
    let mut asked = Vec::new();
    for stage in Stage::ALL.map(Stage::name).into_iter().chain(["done"]) {
        let bus = marquee.bus();
        let request = ask_for_training(&bus, &format!("to be killed at {stage}"));
        eventually("the stage begins", || {
            let begun = |event: &ModelEvent| {
                event.kind == ModelEventKind::TrainingStage
                    && event.reason == stage
                    && answers(event, &request.event_id)
            };
            events(&bus).iter().any(begun).then_some(())
        });
        marquee.kill_9();
        // Readers see the last complete state at any time.
        let seen = registry::open_read_only(&state.join("models")).unwrap();
        seen.load("champion").unwrap();

        marquee = Marquee::up(&state, None, &args);
        let bus = marquee.bus();
        eventually("the request is answered after the restart", || {
            let done = |event: &ModelEvent| {
                event.kind == ModelEventKind::Trained && answers(event, &request.event_id)
            };
            events(&bus).iter().any(done).then_some(())
        });
        asked.push(request.event_id);
    }
    let bus = marquee.bus();
    let all = events(&bus);
    let entries = registry::list(&state.join("models")).unwrap();
    for id in &asked {
        let of_request = entries
            .iter()
            .filter(|entry| entry.retrain_event_ids.contains(id));
        assert_eq!(of_request.count(), 1, "{id} has one version");
    }
    let versions: BTreeSet<_> = entries.iter().map(|entry| &entry.version).collect();
    assert_eq!(versions.len(), entries.len());
    let named: BTreeSet<_> = all
        .iter()
        .filter(|event| event.kind != ModelEventKind::TrainingStage)
        .map(|event| &event.version)
        .collect();
    assert_eq!(named, versions, "events tell of every version and of no other");
    assert!(
        all.iter().all(|event| event.kind != ModelEventKind::Failed),
        "{all:#?}"
    );
    let reader = registry::open_read_only(&state.join("models")).unwrap();
    for entry in reader.list().iter().filter(|entry| !entry.pruned) {
        assert_eq!(
            reader.load(&entry.version.0).unwrap().manifest.version,
            entry.version
        );
    }
    let folders = std::fs::read_dir(registry::models_dir(&state.join("models"))).unwrap();
    let whole = entries.iter().filter(|entry| !entry.pruned).count();
    assert_eq!(folders.count(), whole, "nothing else lies there");
}
