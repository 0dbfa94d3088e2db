use proptest::prelude::*;

use super::*;
use crate::tensors::Tensor;

fn params(factors: usize) -> AlsParams {
    AlsParams {
        factors,
        iterations: 5,
        regularization: 0.5,
        alpha: 4.0,
        ..AlsParams::default()
    }
}

/// Two tastes: even users choose even items, odd ones odd items; one choice of each user is held out.
fn two_tastes() -> Interactions {
    let mut triplets = Vec::new();
    for user in 0..20_u32 {
        for item in 0..10_u32 {
            if user % 2 == item % 2 && item / 2 != user / 2 % 5 {
                triplets.push((user, item, 1.0));
            }
        }
    }
    Interactions::from_triplets(21, 10, &triplets).unwrap()
}

fn fit(solver: AlsSolver) -> Als {
    Als::fit(&two_tastes(), &AlsParams { solver, ..params(3) }.check().unwrap()).unwrap()
}

#[test]
fn one_factor_matches_the_closed_form() {
    // One factor, user fixed at history {0}: x = c·y0 / (Σ y² + (c − 1)·y0² + λ), c = α = 4 (Hu et al., equation 4).
    let items = Array2::from_shape_vec((2, 1), vec![2.0, 1.0]).unwrap();
    let params = params(1);
    let model = Als::assemble(params, Array2::zeros((0, 1)), items).unwrap();
    let user = model.fold_in(&[HistoryItem { item: 0, weight: 1.0 }]);
    assert!((user[0] - 4.0 * 2.0 / (5.0 + 3.0 * 4.0 + 0.5)).abs() < 1e-6);
}

#[test]
fn a_dislike_lowers_and_a_like_raises() {
    let model = fit(AlsSolver::Cholesky);
    let score = |history: &[(u32, f32)]| {
        let history: Vec<_> = history
            .iter()
            .map(|&(item, weight)| HistoryItem { item, weight })
            .collect();
        let mut out = vec![0.0; 10];
        model.score_into(&history, &mut Scratch::default(), &mut out);
        out[4]
    };
    assert!(score(&[(0, 1.0), (2, 1.0)]) > score(&[(0, 1.0)]));
    assert!(score(&[(0, 1.0), (2, -1.0)]) < score(&[(0, 1.0)]));
}

#[test]
fn held_out_choices_score_above_the_other_taste() {
    for solver in [AlsSolver::ConjugateGradient { steps: 3 }, AlsSolver::Cholesky] {
        let model = fit(solver);
        let scores = model.user_factors().dot(&model.item_factors().t());
        for user in 0..20 {
            let held_out = user / 2 % 5 * 2 + user % 2;
            let worst_other = (0..10)
                .filter(|item| item % 2 != user % 2)
                .map(|item| scores[(user, item)]);
            assert!(
                worst_other.fold(f32::MIN, f32::max) < scores[(user, held_out)],
                "{solver:?}, user {user}"
            );
        }
    }
}

#[test]
fn a_fold_in_of_the_training_history_solves_the_training_system() {
    // After the last item step users are one step behind; solve them once more through the half-step.
    let model = fit(AlsSolver::Cholesky);
    let matrix = two_tastes();
    let exact = AlsParams {
        solver: AlsSolver::Cholesky,
        ..params(3)
    };
    let items = Padded::from_array(&model.items);
    let mut users = Padded::from_array(&model.users);
    HalfStep::new(matrix.by_user(), &items, &exact)
        .solve(&mut users)
        .unwrap();
    let users = users.into_array();
    for user in 0..20 {
        let history: Vec<_> = (matrix.by_user().outer_view(user).unwrap().indices().iter())
            .map(|&item| HistoryItem { item, weight: 1.0 })
            .collect();
        for (folded, solved) in model.fold_in(&history).iter().zip(users.row(user)) {
            assert!((folded - solved).abs() < 1e-4);
        }
    }
}

#[test]
fn a_user_without_events_and_an_empty_history_get_zeros() {
    let model = fit(AlsSolver::ConjugateGradient { steps: 3 });
    assert!(model.user_factors().row(20).iter().all(|&value| value == 0.0));
    let mut out = vec![9.0; 10];
    model.score_into(
        &[HistoryItem {
            item: 99,
            weight: 1.0,
        }],
        &mut Scratch::default(),
        &mut out,
    );
    assert_eq!(out, vec![0.0; 10]);
}

