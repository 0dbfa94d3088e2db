use std::collections::BTreeMap;
use std::path::Path;

use marquee_runtime::ManualClock;
use marquee_runtime::bus::Handler as _;
use marquee_schemas::{ModelEvent, ModelEventKind, SchemaVersion};

use super::follow::Events;
use super::*;
use crate::alerts::Alerts;
use crate::testing::{World, loaded, version};

/// Bundles by version; the sick ones fail as a damaged file does.
#[derive(Debug, Default)]
struct Shelf {
    damaged: Vec<u64>,
    absent: Mutex<Vec<u64>>,
    strangers: Vec<u64>,
}

impl BundleLoader for Shelf {
    fn load(&self, event: &ModelEvent) -> Result<Loaded, LoadError> {
        let n = event.version.ordinal().unwrap();
        let path = Path::new("models").join(&event.version.0);
        if self.damaged.contains(&n) {
            return Err(LoadError::Bundle(marquee_trainer::BundleError::Damaged {
                path,
                detail: "a byte differs".into(),
            }));
        }
        if self.absent.lock().unwrap().contains(&n) {
            return Err(LoadError::Bundle(marquee_trainer::BundleError::Missing { path }));
        }
        if self.strangers.contains(&n) {
            return Ok(stranger());
        }
        Ok(loaded())
    }
}

fn event(n: u64, kind: ModelEventKind) -> ModelEvent {
    ModelEvent {
        schema_version: SchemaVersion,
        event_id: format!("v{n}"),
        version: version(n),
        kind,
        reason: "test".into(),
        bundle_uri: Some(format!("models/v{n:06}")),
        bundle_sha256: Some("00".repeat(32)),
        offsets: Vec::new(),
        numbers: BTreeMap::new(),
        retrain_event_id: None,
        joined_retrain_event_ids: Vec::new(),
        previous: None,
        checks: Vec::new(),
        command_id: None,
        at_ms: 0,
    }
}

fn promoted(n: u64) -> ModelEvent {
    event(n, ModelEventKind::Promoted)
}

struct Stage {
    world: World,
    alerts: Alerts,
    shelf: Arc<Shelf>,
    events: Events,
}

fn stage(shelf: Shelf) -> Stage {
    stage_in(World::without_model(), shelf)
}

fn stage_in(world: World, shelf: Shelf) -> Stage {
    let alerts = Alerts::new(None, Arc::new(ManualClock::at(0)));
    let shelf = Arc::new(shelf);
    let events = Events::new(
        Arc::clone(&world.champion),
        Arc::clone(&world.view),
        Arc::clone(&shelf) as Arc<dyn BundleLoader>,
        alerts.clone(),
        BTreeMap::new(),
        std::iter::once(version(7)).collect(),
    );
    Stage {
        world,
        alerts,
        shelf,
        events,
    }
}

impl Stage {
    fn serving(&self) -> Option<u64> {
        self.world.champion.serving()?.version.ordinal()
    }

    fn refused(&self) -> u64 {
        self.alerts.counts().get("bundle_refused").copied().unwrap_or(0)
    }
}

#[test]
fn a_promotion_swaps_and_keeps_the_previous_champion_loaded() {
    let mut stage = stage(Shelf::default());
    stage.events.take(event(1, ModelEventKind::Trained), false);
    assert_eq!(stage.serving(), None);
    stage.events.take(promoted(1), false);
    assert_eq!(stage.serving(), Some(1));
    stage.events.take(event(2, ModelEventKind::Rejected), false);
    stage.events.take(promoted(3), false);
    assert_eq!(stage.serving(), Some(3));
    assert_eq!(stage.world.champion.previous().unwrap().version, version(1));
}

#[test]
fn a_damaged_bundle_is_refused_and_alerted_while_the_old_champion_serves_on() {
    let mut stage = stage(Shelf {
        damaged: vec![2],
        ..Shelf::default()
    });
    stage.events.take(promoted(1), false);
    stage.events.take(promoted(2), false);
    assert_eq!((stage.serving(), stage.refused()), (Some(1), 1));
    stage.events.take(promoted(3), false);
    assert_eq!(stage.serving(), Some(3));
}

