//! A catalogue large enough for lists from a pool.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const ITEMS: u32 = POOLED_FROM as u32 + 1;
const USERS: u32 = 400;
const NOW_MS: i64 = 100_000_000;

/// Walks of people who begin anywhere and mostly go on to the next few items; few items are met more than once.
fn walks() -> Vec<Interaction> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut events = Vec::new();
    for user in 0..USERS {
        let mut item = (rng.random::<f64>().powi(3) * f64::from(ITEMS)) as u32 % ITEMS;
        let begin = rng.random_range(0..NOW_MS - 100_000);
        for step in 0..30 {
            let stars = if rng.random::<f32>() < 0.7 { 5.0 } else { 2.0 };
            events.push(Interaction {
                rating: Some(stars),
                ..event(user, item, begin + step * 1_000)
            });
            item = (item + rng.random_range(1..40)) % ITEMS;
        }
    }
    events.sort_by_key(|event| event.time_ms);
    events
}

struct Large {
    model: ServedModel,
    live: LiveState,
    binding: Binding,
}

impl Large {
    fn new() -> Self {
        let events = walks();
        let catalogue = catalogue_of(ITEMS);
        let mut params = ServedParams::default();
        params.fit.window = 0;
        params.generators.max_items = 300;
        params.generators.min_events = 2;
        let model = ServedModel::fit(&events, &catalogue, &params, 7).unwrap();
        let mut live = LiveState::new(params.live).unwrap();
        for event in &events {
            live.observe(event);
        }
        let binding = model.bind_catalogue(&catalogue);
        Self { model, live, binding }
    }

    fn query(&self, user: u32) -> Query<'_> {
        query(
            &self.binding,
            &self.live,
            Context::of_user(&self.live, user),
            NOW_MS,
        )
    }

    fn pool(&self, query: &Query<'_>, scratch: &mut ScoreScratch) {
        let weights = &self.model.params.blend;
        let weighs = |column| weights.weight(column, query) != 0.0;
        features::compute_pool(&self.model.generators, query, weighs, &[], scratch);
        blend::blend(weights, 0..features::COLUMNS, query, scratch);
    }
}

fn catalogue_of(items: u32) -> Catalogue {
    let item = |index| CatalogueItem {
        external_id: 100 + index,
        year: Some(1950 + (index % 70) as u16),
        genres: 1_u32 << (index % 11),
    };
    Catalogue::new((0..items).map(item).collect())
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-3 * (1.0 + a.abs().max(b.abs()))
}

/// Known people, and one who is not.
const ASKED: [u32; 6] = [0, 1, 77, 200, 399, 5_000];

#[test]
fn who_is_in_the_pool_scores_as_among_all_and_nobody_better_is_outside() {
    let large = Large::new();
    let (mut dense, mut pooled) = (ScoreScratch::new(), ScoreScratch::new());
    for user in ASKED {
        let query = large.query(user);
        large.pool(&query, &mut pooled);
        let scores = large.model.blend_all(&query, &mut dense).to_vec();
        assert!(pooled.pool.items().len() < scores.len() / 2, "no pool");
        for (place, &item) in pooled.pool.items().iter().enumerate() {
            let (score, whole) = (pooled.scores[place], scores[item as usize]);
            assert!(close(score, whole), "{user}: item {item} {score} {whole}");
            for column in 0..features::SCORES {
                let (pooled, whole) = (
                    pooled.columns[column][place],
                    dense.columns[column][item as usize],
                );
                assert!(
                    close(pooled, whole),
                    "{user}: {} {pooled} {whole}",
                    features::NAMES[column]
                );
            }
        }
        let (mean, variance) = pooled.score_moments();
        let (whole_mean, whole_variance) = dense.score_moments();
        assert!(close(mean, whole_mean), "{user}: {mean} {whole_mean}");
        assert!(
            query.context.history.is_empty() || (variance / whole_variance - 1.0).abs() < 0.2,
            "{variance} {whole_variance}"
        );

        let mut unseen: Vec<u32> = (0..ITEMS).filter(|&item| !query.context.is_seen(item)).collect();
        unseen.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
        let best = large
            .model
            .best(&query, 100, |item| !query.context.is_seen(item), &mut pooled);
        assert_eq!(best.len(), 100);
        for (best, &item) in best.iter().zip(&unseen) {
            assert!(
                close(best.score, scores[item as usize]),
                "{user}: {best:?} {item}"
            );
        }
    }
}

