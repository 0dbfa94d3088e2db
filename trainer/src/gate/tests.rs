use super::*;

fn card(ndcg: &[f64]) -> Scorecard {
    let n = ndcg.len() as f64;
    let mut metrics = BTreeMap::from([("n".to_owned(), n)]);
    if !ndcg.is_empty() {
        metrics.insert(PRIMARY.into(), ndcg.iter().sum::<f64>() / n);
    }
    Scorecard {
        metrics,
        ndcg: ndcg.to_vec(),
        unsound: 0,
    }
}

fn verdict(challenger: &Scorecard, champion: Option<&Scorecard>, config: &GateConfig) -> Verdict {
    let decision = decide(challenger, champion, config, 1);
    assert!(decision.numbers.values().all(|value| value.is_finite()));
    assert!(!decision.reason.is_empty());
    decision.verdict
}

#[test]
fn the_first_sound_model_is_the_bootstrap() {
    let config = GateConfig::default();
    assert_eq!(verdict(&card(&[0.1; 5]), None, &config), Verdict::Bootstrap);
    assert_eq!(verdict(&card(&[]), None, &config), Verdict::Bootstrap);
}

#[test]
fn a_model_with_a_score_that_is_not_finite_never_passes() {
    let config = GateConfig::default();
    let mut broken = card(&[0.9; 50]);
    broken.unsound = 1;
    assert_eq!(verdict(&broken, None, &config), Verdict::Unsound);
    assert_eq!(
        verdict(&broken, Some(&card(&[0.1; 50])), &config),
        Verdict::Unsound
    );
    let mut nan = card(&[0.9; 50]);
    nan.metrics.insert(PRIMARY.into(), f64::NAN);
    assert_eq!(verdict(&nan, Some(&card(&[0.1; 50])), &config), Verdict::Unsound);
    assert!(!decide(&nan, None, &config, 1).promoted);
}

#[test]
fn a_worse_challenger_is_kept_out_and_an_equal_one_is_fresher() {
    let config = GateConfig::default();
    let champion = card(&[0.2; 50]);
    assert_eq!(
        verdict(&card(&[0.19; 50]), Some(&champion), &config),
        Verdict::NotProven
    );
    assert_eq!(verdict(&champion, Some(&champion), &config), Verdict::NotWorse);
}

#[test]
fn a_gain_that_is_asked_for_must_be_there() {
    let config = GateConfig {
        min_relative_gain: 0.01,
        ..GateConfig::default()
    };
    let champion = card(&[0.2; 50]);
    assert_eq!(
        verdict(&card(&[0.201; 50]), Some(&champion), &config),
        Verdict::NotProven
    );
    assert_eq!(
        verdict(&card(&[0.203; 50]), Some(&champion), &config),
        Verdict::NotWorse
    );
}

#[test]
fn significance_asks_that_most_users_gain() {
    let config = GateConfig {
        require_significance: true,
        ..GateConfig::default()
    };
    let champion = card(&[0.2; 40]);
    let mut lucky = vec![0.19; 40];
    lucky[0] = 1.0;
    assert_eq!(
        verdict(&card(&lucky), Some(&champion), &config),
        Verdict::NotProven
    );
    assert_eq!(
        verdict(&card(&lucky), Some(&champion), &GateConfig::default()),
        Verdict::NotWorse
    );
    assert_eq!(
        verdict(&card(&[0.22; 40]), Some(&champion), &config),
        Verdict::NotWorse
    );
}

#[test]
fn few_users_are_little_evidence_and_none_is_no_evidence() {
    let lenient = GateConfig::default();
    let strict = GateConfig {
        little_evidence: LittleEvidence::KeepChampion,
        ..GateConfig::default()
    };
    let champion = card(&[0.2; 5]);
    let better = card(&[0.3; 5]);
    assert_eq!(
        verdict(&better, Some(&champion), &lenient),
        Verdict::NotWorseOnLittleEvidence
    );
    assert_eq!(
        verdict(&better, Some(&champion), &strict),
        Verdict::TooLittleEvidence
    );
    assert_eq!(
        verdict(&card(&[0.1; 5]), Some(&champion), &lenient),
        Verdict::TooLittleEvidence
    );
    assert_eq!(
        verdict(&card(&[]), Some(&card(&[])), &lenient),
        Verdict::TooLittleEvidence
    );
}

#[test]
fn the_decision_carries_both_models_numbers() {
    let decision = decide(
        &card(&[0.3; 40]),
        Some(&card(&[0.2; 40])),
        &GateConfig::default(),
        1,
    );
    assert!(decision.promoted);
    for name in [
        "ndcg@10",
        "champion_ndcg@10",
        "difference_ndcg@10_lo",
        "required_ndcg@10",
        "n",
    ] {
        assert!(decision.numbers.contains_key(name), "{name}");
    }
    assert!(
        decision.reason.contains("0.3000 against 0.2000"),
        "{}",
        decision.reason
    );
}

#[test]
fn settings_outside_their_domain_are_refused() {
    let config = GateConfig {
        bootstrap_draws: 0,
        ..GateConfig::default()
    };
    assert!(config.check().is_err());
}
