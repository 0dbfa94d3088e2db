use super::*;
use crate::served::CatalogueItem;

/// Forty users who all watch items in the same cyclic order, each from another start: the next item is certain.
fn cyclic() -> Dataset {
    let mut ratings = Vec::new();
    for user in 0..40_u32 {
        for step in 0..12_u32 {
            ratings.push(RawRating {
                user: user + 1,
                item: (user + step) % 24 + 1,
                rating: 5.0,
                time_ms: i64::from(user) * 100_000_000 + i64::from(step) * 1000,
            });
        }
    }
    let items: Vec<CatalogueItem> = (1..=24)
        .map(|id| CatalogueItem {
            external_id: id,
            year: Some(2000),
            genres: 1,
        })
        .collect();
    Dataset::prepare(&ratings, &items).unwrap()
}

fn options(models: Vec<ModelName>) -> EvaluationOptions {
    EvaluationOptions {
        models,
        segment: Segment::Test,
        bootstrap_draws: 50,
        retrain_every: Some(40),
        ..EvaluationOptions::default()
    }
}

#[test]
fn prequential_counts_every_positive_once_and_splits_populations() {
    let data = cyclic();
    let last = std::sync::Mutex::new(Progress { done: 0, total: 0 });
    let rows = prequential(
        &data,
        &options(vec![ModelName::Transitions, ModelName::Popularity]),
        &|at| {
            let mut last = last.lock().unwrap();
            last.done = last.done.max(at.done);
            last.total = at.total;
        },
    )
    .unwrap();
    let last = last.into_inner().unwrap();
    let find = |model: &str, population| {
        rows.iter()
            .find(|row| row.model == model && row.population == population)
            .unwrap()
    };
    let all = find("transitions", Population::All);
    assert_eq!(all.n, data.range(Segment::Test).len());
    assert_eq!((last.done, last.total), (2 * all.n, 2 * all.n));
    let parts: usize = [Population::Warm, Population::Cold]
        .iter()
        .map(|&part| find("transitions", part).n)
        .sum();
    assert_eq!(parts, all.n);
    assert!(find("transitions", Population::NoHistory).n >= 5);
    assert!(all.ndcg_10 > 0.7, "{all:?}");
    assert!(all.ndcg_10 > find("popularity", Population::All).ndcg_10);
    assert!(all.ndcg_10_lo <= all.ndcg_10 && all.ndcg_10 <= all.ndcg_10_hi);
}

#[test]
fn events_of_one_moment_are_predicted_before_any_is_revealed() {
    // In pairs of equal time stamps the second can only be foretold from the first if it leaks.
    let mut ratings = Vec::new();
    for user in 0..60_u32 {
        for step in 0..8_u32 {
            ratings.push(RawRating {
                user: user + 1,
                item: (user * 7 + step / 2 * 13) % 20 + (step % 2) * 20 + 1,
                rating: 5.0,
                time_ms: i64::from(user) * 1_000_000 + i64::from(step / 2) * 1000,
            });
        }
    }
    let data = Dataset::prepare(&ratings, &[]).unwrap();
    let order: Vec<_> = data
        .interactions()
        .iter()
        .map(|event| (event.user, event.time_ms))
        .collect();
    assert!(order.windows(2).any(|pair| pair[0] == pair[1]));
    let mut reversed = ratings.clone();
    reversed.reverse();
    let swapped = Dataset::prepare(&reversed, &[]).unwrap();
    let figure =
        |data: &Dataset| prequential(data, &options(vec![ModelName::Transitions]), &|_| ()).unwrap()[0].hr_10;
    // The order inside a moment decides nothing: user numbering aside the figure is the same.
    assert!((figure(&data) - figure(&swapped)).abs() < 0.02);
}

#[test]
fn static_evaluation_ranks_warm_users_only() {
    let mut ratings = Vec::new();
    for round in 0..12_u32 {
        for user in 0..20_u32 {
            ratings.push(RawRating {
                user: user + 1,
                item: (user % 4 * 6 + round) % 24 + 1,
                rating: 5.0,
                time_ms: i64::from(round) * 1_000_000 + i64::from(user),
            });
        }
    }
    let data = Dataset::prepare(&ratings, &[]).unwrap();
    let rows = static_eval(&data, &options(vec![ModelName::Ease, ModelName::Served]), &|_| ()).unwrap();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!(
            (row.population, row.protocol.as_str()),
            (Population::Warm, "static")
        );
        assert!(row.n > 0 && row.n <= 20 && row.coverage_100 <= 1.0);
    }
    let json = serde_json::to_value(&rows[0]).unwrap();
    assert!(json["ndcg@10"].is_f64() && json["population"] == "warm" && json["segment"] == "test");
}

#[test]
fn the_train_segment_and_unknown_models_are_refused() {
    let data = cyclic();
    let train = EvaluationOptions {
        segment: Segment::Train,
        ..EvaluationOptions::default()
    };
    assert!(prequential(&data, &train, &|_| ()).is_err());
    assert!(static_eval(&data, &train, &|_| ()).is_err());
    assert!("nonsense".parse::<ModelName>().is_err());
    for &model in ModelName::ALL {
        assert_eq!(model.name().parse::<ModelName>().unwrap(), model);
    }
}

#[test]
fn the_served_figures_do_not_depend_on_the_threads_or_the_company() {
    let data = cyclic();
    let alone = prequential(&data, &options(vec![ModelName::Served]), &|_| ()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let all = options(vec![ModelName::Served, ModelName::Als, ModelName::Biases]);
    let together = pool.install(|| prequential(&data, &all, &|_| ())).unwrap();
    assert_eq!(alone[..], together[..alone.len()]);
}

#[test]
fn only_a_model_that_predicts_stars_has_rating_errors() {
    let data = cyclic();
    let all = options(vec![ModelName::Biases, ModelName::Popularity]);
    let rows = prequential(&data, &all, &|_| ()).unwrap();
    for row in &rows {
        assert_eq!(row.stars.is_some(), row.model == "biases", "{row:?}");
    }
    // Everybody gives five stars.
    let stars = rows[0].stars.unwrap();
    assert!(stars.errors.rmse < 1e-3 && stars.ratings == data.range(Segment::Test).len());
    let json = serde_json::to_value(&rows[0]).unwrap();
    assert!(json["rmse"].is_f64() && json["r2"].is_f64() && json["mae"].is_f64());
    assert_eq!(serde_json::from_value::<ResultRow>(json).unwrap(), rows[0]);
}

#[test]
fn a_random_split_tests_a_fifth_of_each_users_pairs() {
    // Two tastes that never mix: who is trained on one part of a taste is asked for the other.
    let pairs: Vec<(u32, u32)> = (0..40_u32)
        .flat_map(|user| (0..10_u32).map(move |item| (user, user % 2 * 10 + item)))
        .collect();
    let run = |seed| {
        let options = EvaluationOptions {
            seed,
            ..options(vec![ModelName::Ease, ModelName::Als, ModelName::Cosine])
        };
        random_split(&pairs, &options, &|_| ()).unwrap()
    };
    let rows = run(0);
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!((row.n, row.users, row.population), (40, 40, Population::All));
        // Two items are left of the ten, and ten of the other taste.
        assert_eq!(row.recall_5, 1.0, "{row:?}");
    }
    assert_eq!(run(0), rows);
    let refused = random_split(&pairs, &options(vec![ModelName::Served]), &|_| ()).unwrap_err();
    assert!(refused.to_string().contains("served"), "{refused}");
    assert!(random_split(&[], &options(vec![ModelName::Als]), &|_| ()).is_err());
}
