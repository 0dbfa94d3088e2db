use super::*;
use crate::testing::{self, settings, snapshot};

#[test]
fn too_little_data_is_refused_with_what_became_of_the_rest() {
    let error = train(&snapshot(90), None, &settings(), &Unwatched).unwrap_err();
    assert!(
        matches!(
            error,
            RunError::NotEnoughData {
                what: "interactions",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("of 90 records"), "{error}");
    let empty = train(&Snapshot::default(), None, &settings(), &Unwatched).unwrap_err();
    assert!(
        matches!(empty, RunError::NotEnoughData { what: "movies", .. }),
        "{empty}"
    );
}

#[test]
fn the_same_snapshot_gives_the_same_bytes_whatever_the_threads() {
    let snapshot = snapshot(900);
    let one = train(&snapshot, None, &settings(), &Unwatched).unwrap();
    let again = train(&snapshot, None, &settings(), &Unwatched).unwrap();
    let two_threads = RunSettings {
        threads: 2,
        ..settings()
    };
    let parallel = train(&snapshot, None, &two_threads, &Unwatched).unwrap();
    assert_eq!(one, again);
    assert_eq!(one.model, parallel.model);
    assert_eq!(one.metrics, parallel.metrics);
    assert!(one.decision.promoted);
}

#[test]
fn nothing_that_the_champion_learned_from_is_held_out() {
    let champion = testing::bundle(900);
    let snapshot = snapshot(1200);
    let holdout = Holdout::of(&snapshot, Some(&champion.manifest.offsets), 0.15);
    assert_eq!(holdout.test.len(), 150);
    assert_eq!(holdout.train.len() + holdout.test.len(), 1200);
    assert!(
        holdout
            .test
            .iter()
            .all(|event| event.time_ms > champion.manifest.trained_until_ms)
    );
    assert!(holdout.train.is_sorted_by_key(|event| event.time_ms));
    // No new data: nothing to compare on.
    let same = Holdout::of(&snapshot_of_champion(), Some(&champion.manifest.offsets), 0.15);
    assert!(same.test.is_empty());
}

fn snapshot_of_champion() -> Snapshot {
    snapshot(900)
}

#[test]
fn interactions_of_one_moment_stay_on_one_side_of_the_time_split() {
    let mut snapshot = snapshot(100);
    for event in &mut snapshot.interactions[80..95] {
        event.time_ms = 9_000_000;
    }
    for event in &mut snapshot.interactions[95..] {
        event.time_ms = 10_000_000;
    }
    let holdout = Holdout::of(&snapshot, None, 0.15);
    assert_eq!(holdout.train.len(), 80);
    assert_eq!(holdout.split.test_from_ms, Some(9_000_000));
}

#[test]
fn without_new_data_the_champion_stays() {
    let champion = testing::bundle(900);
    let trained = train(&snapshot(900), Some(&champion), &settings(), &Unwatched).unwrap();
    assert!(!trained.decision.promoted);
    assert_eq!(trained.decision.verdict, gate::Verdict::TooLittleEvidence);
}

#[test]
fn a_challenger_is_compared_on_the_same_users_and_the_numbers_say_so() {
    let champion = testing::bundle(600);
    let trained = train(&snapshot(1200), Some(&champion), &settings(), &Unwatched).unwrap();
    let numbers = &trained.decision.numbers;
    assert_eq!(numbers["n"], numbers["champion_n"]);
    assert!(numbers.contains_key("gain"), "{numbers:?}");
    assert_eq!(trained.split.rule, "unseen_by_champion");
}

#[test]
fn a_run_that_is_told_to_stop_ends_at_the_next_stage() {
    struct Until(Stage);
    impl Watch for Until {
        fn begins(&self, stage: Stage) -> bool {
            stage < self.0
        }
    }
    for stage in [
        Stage::Validate,
        Stage::FitForEvaluation,
        Stage::Evaluate,
        Stage::Fit,
        Stage::Serialise,
    ] {
        let error = train(&snapshot(600), None, &settings(), &Until(stage)).unwrap_err();
        assert_eq!(error, RunError::Cancelled);
    }
}

#[test]
fn a_manifest_gives_the_same_bytes_again_also_where_a_champion_shaped_the_split() {
    for (champion, n) in [(None, 900), (Some(testing::bundle(600)), 1200)] {
        let snapshot = snapshot(n);
        let settings = settings();
        let trained = train(&snapshot, champion.as_ref(), &settings, &Unwatched).unwrap();
        let (mut manifest, _, _) = testing::model("v000002", 600);
        manifest.offsets = snapshot.offsets.clone();
        manifest.split = trained.split.clone();
        manifest.seed = settings.seed;
        manifest.params = settings.params.clone();
        // As it was stored and read.
        let stored = serde_json::to_vec(&manifest).unwrap();
        let manifest: Manifest = serde_json::from_slice(&stored).unwrap();
        assert_eq!(
            reproduce(&snapshot, &manifest, 2).unwrap(),
            trained.model,
            "{:?}",
            manifest.split
        );
    }
}