#[test]
fn the_last_promotion_in_the_topic_decides_at_the_start() {
    let mut stage = stage(Shelf::default());
    for n in 1..=3 {
        stage.events.take(promoted(n), true);
    }
    stage.events.take(event(4, ModelEventKind::Trained), true);
    assert_eq!(stage.serving(), None);
    stage.events.decide();
    assert_eq!(stage.serving(), Some(3));
}

#[test]
fn where_the_last_promoted_bundle_is_damaged_the_one_before_it_serves() {
    let mut stage = stage(Shelf {
        damaged: vec![3],
        ..Shelf::default()
    });
    for n in 1..=3 {
        stage.events.take(promoted(n), true);
    }
    stage.events.decide();
    assert_eq!((stage.serving(), stage.refused()), (Some(2), 1));
}

#[test]
fn a_roll_back_lets_the_loaded_previous_champion_serve_again() {
    let mut stage = stage(Shelf::default());
    stage.events.take(promoted(1), false);
    let first = stage.world.champion.serving().unwrap();
    stage.events.take(promoted(2), false);
    let mut back = event(1, ModelEventKind::RolledBack);
    back.bundle_uri = None;
    stage.events.take(back, false);
    assert_eq!(stage.serving(), Some(1));
    assert!(Arc::ptr_eq(
        &stage.world.champion.serving().unwrap().model,
        &first.model
    ));
}

#[test]
fn a_bundle_that_is_not_there_yet_is_tried_again() {
    let mut stage = stage(Shelf::default());
    stage.shelf.absent.lock().unwrap().push(1);
    stage.events.take(promoted(1), false);
    assert_eq!((stage.serving(), stage.refused()), (None, 1));
    stage.shelf.absent.lock().unwrap().clear();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while stage.serving().is_none() && std::time::Instant::now() < deadline {
        stage.events.tick().unwrap();
        std::thread::yield_now();
    }
    assert_eq!(stage.serving(), Some(1));
}

/// A model that was fitted on another catalogue.
fn stranger() -> Loaded {
    let catalogue = marquee_models::served::Catalogue::new(
        (0..12)
            .map(|n| marquee_models::served::CatalogueItem {
                external_id: 9_000 + n,
                year: None,
                genres: 0,
            })
            .collect(),
    );
    let events: Vec<_> = (0..40)
        .map(|n| marquee_models::live::Interaction {
            user: n % 5,
            item: n % 12,
            rating: Some(4.0),
            weight: 1.0,
            time_ms: i64::from(n),
        })
        .collect();
    Loaded {
        model: ServedModel::fit(&events, &catalogue, &Default::default(), 1).unwrap(),
        ..loaded()
    }
}

fn filled() -> ViewState {
    ViewState::fold(LiveParams::default(), crate::testing::changes()).unwrap()
}

#[test]
fn a_model_of_another_catalogue_is_refused() {
    let world = World::without_model();
    let refused = world
        .champion
        .install(version(1), stranger(), &world.view)
        .unwrap_err();
    assert_eq!(refused, RefusedModel::Stranger);
    assert!(world.champion.serving().is_none());
}

#[test]
fn a_model_that_was_there_before_the_view_is_checked_when_the_view_is_shown() {
    let world = World::empty(crate::Config::default());
    let (champion, view) = (&world.champion, &world.view);
    champion.install(version(1), stranger(), view).unwrap();
    champion.install(version(2), loaded(), view).unwrap();
    champion.challenge(version(3), stranger(), 0.5, view).unwrap();
    champion.keep(version(4), stranger(), view).unwrap();
    champion.keep(version(5), loaded(), view).unwrap();
    let mut let_go = champion.show(view, filled());
    let_go.sort();
    let expected = [1, 3, 4].map(|n| (version(n), RefusedModel::Stranger));
    assert_eq!(let_go, expected);
    let serving = champion.serving().unwrap();
    assert_eq!((&serving.version, serving.binding.len()), (&version(2), 12));
    assert!(serving.fits(&view.read()));
    assert!(champion.previous().is_none() && champion.challenger().is_none());
    assert!(champion.named(&version(4)).is_none() && champion.named(&version(5)).is_some());
}

