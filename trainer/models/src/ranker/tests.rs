use rand::{RngExt, SeedableRng};

use super::*;

/// Lists of ten whose liked row has the largest second feature; the blend looks at the first, which is noise.
fn planted(count: u32, informative: bool) -> TrainingLists {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut lists = TrainingLists::new(2);
    for user in 0..count {
        let values: Vec<(f32, f32)> = (0..10).map(|_| (rng.random(), rng.random())).collect();
        let best = (0..10)
            .max_by(|&a, &b| values[a].1.total_cmp(&values[b].1))
            .unwrap();
        let target = if informative {
            best
        } else {
            rng.random_range(0..10)
        };
        for (row, &(noise, signal)) in values.iter().enumerate() {
            lists.push_row(&[noise, signal], noise, f32::from(u8::from(row == target)), 1.0);
        }
        lists.end_list(user, user as usize, 0);
    }
    lists
}

fn params() -> RankerParams {
    RankerParams {
        gbdt: GbdtParams {
            trees: 40,
            learning_rate: 0.1,
            leaves: 4,
            min_leaf_hessian: 1.0,
            feature_share: 1.0,
            patience: 10,
            ..GbdtParams::default()
        },
        min_lists: 50,
        ..RankerParams::default()
    }
}

#[test]
fn a_planted_signal_is_found_and_beats_the_blend() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (ranker, verdict) = Ranker::fit(&planted(600, true), &params(), &mut rng).unwrap();
    let verdict = verdict.unwrap();
    assert!(
        verdict.ranker_ndcg > 0.9 && verdict.blend_ndcg < 0.6,
        "{verdict:?}"
    );
    let ranker = ranker.unwrap();
    assert!(ranker.score(&[0.1, 0.95]) > ranker.score(&[0.9, 0.3]));
    let rows: Vec<f32> = (0..40_u32).map(|step| (step * 7 % 11) as f32 / 11.0).collect();
    let (mut keys, mut scores) = (Vec::new(), Vec::new());
    ranker.rank_rows(&mut rows.clone(), &mut keys, &mut scores);
    let one_by_one: Vec<f32> = rows.chunks(2).map(|row| ranker.score(row)).collect();
    assert_eq!(scores, one_by_one);
}

#[test]
fn of_many_candidates_the_finalists_have_their_scores_and_the_others_follow() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let ranker = Ranker::fit(&planted(600, true), &params(), &mut rng)
        .unwrap()
        .0
        .unwrap();
    let rows: Vec<f32> = (0..400_u32).map(|step| (step * 7 % 401) as f32 / 401.0).collect();
    let (mut keys, mut scores) = (Vec::new(), Vec::new());
    ranker.rank_rows(&mut rows.clone(), &mut keys, &mut scores);
    assert_eq!(scores.len(), 200);
    let mut ranked: Vec<(f32, f32)> = rows
        .chunks(2)
        .zip(scores)
        .map(|(row, score)| (score, ranker.score(row)))
        .collect();
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (score, full) in &ranked[..FINALISTS] {
        assert_eq!(score.to_bits(), full.to_bits());
    }
    assert!(ranked[FINALISTS].0 < ranked[FINALISTS - 1].0);
    let best = ranked
        .iter()
        .map(|(_, full)| *full)
        .fold(f32::NEG_INFINITY, f32::max);
    assert_eq!(ranked[0].1.to_bits(), best.to_bits());
}

#[test]
fn too_few_lists_give_no_ranker_and_no_verdict() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    assert_eq!(
        Ranker::fit(&planted(20, true), &params(), &mut rng).unwrap(),
        (None, None)
    );
}

#[test]
fn a_ranker_that_learned_nothing_is_not_shipped_over_a_perfect_blend() {
    // The blend is the signal itself, the features are constant.
    let mut lists = TrainingLists::new(1);
    for user in 0..200 {
        for row in 0..10 {
            lists.push_row(&[1.0], -(row as f32), f32::from(u8::from(row == 0)), 1.0);
        }
        lists.end_list(user, user as usize, 0);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (ranker, verdict) = Ranker::fit(&lists, &params(), &mut rng).unwrap();
    assert!(ranker.is_none());
    assert_eq!(verdict.unwrap().blend_ndcg, 1.0);
}

#[test]
fn the_same_seed_gives_the_same_ranker() {
    let fit = || Ranker::fit(&planted(200, true), &params(), &mut ChaCha8Rng::seed_from_u64(3)).unwrap();
    assert_eq!(fit(), fit());
}

#[test]
fn storage_keeps_the_ranker_and_refuses_damage() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let ranker = Ranker::fit(&planted(200, true), &params(), &mut rng)
        .unwrap()
        .0
        .unwrap();
    assert_eq!(Ranker::from_tensors(ranker.to_tensors()).unwrap(), ranker);
    let mut looping = ranker.to_tensors();
    let (_, lefts) = looping.take_u32::<1>("lefts").unwrap();
    looping.insert("lefts", crate::tensors::Tensor::u32s(vec![0; lefts.len()]));
    assert!(matches!(Ranker::from_tensors(looping), Err(Error::Stored(_))));
}

#[test]
fn the_other_objective_and_an_average_of_rankers_find_the_signal_too() {
    let of = |objective, bags| {
        let params = RankerParams {
            objective,
            bags,
            ..params()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (ranker, verdict) = Ranker::fit(&planted(600, true), &params, &mut rng).unwrap();
        (ranker.unwrap(), verdict.unwrap())
    };
    let (softmax, verdict) = of(Objective::Softmax, 1);
    assert!(
        verdict.ranker_ndcg > 0.8 && verdict.blend_ndcg < 0.6,
        "{verdict:?}"
    );
    assert!(softmax.score(&[0.1, 0.95]) > softmax.score(&[0.9, 0.3]));
    let (bagged, verdict) = of(Objective::Lambda, 3);
    assert_eq!(bagged.model.len(), 3 * verdict.trees);
    // The first of the three is the one that a single bag gives.
    let (single, _) = of(Objective::Lambda, 1);
    let first = Gbdt {
        trees: bagged.model.trees[..verdict.trees].to_vec(),
    };
    let row = [0.3, 0.8];
    assert!((3.0 * first.predict(&row) - single.score(&row)).abs() < 1e-4);
}
