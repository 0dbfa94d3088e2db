use std::fs;

use super::*;
use crate::gate::{Decision, Verdict};
use crate::testing;
use marquee_schemas::ModelEventKind;

fn decision(promoted: bool) -> Decision {
    Decision {
        promoted,
        verdict: if promoted {
            Verdict::Better
        } else {
            Verdict::NotProven
        },
        reason: "by the test".into(),
        numbers: [("ndcg@10".to_owned(), 0.25)].into(),
        checks: Vec::new(),
    }
}

fn add(registry: &mut Registry, promoted: bool) -> ModelVersion {
    let version = registry.state().next_version();
    let (mut manifest, model, movies) = testing::model(&version.0, 600);
    let bundle_sha256 = registry.store(&mut manifest, &model, &movies).unwrap();
    let finished = Finished {
        manifest,
        bundle_sha256,
        decision: decision(promoted),
        reason: "manual: test".into(),
        staged: false,
    };
    registry.finish(finished, 7).unwrap();
    version
}

fn kinds(registry: &Registry) -> Vec<(String, ModelEventKind)> {
    let outbox = &registry.state().outbox;
    outbox
        .iter()
        .map(|event| (event.event_id.clone(), event.kind))
        .collect()
}

#[test]
fn versions_states_and_aliases_follow_promotions_and_rejections() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    let (first, second, third) = (
        add(&mut registry, true),
        add(&mut registry, false),
        add(&mut registry, true),
    );
    let reader = open_read_only(dir.path()).unwrap();
    assert_eq!(reader.champion(), Some(&third));
    assert_eq!(reader.previous(), Some(&first));
    assert_eq!(reader.challenger(), None);
    let states: Vec<_> = reader.list().iter().map(|entry| entry.state).collect();
    assert_eq!(
        states,
        [ModelState::Archived, ModelState::Archived, ModelState::Production]
    );
    assert_eq!(reader.show("champion").unwrap().version, third);
    assert_eq!(reader.show(&second.0).unwrap().version, second);
    assert!(matches!(reader.show("v9"), Err(RegistryError::UnknownVersion(_))));
    assert_eq!(reader.load("champion").unwrap().manifest.version, third);
    assert_eq!(
        kinds(&registry).into_iter().map(|(id, _)| id).collect::<Vec<_>>(),
        [
            "v000001/trained",
            "v000001/promoted",
            "v000002/trained",
            "v000002/rejected",
            "v000003/trained",
            "v000003/promoted"
        ]
    );
}

#[test]
fn a_rollback_returns_to_the_previous_champion_and_a_promotion_by_hand_has_its_own_event_id() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = {
        let mut registry = Registry::open(dir.path()).unwrap();
        (add(&mut registry, true), add(&mut registry, true))
    };
    let event = rollback(dir.path(), "clicks fell", 9).unwrap();
    assert_eq!((event.kind, &event.version), (ModelEventKind::RolledBack, &first));
    assert_eq!(event.previous.as_ref(), Some(&second));
    assert_eq!(show(dir.path(), "champion").unwrap().version, first);
    assert_eq!(show(dir.path(), &second.0).unwrap().state, ModelState::Archived);
    let nothing = rollback(dir.path(), "again", 10).unwrap_err();
    assert!(matches!(nothing, RegistryError::Refused(_)), "{nothing}");

    let event = promote(dir.path(), &second.0, "it was the weather", 11).unwrap();
    assert_eq!(event.event_id, "v000002/promoted/2");
    let twice = promote(dir.path(), &second.0, "again", 12).unwrap_err();
    assert!(matches!(twice, RegistryError::Refused(_)), "{twice}");
}

#[test]
fn a_damaged_bundle_cannot_be_promoted_or_returned_to() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut registry = Registry::open(dir.path()).unwrap();
        add(&mut registry, true);
        add(&mut registry, true);
    }
    fs::write(models_dir(dir.path()).join("v000001/model.safetensors"), b"oops").unwrap();
    for error in [
        rollback(dir.path(), "why not", 9).unwrap_err(),
        promote(dir.path(), "v000001", "why not", 9).unwrap_err(),
    ] {
        assert!(matches!(error, RegistryError::Bundle(_)), "{error}");
    }
    assert_eq!(show(dir.path(), "champion").unwrap().version.0, "v000002");
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    add(&mut registry, true);
    let refused = promote(dir.path(), "v000001", "by hand", 1).unwrap_err();
    assert!(matches!(refused, RegistryError::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains("stop it first"));
    assert_eq!(list(dir.path()).unwrap().len(), 1);
    drop(registry);
    Registry::open(dir.path()).unwrap();
}

#[test]
fn what_an_interrupted_run_left_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    add(&mut registry, true);
    drop(registry);
    let models = models_dir(dir.path());
    for left in ["v000002", ".v000002.tmp", "notes"] {
        fs::create_dir(models.join(left)).unwrap();
    }
    Registry::open(dir.path()).unwrap();
    let mut names: Vec<_> = fs::read_dir(&models)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["notes", "v000001"]);
}

