use super::*;
use marquee_schemas::SchemaVersion;

const STAGE_MS: i64 = 600_000;

fn rollout(stage: usize) -> Rollout {
    let mut rollout = Rollout::begin(ModelVersion::from_ordinal(2), ModelVersion::from_ordinal(1), 0);
    for _ in 0..stage {
        assert!(rollout.next_stage(0));
    }
    rollout
}

fn figure(name: &str, version: u64, value: f64, n: u64, window: i64) -> QualityMetric {
    QualityMetric {
        schema_version: SchemaVersion,
        metric_id: format!("{name}/{version}/{window}"),
        name: name.to_owned(),
        scope: "model".to_owned(),
        population: "all".to_owned(),
        model_version: Some(ModelVersion::from_ordinal(version)),
        value,
        lo: None,
        hi: None,
        n,
        window_start_ms: window,
        window_end_ms: window + 60_000,
    }
}

fn judged(rollout: &Rollout) -> Judgement {
    rollout.judge(&RolloutConfig::default(), STAGE_MS)
}

/// Both arms under one metric.
fn with(stage: usize, name: &str, challenger: f64, champion: f64, n: u64) -> Rollout {
    let mut rollout = rollout(stage);
    rollout.observe(&figure(name, 2, challenger, n, 0));
    rollout.observe(&figure(name, 1, champion, n, 0));
    rollout
}

#[test]
fn clicks_that_are_no_worse_advance_and_fewer_roll_back() {
    assert_eq!(
        judged(&with(1, online::CTR, 0.20, 0.20, 20_000)).answer,
        Answer::Advance
    );
    let bad = judged(&with(1, online::CTR, 0.10, 0.20, 2_000));
    assert_eq!(bad.answer, Answer::RollBack);
    assert!(bad.reason.contains("ctr 0.1000"), "{}", bad.reason);
    assert_eq!(bad.numbers["champion_ctr"], 0.20);
}

#[test]
fn too_little_evidence_waits_and_so_does_a_doubtful_difference() {
    assert_eq!(judged(&rollout(1)).answer, Answer::Wait);
    assert_eq!(judged(&with(1, online::CTR, 0.0, 0.2, 100)).answer, Answer::Wait);
    let doubtful = judged(&with(1, online::CTR, 0.19, 0.20, 400));
    assert_eq!(doubtful.answer, Answer::Wait);
    assert!(doubtful.reason.contains("inconclusive"), "{}", doubtful.reason);
}

#[test]
fn a_stage_lasts_its_time_but_a_rollback_does_not_wait_for_it() {
    let config = RolloutConfig::default();
    let good = with(1, online::CTR, 0.3, 0.2, 20_000);
    assert_eq!(good.judge(&config, STAGE_MS - 1).answer, Answer::Wait);
    let bad = with(1, online::CTR, 0.1, 0.2, 20_000);
    assert_eq!(bad.judge(&config, 1).answer, Answer::RollBack);
}

#[test]
fn the_shadow_passes_with_its_time_unless_something_speaks_against_it() {
    assert_eq!(judged(&rollout(0)).answer, Answer::Advance);
    assert_eq!(
        judged(&with(0, online::ERROR_RATE, 0.2, 0.0, 1_000)).answer,
        Answer::RollBack
    );
}

#[test]
fn errors_fallbacks_and_latency_end_a_rollout_that_clicks_would_carry() {
    for (name, challenger, champion) in [
        (online::ERROR_RATE, 0.05, 0.0),
        (online::FALLBACK_RATE, 0.4, 0.1),
        (online::LATENCY_P95_MS, 9.0, 2.0),
    ] {
        let mut rollout = with(2, online::CTR, 0.25, 0.2, 20_000);
        rollout.observe(&figure(name, 2, challenger, 2_000, 0));
        rollout.observe(&figure(name, 1, champion, 2_000, 0));
        assert_eq!(judged(&rollout).answer, Answer::RollBack, "{name}");
    }
    // A quarter more, or a few milliseconds.
    for (challenger, champion) in [(24.0, 20.0), (4.5, 0.4)] {
        let mut tolerable = with(2, online::CTR, 0.25, 0.2, 20_000);
        tolerable.observe(&figure(online::LATENCY_P95_MS, 2, challenger, 2_000, 0));
        tolerable.observe(&figure(online::LATENCY_P95_MS, 1, champion, 2_000, 0));
        assert_eq!(judged(&tolerable).answer, Answer::Advance, "{challenger} ms");
    }
}