#[test]
fn where_the_pool_holds_too_few_that_may_be_listed_everybody_is_asked() {
    let large = Large::new();
    let mut scratch = ScoreScratch::new();
    let query = large.query(3);
    large.pool(&query, &mut scratch);
    let pool = scratch.pool.items().to_vec();
    let outside: Vec<u32> = (0..ITEMS).filter(|item| !pool.contains(item)).take(30).collect();
    let best = large
        .model
        .best(&query, 20, |item| outside.contains(&item), &mut scratch);
    assert_eq!(best.len(), 20);
    assert!(best.iter().all(|best| outside.contains(&best.item)));
}

#[test]
fn similar_items_are_those_of_the_pass_over_all() {
    let large = Large::new();
    let (mut scratch, mut dense) = (ScoreScratch::new(), ScoreScratch::new());
    let mut found = 0;
    for seed in walks().iter().step_by(997).map(|event| event.item) {
        let similar = large
            .model
            .similar(&large.binding, &large.live, &[seed], NOW_MS, 10, &mut scratch);
        found += similar.len();
        let history = [crate::live::HistoryEntry::like(seed, NOW_MS)];
        let query = Query {
            context: Context::of_history(&history),
            ..large.query(0)
        };
        features::compute_pairwise(&large.model.generators, &query, &mut dense);
        blend::blend(&large.model.params.blend, features::PAIRWISE, &query, &mut dense);
        for (one, other) in similar.iter().zip(dense.top(10, |item| item == seed)) {
            assert!(close(one.score, other.score), "{seed}: {one:?} {other:?}");
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn explanations_tell_what_the_pass_over_all_would() {
    let large = Large::new();
    let mut scratch = ScoreScratch::new();
    let query = large.query(42);
    // One of them is outside any pool.
    let last = query.context.history[29].item;
    let mut items: Vec<u32> = large
        .model
        .similar(&large.binding, &large.live, &[last], NOW_MS, 5, &mut scratch)
        .iter()
        .map(|similar| similar.item)
        .collect();
    items.push((0..ITEMS).find(|&item| large.live.item_count(item) == 0).unwrap());
    let explained = large.model.explain(&query, &items, &mut scratch);
    let scores = large.model.blend_all(&query, &mut scratch);
    for (explained, &item) in explained.iter().zip(&items) {
        let sum: f32 = explained.terms.iter().map(|term| term.contribution).sum();
        assert!(close(sum, scores[item as usize]), "{item}: {explained:?}");
    }
    let reasons: Vec<_> = explained.iter().filter_map(|one| one.because).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| large.live.is_seen(42, reason.item)));
    assert!(explained[5].because.is_none() && explained[5].terms.is_empty());
}

#[test]
fn a_ranker_learns_from_lists_of_a_pool() {
    let catalogue = catalogue_of(ITEMS);
    let params = ServedParams {
        fit: FitParams {
            warm_up: 6_000,
            generator_stride: 3_000,
            list_share: 0.1,
            ..FitParams::default()
        },
        ranker: RankerParams {
            min_lists: 20,
            ..RankerParams::default()
        },
        generators: GeneratorParams {
            max_items: 300,
            ..GeneratorParams::default()
        },
        ..ServedParams::default()
    };
    let model = ServedModel::fit(&walks(), &catalogue, &params, 7).unwrap();
    assert!(model.verdict().is_some_and(|verdict| verdict.lists > 0));
    assert_eq!(model, ServedModel::fit(&walks(), &catalogue, &params, 7).unwrap());
}
