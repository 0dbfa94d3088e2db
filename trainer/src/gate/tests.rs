use super::*;
use crate::evaluate::Protocol;
use crate::testing::card_of;

fn quick() -> GateConfig {
    GateConfig {
        bootstrap_draws: 300,
        ..GateConfig::default()
    }
}

fn verdict(challenger: &Scorecard, champion: Option<&Scorecard>, config: &GateConfig) -> Verdict {
    let decision = decide(challenger, champion, config, 1);
    assert!(decision.numbers.values().all(|value| value.is_finite()));
    assert!(!decision.reason.is_empty());
    assert_eq!(decision.promoted, decision.verdict.promotes());
    decision.verdict
}

/// Fifty users with different difficulties, times a factor.
fn users(factor: f64) -> Vec<f64> {
    (0..50)
        .map(|user| factor * (0.1 + f64::from(user % 7) / 20.0))
        .collect()
}

fn card(factor: f64) -> Scorecard {
    card_of(&users(factor), &users(factor))
}

#[test]
fn the_first_sound_model_passes_on_its_floors_or_is_flagged() {
    let config = quick();
    assert_eq!(verdict(&card(1.0), None, &config), Verdict::First);
    assert_eq!(verdict(&card(0.05), None, &config), Verdict::Bootstrap);
    assert_eq!(verdict(&card_of(&[], &[]), None, &config), Verdict::Bootstrap);
    let flagged = decide(&card(0.05), None, &config, 1);
    assert!(flagged.reason.contains("flagged bootstrap") && flagged.reason.contains("floor 0.05"));
}

#[test]
fn a_model_with_a_score_that_is_not_finite_never_passes() {
    let config = quick();
    let mut broken = card(2.0);
    broken.unsound = 1;
    assert_eq!(verdict(&broken, None, &config), Verdict::Unsound);
    assert_eq!(verdict(&broken, Some(&card(1.0)), &config), Verdict::Unsound);
    let mut nan = card(2.0);
    nan.stream.users[3].sums[0] = f64::NAN;
    assert_eq!(verdict(&nan, Some(&card(1.0)), &config), Verdict::Unsound);
    assert_eq!(verdict(&card(1.0), Some(&nan), &config), Verdict::ChampionBroken);
}

#[test]
fn the_champion_stays_on_a_tie_on_a_loss_and_on_too_small_a_gain() {
    let config = quick();
    for factor in [0.9, 1.0, 1.005] {
        assert_eq!(
            verdict(&card(factor), Some(&card(1.0)), &config),
            Verdict::NotProven,
            "{factor}"
        );
    }
    assert_eq!(verdict(&card(1.02), Some(&card(1.0)), &config), Verdict::Better);
}

#[test]
fn a_gain_that_rests_on_few_users_is_not_proven() {
    let mut lucky = users(0.99);
    lucky[0] = 1.0;
    lucky[1] = 1.0;
    let decision = decide(&card_of(&lucky, &lucky), Some(&card(1.0)), &quick(), 1);
    assert!(decision.numbers["gain"] > 0.01 && decision.numbers["gain_lo"] < 0.0);
    assert_eq!(decision.verdict, Verdict::NotProven);
    assert!(decision.reason.contains("reaches too low"), "{}", decision.reason);
}

#[test]
fn a_protocol_under_which_neither_hits_anything_neither_helps_nor_hinders() {
    let silent = vec![0.0; 50];
    let better = card_of(&silent, &users(1.1));
    let champion = card_of(&silent, &users(1.0));
    let decision = decide(&better, Some(&champion), &quick(), 1);
    assert_eq!(decision.verdict, Verdict::Better, "{}", decision.reason);
    let primary = decision
        .checks
        .iter()
        .find(|check| check.check == "primary")
        .unwrap();
    assert_eq!(primary.metric, "prequential/ndcg@10");
    let nothing = card_of(&silent, &silent);
    assert_eq!(verdict(&nothing, Some(&nothing), &quick()), Verdict::NotProven);
}