#[test]
fn only_windows_of_this_stage_about_these_models_count_and_each_once() {
    let mut rollout = Rollout::begin(
        ModelVersion::from_ordinal(2),
        ModelVersion::from_ordinal(1),
        1_000,
    );
    rollout.observe(&figure(online::CTR, 2, 0.5, 9_000, 999));
    rollout.observe(&figure(online::CTR, 3, 0.5, 9_000, 2_000));
    let mut other = figure(online::CTR, 2, 0.5, 9_000, 2_000);
    other.scope = "endpoint".to_owned();
    rollout.observe(&other);
    let mut nan = figure(online::CTR, 2, f64::NAN, 9_000, 2_000);
    rollout.observe(&nan);
    nan.value = 0.5;
    nan.n = 0;
    rollout.observe(&nan);
    assert!(rollout.evidence.is_empty());
    for _ in 0..3 {
        rollout.observe(&figure(online::CTR, 2, 0.5, 150, 2_000));
        rollout.observe(&figure(online::CTR, 1, 0.5, 150, 2_000));
    }
    assert!(rollout.evidence.difference(online::CTR, 151).is_none());
    assert!(rollout.evidence.difference(online::CTR, 150).is_some());
    assert!(rollout.next_stage(5_000) && rollout.evidence.is_empty());
}

#[test]
fn windows_are_pooled_by_their_requests() {
    let mut rollout = rollout(1);
    for (window, value, n) in [(0, 0.1, 300), (60_000, 0.3, 100)] {
        rollout.observe(&figure(online::CTR, 2, value, n, window));
        rollout.observe(&figure(online::CTR, 1, value, n, window));
    }
    let difference = rollout.evidence.difference(online::CTR, 1).unwrap();
    assert!((difference.challenger - 0.15).abs() < 1e-12);
    assert_eq!(difference.challenger_n, 400);
    // Within: (3/4)²·0.09/300 + (1/4)²·0.21/100 ≈ 3e-4; between the windows: 2·((3/4·0.05)² + (1/4·0.15)²) ≈ 5.6e-3.
    assert!((difference.standard_error.powi(2) - 2.0 * 0.005_625).abs() < 1e-6);
}

#[test]
fn equal_models_are_seldom_rolled_back_over_many_looks() {
    use rand::{RngExt, SeedableRng};
    let mut rolled_back = 0;
    for seed in 0..400 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut rollout = rollout(1);
        for window in 0..24 {
            for version in [1, 2] {
                let clicks = (0..100).filter(|_| rng.random::<f64>() < 0.1).count();
                rollout.observe(&figure(
                    online::CTR,
                    version,
                    clicks as f64 / 100.0,
                    100,
                    window * 60_000,
                ));
            }
            if judged(&rollout).answer == Answer::RollBack {
                rolled_back += 1;
                break;
            }
        }
    }
    // Two dozen looks at 2.576 standard errors: a few percent, one-sided.
    assert!(rolled_back <= 24, "{rolled_back} of 400");
}

#[test]
fn a_list_counts_once_though_warm_and_cold_ones_are_told_apart_too() {
    let mut rollout = rollout(1);
    for version in [1, 2] {
        rollout.observe(&figure(online::CTR, version, 0.2, 150, 0));
        for (population, value, n) in [("warm", 0.25, 100), ("cold", 0.1, 50)] {
            let mut part = figure(online::CTR, version, value, n, 0);
            part.metric_id = format!("{}/{population}", part.metric_id);
            part.population = population.to_owned();
            rollout.observe(&part);
        }
    }
    let difference = rollout.evidence.difference(online::CTR, 1).unwrap();
    assert_eq!((difference.challenger_n, difference.champion_n), (150, 150));
    assert_eq!(difference.challenger, 0.2);
}

#[test]
fn a_stage_that_tells_too_little_for_too_long_keeps_the_champion_and_says_so() {
    let config = RolloutConfig::default();
    let doubtful = with(1, online::CTR, 0.19, 0.20, 400);
    for waiting in [rollout(1), doubtful] {
        let before = waiting.judge(&config, config.max_stage_ms - 1);
        assert_eq!(before.answer, Answer::Wait);
        let after = waiting.judge(&config, config.max_stage_ms);
        assert_eq!(after.answer, Answer::RollBack);
        assert!(
            after.reason.starts_with("the champion stays: 72.0 hours at 10%"),
            "{}",
            after.reason
        );
        assert!(after.reason.contains(&before.reason), "{}", after.reason);
    }
    let good = with(2, online::CTR, 0.3, 0.2, 20_000);
    assert_eq!(good.judge(&config, i64::MAX).answer, Answer::Advance);
}

#[test]
fn the_longest_stay_is_not_below_the_shortest() {
    let mut config = RolloutConfig::default();
    config.check().unwrap();
    config.max_stage_ms = config.min_stage_ms - 1;
    assert!(config.check().unwrap_err().to_string().contains("max_stage_ms"));
}

#[test]
fn where_neither_model_is_clicked_the_hits_decide() {
    let mut rollout = with(1, online::CTR, 0.0, 0.0, 20_000);
    let silent = judged(&rollout);
    assert_eq!(silent.answer, Answer::Wait);
    assert!(
        silent.reason.contains("neither clicks nor hits"),
        "{}",
        silent.reason
    );
    rollout.observe(&figure(online::HIT_RATE, 2, 0.3, 20_000, 0));
    rollout.observe(&figure(online::HIT_RATE, 1, 0.3, 20_000, 0));
    assert_eq!(judged(&rollout).answer, Answer::Advance);
    // The clicks of one model alone are a difference.
    assert_eq!(
        judged(&with(1, online::CTR, 0.0, 0.2, 20_000)).answer,
        Answer::RollBack
    );
}
