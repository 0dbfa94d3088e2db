use super::*;
use crate::evaluate::RawRating;

fn space() -> Vec<Dimension> {
    vec![
        Dimension {
            path: "/ranker/gbdt/l2",
            low: 0.1,
            high: 100.0,
            scale: Scale::Logarithmic,
        },
        Dimension {
            path: "/fit/candidates",
            low: 10.0,
            high: 500.0,
            scale: Scale::Count,
        },
    ]
}

/// Best at l2 = 10 and 100 candidates.
fn value(point: &[f64]) -> f64 {
    -(point[0].log10() - 1.0).powi(2) - (point[1].ln() - 100.0_f64.ln()).powi(2)
}

fn search(trials: usize, seed: u64) -> Vec<Trial> {
    let mut done: Vec<Trial> = Vec::new();
    for index in 0..trials {
        let point = propose(&space(), &done, index, seed);
        let value = value(&point);
        done.push(Trial { index, point, value });
    }
    done
}

#[test]
fn later_trials_are_better_than_random_ones() {
    let mean = |trials: &[Trial]| trials.iter().map(|trial| trial.value).sum::<f64>() / trials.len() as f64;
    for seed in 0..5 {
        let done = search(60, seed);
        assert!(mean(&done[40..]) > mean(&done[..12]), "seed {seed}");
    }
}

#[test]
fn an_interrupted_search_goes_on_as_if_it_had_not_been() {
    let done = search(30, 7);
    assert_eq!(search(30, 7), done);
    // The journal of twenty trials is all that is needed for the next one.
    assert_eq!(propose(&space(), &done[..20], 20, 7), done[20].point);
    assert_ne!(search(30, 8), done);
}

#[test]
fn every_point_lies_in_the_space_and_makes_valid_settings() {
    let space = served_space();
    let mut done: Vec<Trial> = Vec::new();
    for index in 0..40 {
        let point = propose(&space, &done, index, 3);
        for (dimension, &value) in space.iter().zip(&point) {
            assert!(
                (dimension.low..=dimension.high).contains(&value),
                "{dimension:?} {value}"
            );
        }
        apply(&ServedParams::default(), &space, &point).unwrap();
        let value = -point[0];
        done.push(Trial { index, point, value });
    }
}

#[test]
fn a_point_changes_what_it_names_and_nothing_else() {
    let base = ServedParams::default();
    let params = apply(&base, &space(), &[2.5, 77.0]).unwrap();
    assert_eq!((params.ranker.gbdt.l2, params.fit.candidates), (2.5, 77));
    assert_eq!(params.live, base.live);
    let wrong = [Dimension {
        path: "/no/such",
        low: 0.0,
        high: 1.0,
        scale: Scale::Linear,
    }];
    assert!(
        apply(&base, &wrong, &[0.5])
            .unwrap_err()
            .to_string()
            .contains("/no/such")
    );
}

#[test]
fn the_test_segment_is_gone() {
    let ratings: Vec<RawRating> = (0..400_u32)
        .map(|event| RawRating {
            user: event / 10,
            item: event * 7 % 20,
            rating: 5.0,
            time_ms: i64::from(event) * 1000,
        })
        .collect();
    let data = Dataset::prepare(&ratings, &[]).unwrap();
    let before = data.range(Segment::Test).start;
    let Blind(blind) = Blind::new(data.clone());
    assert_eq!(blind.interactions(), &data.interactions()[..before]);
    assert!(blind.range(Segment::Test).is_empty());
    assert_eq!(blind.range(Segment::Validation), data.range(Segment::Validation));
    let value = Blind::new(data).value(&ServedParams::default(), Some(50), 0, &|_| ());
    assert!((0.0..=1.0).contains(&value.unwrap()));
}