#[test]
fn where_the_view_shows_the_champion_to_be_unfit_the_one_before_it_serves() {
    let mut stage = stage_in(
        World::empty(crate::Config::default()),
        Shelf {
            strangers: vec![2],
            ..Shelf::default()
        },
    );
    stage.events.take(promoted(1), true);
    stage.events.take(promoted(2), true);
    stage.events.decide();
    assert_eq!(stage.serving(), Some(2), "there is nothing yet to try it on");
    let champion = &stage.world.champion;
    assert_eq!(champion.show(&stage.world.view, filled()).len(), 1);
    assert_eq!(stage.serving(), None);
    stage.events.tick().unwrap();
    assert_eq!((stage.serving(), stage.refused()), (Some(1), 1));
}

#[test]
fn a_challenge_that_was_ended_does_not_return_with_the_next_binding() {
    let world = World::new();
    for id in 500..550 {
        world
            .champion
            .challenge(version(2), loaded(), 0.1, &world.view)
            .unwrap();
        world
            .view
            .apply_changes(vec![crate::view::Change::Movie(crate::testing::movie(id))]);
        std::thread::scope(|threads| {
            threads.spawn(|| world.champion.rebind(&world.view));
            world.champion.end_challenge();
        });
        assert!(world.champion.challenger().is_none(), "after {id}");
    }
}

#[test]
fn a_movie_that_appears_later_is_bound_to_the_same_model() {
    let world = World::new();
    let before = world.champion.serving().unwrap();
    world
        .view
        .apply_changes(vec![crate::view::Change::Movie(crate::testing::movie(500))]);
    world.champion.rebind(&world.view);
    let after = world.champion.serving().unwrap();
    assert_eq!(after.binding.len(), before.binding.len() + 1);
    assert!(Arc::ptr_eq(&before.model, &after.model));
    assert!(world.champion.previous().is_none());
}

#[test]
fn a_bundle_without_a_checksum_or_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = RegistryBundles {
        registry_dir: dir.path().to_path_buf(),
    };
    let mut unnamed = promoted(1);
    unnamed.bundle_sha256 = None;
    assert!(matches!(
        bundles.load(&unnamed).unwrap_err(),
        LoadError::Unnamed { what: "checksum", .. }
    ));
    let mut unnamed = promoted(1);
    unnamed.bundle_uri = None;
    assert!(matches!(
        bundles.load(&unnamed).unwrap_err(),
        LoadError::Unnamed { what: "bundle", .. }
    ));
    assert!(bundles.load(&promoted(1)).unwrap_err().is_transient());
}

fn step(n: u64, share: f64) -> ModelEvent {
    ModelEvent {
        numbers: BTreeMap::from([("share".to_owned(), share)]),
        ..event(n, ModelEventKind::RolloutStep)
    }
}

#[test]
fn a_rollout_goes_by_steps_and_ends_with_a_promotion_or_a_roll_back() {
    let mut stage = stage(Shelf::default());
    let challenger = |stage: &Stage| {
        let challenger = stage.world.champion.challenger()?;
        Some((challenger.serving.version.ordinal()?, challenger.share))
    };
    stage.events.take(promoted(1), false);
    stage.events.take(step(2, 0.0), false);
    assert_eq!(challenger(&stage), Some((2, 0.0)));
    stage.events.take(step(2, 0.5), false);
    assert_eq!(challenger(&stage), Some((2, 0.5)));
    let rolled_out = stage.world.champion.challenger().unwrap();
    stage.events.take(promoted(2), false);
    assert_eq!((stage.serving(), challenger(&stage)), (Some(2), None));
    let serving = stage.world.champion.serving().unwrap();
    assert!(
        Arc::ptr_eq(&serving.model, &rolled_out.serving.model),
        "loaded once"
    );

    // No share at all is a share of nothing.
    stage.events.take(step(3, f64::NAN), false);
    assert_eq!(challenger(&stage), Some((3, 0.0)));
    stage.events.take(event(2, ModelEventKind::RolledBack), false);
    assert_eq!((stage.serving(), challenger(&stage)), (Some(2), None));
}

