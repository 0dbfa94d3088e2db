use super::*;

fn event(user: u32, item: u32, stars: f32, time_ms: i64) -> Interaction {
    Interaction {
        user,
        item,
        rating: Some(stars),
        weight: 1.0,
        time_ms,
    }
}

fn catalogue(items: u32) -> Catalogue {
    let item = |external_id| marquee_models::served::CatalogueItem {
        external_id,
        year: None,
        genres: 0,
    };
    Catalogue::new((0..items).map(item).collect())
}

fn one_fold() -> ExamConfig {
    ExamConfig {
        folds: 1,
        ..ExamConfig::default()
    }
}

#[test]
fn truth_holds_new_positives_of_warm_users_among_known_items() {
    let train = [event(0, 0, 5.0, 1), event(1, 1, 5.0, 2), event(1, 2, 2.0, 3)];
    let test = [
        event(0, 1, 4.0, 4), // counts
        event(0, 2, 3.5, 5), // not a positive
        event(0, 0, 5.0, 6), // touched before
        event(0, 9, 5.0, 7), // unknown item
        event(7, 1, 5.0, 8), // cold user
    ];
    let catalogue = catalogue(10);
    let exam = Exam::new(&catalogue, &train, &test, &one_fold());
    assert_eq!(
        exam.folds[0].cases,
        [Case {
            user: 0,
            truth: vec![1]
        }]
    );
}

#[test]
fn of_many_warm_users_an_even_share_is_asked() {
    let case = |user| Case { user, truth: vec![1] };
    let users = |most| -> Vec<u32> {
        let kept = some_of((0..10).map(case).collect(), most);
        kept.iter().map(|case| case.user).collect()
    };
    assert_eq!(users(4), [0, 2, 5, 7]);
    assert_eq!(users(1), [0]);
    assert_eq!(users(10), users(99));
    assert!(some_of(Vec::new(), 3).is_empty());
}

#[test]
fn a_later_cutoff_knows_what_the_earlier_folds_revealed() {
    let train = [event(0, 0, 5.0, 1)];
    let test = [
        event(1, 0, 5.0, 2),
        event(0, 1, 5.0, 2),
        event(1, 1, 5.0, 3),
        event(0, 2, 5.0, 4),
    ];
    let catalogue = catalogue(3);
    let config = ExamConfig {
        folds: 2,
        ..ExamConfig::default()
    };
    let exam = Exam::new(&catalogue, &train, &test, &config);
    assert_eq!(exam.folds.len(), 2);
    // User 1 is cold and movie 1 unknown at the first cutoff; both are known at the second. Movie 2 never is.
    assert!(exam.folds[0].cases.is_empty());
    assert_eq!(
        exam.folds[1].cases,
        [Case {
            user: 1,
            truth: vec![1]
        }]
    );
}

#[test]
fn folds_never_tear_a_moment_apart_and_lose_nothing() {
    let events: Vec<_> = (0..30_u32).map(|n| event(n, 0, 5.0, i64::from(n / 7))).collect();
    for folds in 1..12 {
        let runs: Vec<_> = divide(&events, folds).collect();
        assert_eq!(runs.concat(), events);
        for pair in runs.windows(2) {
            assert!(pair[0][pair[0].len() - 1].time_ms < pair[1][0].time_ms);
        }
    }
    assert_eq!(divide(&[], 3).count(), 0);
}

#[test]
fn the_stream_begins_at_the_newest_positives() {
    let train = [event(0, 0, 5.0, 0)];
    let test: Vec<_> = (1..11_i64)
        .map(|time| event(1, time as u32, if time % 2 == 0 { 5.0 } else { 1.0 }, time))
        .collect();
    let catalogue = catalogue(11);
    let config = ExamConfig {
        folds: 1,
        stream_positives: 2,
        ..ExamConfig::default()
    };
    let exam = Exam::new(&catalogue, &train, &test, &config);
    // Positives lie at times 2, 4, 6, 8, 10; the last two begin at time 8, index 7.
    assert_eq!(exam.stream_from, 7);
    let none = ExamConfig {
        folds: 1,
        stream_positives: 0,
        ..ExamConfig::default()
    };
    assert_eq!(Exam::new(&catalogue, &train, &test, &none).stream_from, 10);
}

#[test]
fn popularity_ranks_by_likes_and_skips_what_the_user_has_seen() {
    let train = [
        event(0, 0, 5.0, 1),
        event(1, 0, 5.0, 1),
        event(1, 1, 5.0, 2),
        event(2, 2, 1.0, 2),
    ];
    let test = [event(0, 1, 5.0, 3)];
    let catalogue = catalogue(3);
    let card = Exam::new(&catalogue, &train, &test, &one_fold()).judge_popularity();
    let metrics = card.metrics();
    assert_eq!(metrics["ndcg@10"], 1.0);
    assert_eq!(metrics["mrr"], 1.0);
    assert_eq!(metrics["n"], 1.0);
    assert_eq!(metrics["coverage@100"], 2.0 / 3.0);
}

#[test]
fn without_questions_there_are_only_counts() {
    let catalogue = catalogue(3);
    let exam = Exam::new(&catalogue, &[], &[], &ExamConfig::default());
    assert!(exam.is_empty());
    let card = exam.judge_popularity();
    assert_eq!(card.metrics().values().copied().sum::<f64>(), 0.0);
    assert!(card.is_sound());
}

#[test]
fn a_model_is_asked_about_cold_users_too_and_alike_whatever_the_threads() {
    let snapshot = crate::testing::snapshot(900);
    let (train, test) = snapshot.interactions.split_at(700);
    let mut test = test.to_vec();
    // Somebody nobody knows.
    test.push(event(999, 3, 5.0, test[test.len() - 1].time_ms + 1));
    let settings = crate::testing::settings();
    let model = ServedModel::fit(train, &snapshot.catalogue, &settings.params, 1).unwrap();
    let exam = Exam::new(&snapshot.catalogue, train, &test, &ExamConfig::default());
    let card = exam.judge(&model).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| exam.judge(&model)).unwrap(), card);
    assert!(card.is_sound());
    let stranger = card.stream.users.last().unwrap();
    assert_eq!((stranger.user, stranger.cases), (999, 1));
    let likes = test.iter().filter(|event| event.is_like()).count();
    assert!(card.stream.cases() as usize <= likes && card.stream.cases() > 0);
    for (name, value) in card.metrics() {
        assert!(value.is_finite(), "{name}");
    }
}