#[test]
fn bundles_are_not_removed_when_the_registry_itself_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    add(&mut Registry::open(dir.path()).unwrap(), true);
    fs::remove_file(dir.path().join(STATE)).unwrap();
    let error = Registry::open(dir.path()).unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error}");
    assert!(models_dir(dir.path()).join("v000001").is_dir());
}

#[test]
fn a_damaged_or_newer_registry_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    add(&mut Registry::open(dir.path()).unwrap(), true);
    let path = dir.path().join(STATE);
    let sound = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        sound.replace("\"format_version\": 2", "\"format_version\": 3"),
    )
    .unwrap();
    assert!(matches!(
        open_read_only(dir.path()).unwrap_err(),
        RegistryError::NewerFormat { found: 3, .. }
    ));
    fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert!(matches!(
        open_read_only(dir.path()).unwrap_err(),
        RegistryError::Damaged { .. }
    ));
}

#[test]
fn old_bundles_go_and_champion_and_previous_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    let versions = [
        add(&mut registry, true),
        add(&mut registry, false),
        add(&mut registry, true),
        add(&mut registry, false),
        add(&mut registry, false),
    ];
    registry.prune(1).unwrap();
    let kept: Vec<bool> = versions
        .iter()
        .map(|version| models_dir(dir.path()).join(&version.0).is_dir())
        .collect();
    assert_eq!(kept, [true, false, true, false, true]);
    assert_eq!(registry.state().versions.len(), 5);
}

#[test]
fn semantic_versions_tell_recipes_from_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    add(&mut registry, true);
    add(&mut registry, false);
    let version = registry.state().next_version();
    let (mut manifest, model, movies) = testing::model(&version.0, 600);
    manifest.seed += 1;
    let bundle_sha256 = registry.store(&mut manifest, &model, &movies).unwrap();
    let finished = Finished {
        manifest,
        bundle_sha256,
        decision: decision(true),
        reason: "another recipe".into(),
        staged: false,
    };
    registry.finish(finished, 7).unwrap();
    let versions: Vec<&str> = registry
        .state()
        .versions
        .iter()
        .map(|entry| entry.semver.as_str())
        .collect();
    assert_eq!(versions, ["1.0.0", "1.0.1", "1.1.0"]);
}

/// A registry in a store without locks, as a bucket is.
fn shared() -> Store {
    let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
    Store::over(objects, object_store::path::Path::default(), Path::new("memory"))
}

#[test]
fn a_registry_in_a_shared_store_lives_as_one_in_a_folder() {
    let store = shared();
    let mut registry = Registry::over(store.clone(), None).unwrap();
    let (first, second) = (add(&mut registry, true), add(&mut registry, true));
    drop(registry);
    store.put("models/v000003/model.safetensors", b"half").unwrap();
    let mut registry = Registry::over(store.clone(), None).unwrap();
    assert_eq!(store.folders("models").unwrap(), ["v000001", "v000002"]);
    registry.rollback("clicks fell", 9).unwrap();
    let reader = read_from(store.clone()).unwrap();
    assert_eq!(reader.champion(), Some(&first));
    assert_eq!(reader.load("champion").unwrap().manifest.version, first);
    registry.promote(&second.0, "they came back", 10).unwrap();
    let uri = registry.state().outbox.last().unwrap().bundle_uri.clone();
    assert_eq!(uri.as_deref(), Some("memory/models/v000002"));
    store.put("models/v000001/model.safetensors", b"oops").unwrap();
    let error = registry.rollback("again", 11).unwrap_err();
    assert!(matches!(error, RegistryError::Bundle(_)), "{error}");
    // Nothing of the refused change has stayed.
    assert_eq!(read_from(store).unwrap().champion(), Some(&second));
}

#[test]
fn whoever_wrote_before_is_found_out_by_its_next_write_and_overwrites_nothing() {
    let store = shared();
    let mut old = Registry::over(store.clone(), None).unwrap();
    add(&mut old, true);
    let mut new = Registry::over(store.clone(), None).unwrap();
    let error = old.clear_outbox().unwrap_err();
    assert!(matches!(error, RegistryError::Taken { .. }), "{error}");
    let second = add(&mut new, true);
    assert_eq!(read_from(store).unwrap().champion(), Some(&second));
}

#[test]
fn what_another_writer_names_at_the_last_moment_is_not_taken_for_an_orphan() {
    let store = shared();
    let mut old = Registry::over(store.clone(), None).unwrap();
    add(&mut old, true);
    let mut new = Registry::read(store.clone(), None).unwrap();
    let second = add(&mut old, true);
    let error = new.take_over().unwrap_err();
    assert!(matches!(error, RegistryError::Taken { .. }), "{error}");
    let reader = read_from(store).unwrap();
    assert_eq!(reader.load("champion").unwrap().manifest.version, second);
}