#[test]
fn a_restart_finds_the_rollout_and_the_experiments_models_again() {
    let mut stage = stage(Shelf {
        damaged: vec![4],
        ..Shelf::default()
    });
    for event in [
        promoted(1),
        step(2, 0.1),
        event(2, ModelEventKind::RolledBack),
        event(7, ModelEventKind::Trained),
        step(3, 0.1),
    ] {
        stage.events.take(event, true);
    }
    stage.events.decide();
    let champion = &stage.world.champion;
    assert_eq!(champion.challenger().unwrap().serving.version, version(3));
    assert!(champion.named(&version(7)).is_some());
    assert!(champion.named(&version(3)).is_none());
    // A damaged challenger is refused, and the one before it stays.
    stage.events.take(step(4, 0.1), false);
    assert_eq!(stage.refused(), 1);
    assert_eq!(
        stage.world.champion.challenger().unwrap().serving.version,
        version(3)
    );
}

#[test]
fn every_model_in_memory_follows_the_catalogue() {
    let mut stage = stage(Shelf::default());
    for event in [
        promoted(1),
        promoted(2),
        step(3, 0.1),
        event(7, ModelEventKind::Trained),
    ] {
        stage.events.take(event, false);
    }
    let world = &stage.world;
    world
        .view
        .apply_changes(vec![crate::view::Change::Movie(crate::testing::movie(200))]);
    world.champion.rebind(&world.view);
    let champion = &world.champion;
    let models = [
        champion.serving().unwrap(),
        champion.previous().unwrap(),
        Arc::clone(&champion.challenger().unwrap().serving),
        champion.named(&version(7)).unwrap(),
    ];
    assert!(models.iter().all(|model| model.binding.len() == 13));
}

#[test]
fn a_rollout_and_an_experiments_model_wait_for_their_bundles_too() {
    let mut stage = stage(Shelf::default());
    stage.events.take(promoted(1), false);
    stage.shelf.absent.lock().unwrap().extend([2, 7]);
    stage.events.take(step(2, 0.1), false);
    stage.events.take(event(7, ModelEventKind::Trained), false);
    stage.events.try_again();
    let champion = Arc::clone(&stage.world.champion);
    assert!(champion.challenger().is_none() && champion.named(&version(7)).is_none());
    stage.shelf.absent.lock().unwrap().clear();
    // Once it has shown up, the newest share holds.
    stage.shelf.absent.lock().unwrap().push(2);
    stage.events.take(step(2, 0.5), false);
    stage.shelf.absent.lock().unwrap().clear();
    stage.events.try_again();
    assert_eq!(champion.challenger().unwrap().share, 0.5);
    assert!(champion.named(&version(7)).is_some());
}

#[test]
fn a_rollout_that_ended_before_its_bundle_could_be_read_does_not_begin() {
    for end in [promoted(3), event(1, ModelEventKind::RolledBack)] {
        let mut stage = stage(Shelf::default());
        stage.events.take(promoted(1), false);
        stage.shelf.absent.lock().unwrap().push(2);
        stage.events.take(step(2, 0.1), false);
        stage.events.take(end, false);
        stage.shelf.absent.lock().unwrap().clear();
        stage.events.try_again();
        assert!(stage.world.champion.challenger().is_none());
    }
}

#[test]
fn a_restart_waits_for_the_bundle_of_the_rollout_under_way() {
    let mut stage = stage(Shelf::default());
    stage.shelf.absent.lock().unwrap().push(3);
    stage.events.take(promoted(1), true);
    stage.events.take(step(3, 0.1), true);
    stage.events.decide();
    stage.shelf.absent.lock().unwrap().clear();
    stage.events.try_again();
    let challenger = stage.world.champion.challenger().unwrap();
    assert_eq!(challenger.serving.version, version(3));
}
