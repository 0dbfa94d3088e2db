use super::*;

/// Two tastes: even users choose even items, odd ones odd items; one choice of each user is held out.
fn two_tastes() -> Interactions {
    let mut triplets = Vec::new();
    for user in 0..60_u32 {
        for item in 0..40_u32 {
            if user % 2 == item % 2 && item / 2 != user / 2 % 20 {
                triplets.push((user, item, 1.0));
            }
        }
    }
    Interactions::from_triplets(60, 40, &triplets).unwrap()
}

fn fit(learning_rate: f32) -> Result<Bpr, Error> {
    fit_against(Negatives::Uniform, learning_rate)
}

fn fit_against(negatives: Negatives, learning_rate: f32) -> Result<Bpr, Error> {
    let params = BprParams {
        negatives,
        factors: 5,
        iterations: 40,
        learning_rate,
        ..BprParams::default()
    };
    Bpr::fit(&two_tastes(), &params.check().unwrap())
}

#[test]
fn held_out_choices_score_above_the_other_taste() {
    for negatives in [Negatives::Uniform, Negatives::Popular] {
        let model = fit_against(negatives, 0.1).unwrap();
        let scores = model.user_factors().dot(&model.item_factors().t()) + model.item_biases();
        for user in 0..60 {
            let held_out = user / 2 % 20 * 2 + user % 2;
            let worst_other = (0..40)
                .filter(|item| item % 2 != user % 2)
                .map(|item| scores[(user, item)]);
            assert!(
                worst_other.fold(f32::MIN, f32::max) < scores[(user, held_out)],
                "{negatives:?}, user {user}"
            );
        }
    }
}

#[test]
fn popular_negatives_learn_popularity_away() {
    let mut triplets: Vec<_> = (0..60_u32).map(|user| (user, 0, 1.0)).collect();
    triplets
        .extend((0..60_u32).flat_map(|user| (1..5).map(move |turn| (user, 1 + (user + turn * 7) % 39, 1.0))));
    let matrix = Interactions::from_triplets(61, 40, &triplets).unwrap();
    let bias_of_the_hit = |negatives| {
        let params = BprParams {
            factors: 4,
            iterations: 30,
            negatives,
            ..BprParams::default()
        };
        Bpr::fit(&matrix, &params.check().unwrap()).unwrap().item_biases()[0]
    };
    assert!(bias_of_the_hit(Negatives::Uniform) > 0.0);
    assert!(bias_of_the_hit(Negatives::Popular) < bias_of_the_hit(Negatives::Uniform));
}

#[test]
fn a_folded_in_user_ranks_its_own_taste_first() {
    let model = fit(0.1).unwrap();
    let history = [0, 2, 4, 99].map(|item| HistoryItem { item, weight: 1.0 });
    let mut out = vec![0.0; 40];
    model.score_into(&history, &mut Scratch::default(), &mut out);
    let (even, odd): (Vec<_>, Vec<_>) = out.iter().enumerate().partition(|(item, _)| item % 2 == 0);
    let lowest = even.iter().map(|(_, score)| **score).fold(f32::MAX, f32::min);
    let highest = odd.iter().map(|(_, score)| **score).fold(f32::MIN, f32::max);
    assert!(lowest > highest);
}

#[test]
fn an_empty_history_gets_the_biases() {
    let model = fit(0.1).unwrap();
    let mut out = vec![9.0; 40];
    model.score_into(&[], &mut Scratch::default(), &mut out);
    assert_eq!(out, model.item_biases().to_vec());
}

#[test]
fn the_thread_count_does_not_change_a_byte() {
    let bytes = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| fit(0.1).unwrap().to_tensors().serialize(None).unwrap())
    };
    assert_eq!(bytes(1), bytes(3));
}

#[test]
fn a_divergence_is_an_error() {
    assert!(matches!(fit(1e30), Err(Error::Data(message)) if message.contains("diverged")));
}

#[test]
fn fewer_items_than_blocks_are_trained_without_negatives() {
    let matrix = Interactions::from_triplets(2, 2, &[(0, 0, 1.0), (1, 1, 1.0)]).unwrap();
    assert!(Bpr::fit(&matrix, &BprParams::default().check().unwrap()).is_ok());
}

#[test]
fn parameters_out_of_domain_are_refused_by_name() {
    let refused = |params: BprParams| match params.check() {
        Err(Error::Hyperparameter { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    let base = BprParams::default();
    assert_eq!(refused(BprParams { factors: 0, ..base }), "factors");
    assert_eq!(
        refused(BprParams {
            iterations: 0,
            ..base
        }),
        "iterations"
    );
    assert_eq!(
        refused(BprParams {
            learning_rate: 0.0,
            ..base
        }),
        "learning_rate"
    );
    assert_eq!(
        refused(BprParams {
            regularization: -1.0,
            ..base
        }),
        "regularization"
    );
}

#[test]
fn storage_keeps_the_model_and_refuses_mismatched_shapes() {
    let model = fit(0.1).unwrap();
    assert_eq!(Bpr::from_tensors(model.to_tensors()).unwrap(), model);
    let mut broken = model.to_tensors();
    broken.insert("biases", Tensor::f32s(vec![0.0]));
    assert!(matches!(Bpr::from_tensors(broken), Err(Error::Stored(_))));
}