#[test]
fn a_loss_elsewhere_blocks_a_gain_in_the_primary_metric() {
    let recall = METRIC_RECALL_20;
    for (loss, expected) in [(0.96, Verdict::Better), (0.94, Verdict::SecondaryLoss)] {
        let mut challenger = card(1.2);
        for (user, base) in challenger.fixed.users.iter_mut().zip(users(1.0)) {
            user.sums[recall] = base * loss;
        }
        let decision = decide(&challenger, Some(&card(1.0)), &quick(), 1);
        assert_eq!(decision.verdict, expected, "{}", decision.reason);
        let check = decision
            .checks
            .iter()
            .find(|check| check.metric == "static/recall@20")
            .unwrap();
        assert_eq!(check.passed, expected == Verdict::Better);
        assert!((check.relative_change.unwrap() - (loss - 1.0)).abs() < 1e-9);
    }
    let mut narrow = card(1.2);
    narrow.fixed.coverage = Some(0.4);
    assert_eq!(
        verdict(&narrow, Some(&card(1.0)), &quick()),
        Verdict::SecondaryLoss
    );
}

const METRIC_RECALL_20: usize = 5;

#[test]
fn a_protocol_with_few_users_is_shown_but_not_judged() {
    let few_worse = card_of(&[0.1; 5], &users(1.2));
    let few_better = card_of(&[0.3; 5], &users(1.0));
    let decision = decide(&few_worse, Some(&few_better), &quick(), 1);
    assert_eq!(decision.verdict, Verdict::Better, "{}", decision.reason);
    let shown = decision
        .checks
        .iter()
        .find(|check| check.metric == "static/ndcg@10" && check.check == "secondary")
        .unwrap();
    assert!(shown.passed && shown.detail.contains("too few users to judge"));
    let primary = decision
        .checks
        .iter()
        .find(|check| check.check == "primary")
        .unwrap();
    assert_eq!(
        primary.metric,
        format!("{}/{PRIMARY}", Protocol::Prequential.name())
    );
}

#[test]
fn few_users_are_too_little_evidence_however_good_they_look() {
    let better = card_of(&[0.3; 5], &[0.3; 5]);
    let champion = card_of(&[0.2; 5], &[0.2; 5]);
    assert_eq!(
        verdict(&better, Some(&champion), &quick()),
        Verdict::TooLittleEvidence
    );
    let nobody = card_of(&[], &[]);
    assert_eq!(
        verdict(&nobody, Some(&nobody), &quick()),
        Verdict::TooLittleEvidence
    );
}

#[test]
fn a_floor_binds_unless_the_champion_misses_it_too() {
    let config = GateConfig {
        floors: BTreeMap::from([("ndcg@10".to_owned(), 0.26)]),
        ..quick()
    };
    // The mean of `users(1.0)` is just below 0.25.
    let high = card(1.2);
    assert_eq!(verdict(&high, Some(&card(1.1)), &config), Verdict::Better);
    let low = card(1.0);
    assert_eq!(verdict(&low, Some(&card(0.9)), &config), Verdict::Better);
    let mut shifted = card(1.2);
    // Better in the stream, below the floor in lists that do not lose five percent.
    for (user, base) in shifted.fixed.users.iter_mut().zip(users(1.03)) {
        user.sums = [base; 7];
    }
    assert_eq!(verdict(&shifted, Some(&card(1.06)), &config), Verdict::BelowFloor);
}

#[test]
fn the_decision_carries_both_models_numbers_and_every_question() {
    let decision = decide(&card(1.5), Some(&card(1.0)), &quick(), 1);
    assert!(decision.promoted);
    for name in [
        "ndcg@10",
        "champion_ndcg@10",
        "gain",
        "gain_lo",
        "gain_hi",
        "n",
        "prequential_events",
    ] {
        assert!(decision.numbers.contains_key(name), "{name}");
    }
    for check in ["soundness", "evidence", "primary", "secondary", "floor"] {
        assert!(decision.checks.iter().any(|done| done.check == check), "{check}");
    }
    assert!(decision.reason.contains("+50.0%"), "{}", decision.reason);
    // The same numbers give the same decision.
    assert_eq!(decision, decide(&card(1.5), Some(&card(1.0)), &quick(), 1));
}

#[test]
fn settings_outside_their_domain_are_refused() {
    for config in [
        GateConfig {
            bootstrap_draws: 0,
            ..GateConfig::default()
        },
        GateConfig {
            confidence: 1.0,
            ..GateConfig::default()
        },
        GateConfig {
            floors: BTreeMap::from([("ndgc@10".to_owned(), 0.1)]),
            ..GateConfig::default()
        },
    ] {
        assert!(config.check().is_err(), "{config:?}");
    }
    GateConfig::default().check().unwrap();
}
