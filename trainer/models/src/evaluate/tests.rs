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
    let mut last = None;
    let rows = prequential(
        &data,
        &options(vec![ModelName::Transitions, ModelName::Popularity]),
        &mut |at| {
            last = Some(at);
        },
    )
    .unwrap();
    let find = |model: &str, population| {
        rows.iter()
            .find(|row| row.model == model && row.population == population)
            .unwrap()
    };
    let all = find("transitions", Population::All);
    assert_eq!(all.n, data.range(Segment::Test).len());
    assert_eq!(last.map(|at| (at.done, at.total)), Some((all.n, all.n)));
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
    let figure = |data: &Dataset| {
        prequential(data, &options(vec![ModelName::Transitions]), &mut |_| ()).unwrap()[0].hr_10
    };
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
    let rows = static_eval(
        &data,
        &options(vec![ModelName::Ease, ModelName::Served]),
        &mut |_| (),
    )
    .unwrap();
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
    assert!(prequential(&data, &train, &mut |_| ()).is_err());
    assert!(static_eval(&data, &train, &mut |_| ()).is_err());
    assert!("nonsense".parse::<ModelName>().is_err());
    for model in ModelName::ALL {
        assert_eq!(model.name().parse::<ModelName>().unwrap(), model);
    }
}