#[test]
fn the_thread_count_does_not_change_a_byte() {
    for solver in [AlsSolver::ConjugateGradient { steps: 3 }, AlsSolver::Cholesky] {
        let bytes = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| fit(solver).to_tensors().serialize(None).unwrap())
        };
        assert_eq!(bytes(1), bytes(3));
    }
}

#[test]
fn parameters_out_of_domain_are_refused_by_name() {
    let refused = |params: AlsParams| match params.check() {
        Err(Error::Hyperparameter { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    let base = AlsParams::default();
    assert_eq!(refused(AlsParams { factors: 0, ..base }), "factors");
    assert_eq!(
        refused(AlsParams {
            iterations: 0,
            ..base
        }),
        "iterations"
    );
    assert_eq!(
        refused(AlsParams {
            regularization: -0.1,
            ..base
        }),
        "regularization"
    );
    assert_eq!(
        refused(AlsParams {
            regularization: f32::NAN,
            ..base
        }),
        "regularization"
    );
    assert_eq!(refused(AlsParams { alpha: 0.0, ..base }), "alpha");
    assert_eq!(
        refused(AlsParams {
            frequency_scaling: 1.5,
            ..base
        }),
        "frequency_scaling"
    );
    let solver = AlsSolver::ConjugateGradient { steps: 0 };
    assert_eq!(refused(AlsParams { solver, ..base }), "steps");
}

#[test]
fn frequency_scaling_raises_the_penalty_with_the_events() {
    let scaled = AlsParams {
        frequency_scaling: 1.0,
        ..params(2)
    };
    // 0.5 · (3 + 8 / 4) = 2.5.
    assert!((penalty(&scaled, 3, 8) - 2.5).abs() < 1e-6);
    assert!((penalty(&params(2), 3, 8) - 0.5).abs() < 1e-6);
}

#[test]
fn storage_keeps_the_scores_and_refuses_mismatched_shapes() {
    let model = fit(AlsSolver::Cholesky);
    let loaded = Als::from_tensors(model.to_tensors()).unwrap();
    let history = [HistoryItem { item: 3, weight: 1.0 }];
    assert_eq!(model.fold_in(&history), loaded.fold_in(&history));
    assert_eq!(model.items, loaded.items);
    let mut broken = model.to_tensors();
    broken.insert("users", Tensor::matrix(&Array2::zeros((2, 2))));
    assert!(matches!(Als::from_tensors(broken), Err(Error::Stored(_))));
    let mut broken = model.to_tensors();
    broken.insert("fold_in", Tensor::f32s(vec![-1.0, 1.0, 0.0]));
    assert!(matches!(Als::from_tensors(broken), Err(Error::Stored(_))));
}

proptest! {
    /// Each exact half-step minimises the objective in its own half, so no step may raise it.
    #[test]
    fn the_objective_never_rises(
        pairs in prop::collection::vec((0_u32..6, 0_u32..7, 0.2_f32..3.0), 5..40),
        seed in 0_u64..1000,
    ) {
        let matrix = Interactions::from_triplets(6, 7, &pairs).unwrap();
        let mut last = f64::INFINITY;
        for iterations in 1..5 {
            let params = AlsParams { iterations, seed, solver: AlsSolver::Cholesky, ..params(3) };
            let model = Als::fit(&matrix, &params.check().unwrap()).unwrap();
            let now = objective(&model, &matrix);
            prop_assert!(now <= last * (1.0 + 1e-4), "{now} > {last}");
            last = now;
        }
    }
}

/// Hu et al., equation 3.
fn objective(model: &Als, matrix: &Interactions) -> f64 {
    let scores = model.user_factors().dot(&model.item_factors().t());
    let mut total = 0.0;
    for ((user, item), &score) in scores.indexed_iter() {
        let weight = matrix.by_user().get(user, item).copied();
        let confidence = (model.params.alpha * weight.unwrap_or(0.0)).max(1.0);
        let target = if weight.is_some() { 1.0 } else { 0.0 };
        total += f64::from(confidence * (target - score).powi(2));
    }
    let squares: f32 = model
        .users
        .iter()
        .chain(&model.items)
        .map(|value| value * value)
        .sum();
    total + f64::from(model.params.regularization * squares)
}
