use super::*;

/// Squared loss: first derivative `prediction - target`, second 1.
fn boost(rows: &[f32], features: usize, target: &[f32], params: &GbdtParams) -> Gbdt {
    let bins = Bins::fit(rows, features);
    let data = bins.apply(rows);
    let all: Vec<usize> = (0..features).collect();
    let mut model = Gbdt::default();
    let mut predictions = vec![0.0_f32; target.len()];
    for _ in 0..params.trees {
        let derivatives: Vec<(f32, f32)> = predictions
            .iter()
            .zip(target)
            .map(|(p, t)| (p - t, 1.0))
            .collect();
        let rows = (0..target.len() as u32).collect();
        let grown = model.grow(&data, &bins, params, &all, rows, &derivatives);
        grown.add_to(&data, &mut predictions);
    }
    model
}

fn one_stump() -> GbdtParams {
    GbdtParams {
        trees: 1,
        leaves: 2,
        learning_rate: 1.0,
        min_leaf_hessian: 1.0,
        l2: 0.0,
        ..GbdtParams::default()
    }
}

#[test]
fn a_stump_cuts_where_the_target_steps_and_answers_the_means() {
    let rows = [1.0, 2.0, 3.0, 4.0];
    let model = boost(&rows, 1, &[0.0, 0.0, 6.0, 8.0], &one_stump());
    assert_eq!(model.predict(&[1.5]), 0.0);
    assert_eq!(model.predict(&[3.5]), 7.0);
}

#[test]
fn the_penalty_pulls_leaves_towards_zero() {
    let params = GbdtParams {
        l2: 2.0,
        ..one_stump()
    };
    let model = boost(&[1.0, 2.0, 3.0, 4.0], 1, &[0.0, 0.0, 8.0, 8.0], &params);
    // 16 / (2 + 2)
    assert_eq!(model.predict(&[4.0]), 4.0);
}

#[test]
fn an_interaction_of_two_features_is_learned() {
    let (mut rows, mut target) = (Vec::new(), Vec::new());
    for step in 0..400_u32 {
        let (a, b) = ((step % 20) as f32, (step / 20) as f32);
        rows.extend([a, b]);
        target.push(if (a < 10.0) == (b < 7.0) { 1.0 } else { -1.0 });
    }
    let params = GbdtParams {
        trees: 60,
        list_share: 1.0,
        leaves: 4,
        learning_rate: 0.3,
        min_leaf_hessian: 5.0,
        l2: 1.0,
        ..GbdtParams::default()
    };
    let model = boost(&rows, 2, &target, &params);
    assert!(model.predict(&[3.0, 3.0]) > 0.8 && model.predict(&[15.0, 3.0]) < -0.8);
}

#[test]
fn trees_are_the_same_on_one_thread_and_on_many() {
    let rows: Vec<f32> = (0..900_u32)
        .map(|step| (step.wrapping_mul(2_654_435_761) >> 20) as f32)
        .collect();
    let target: Vec<f32> = (0..300_u32).map(|step| (step % 7) as f32).collect();
    let params = GbdtParams {
        trees: 10,
        min_leaf_hessian: 5.0,
        ..GbdtParams::default()
    };
    let many = boost(&rows, 3, &target, &params);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| boost(&rows, 3, &target, &params)), many);
    assert!(many.trees.iter().all(|tree| tree.is_sound(3)));
}

#[test]
fn a_tree_that_points_backwards_is_not_sound() {
    let looping = Tree {
        nodes: vec![
            Node {
                feature: 0,
                threshold: 0.0,
                left: 0
            };
            3
        ],
    };
    assert!(!looping.is_sound(1));
}
