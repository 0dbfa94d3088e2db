//! The derivatives of LambdaRank.

use rayon::prelude::*;

use super::TrainingLists;

/// First and second derivative of the loss by row.
///
/// For each pair of a liked and another row of one list: `ρ = 1 / (1 + exp(s⁺ − s⁻))`, weighted by how much NDCG the
/// exchange of the two would cost (Burges 2010, §4) when at least one of them stands before `truncation`, and by the
/// number of candidates that the other row stands for.
pub(super) fn derivatives(lists: &TrainingLists, scores: &[f32], truncation: usize) -> Vec<(f32, f32)> {
    let parts: Vec<Vec<(f32, f32)>> = (0..lists.len())
        .into_par_iter()
        .map(|list| {
            let range = lists.range(list);
            of_list(
                &scores[range.clone()],
                &lists.liked()[range.clone()],
                &lists.weight()[range],
                truncation,
            )
        })
        .collect();
    parts.concat()
}

fn of_list(scores: &[f32], liked: &[bool], weight: &[f32], truncation: usize) -> Vec<(f32, f32)> {
    let mut out = vec![(0.0_f32, 0.0_f32); scores.len()];
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    // The position of a row counts the candidates that the rows before it stand for.
    let mut discount = vec![0.0_f32; scores.len()];
    let mut position = 0.0_f32;
    for &row in &order {
        if position < truncation as f32 {
            discount[row] = 1.0 / (position + 2.0).log2();
        }
        position += weight[row];
    }
    let likes = liked.iter().filter(|&&liked| liked).count();
    let ideal: f32 = (0..likes.min(truncation))
        .map(|rank| 1.0 / (rank as f32 + 2.0).log2())
        .sum();
    if ideal <= 0.0 {
        return out;
    }
    for up in (0..scores.len()).filter(|&row| liked[row]) {
        for down in (0..scores.len()).filter(|&row| !liked[row]) {
            let gain = (discount[up] - discount[down]).abs() / ideal * weight[down];
            if gain == 0.0 {
                continue;
            }
            let rho = 1.0 / (1.0 + (scores[up] - scores[down]).exp());
            let first = rho * gain;
            let second = rho * (1.0 - rho) * gain;
            out[up].0 -= first;
            out[up].1 += second;
            out[down].0 += first;
            out[down].1 += second;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pair_matches_the_formula() {
        // The liked row stands second: exchanging costs 1 - 1/log2(3); ρ = 1/(1 + e^(0 - 1)).
        let out = of_list(&[1.0, 0.0], &[false, true], &[1.0, 1.0], 10);
        let gain = 1.0 - 1.0 / 3.0_f32.log2();
        let rho = 1.0 / (1.0 + (-1.0_f32).exp());
        assert!((out[1].0 + rho * gain).abs() < 1e-6 && (out[0].0 - rho * gain).abs() < 1e-6);
        assert!((out[0].1 - rho * (1.0 - rho) * gain).abs() < 1e-6);
    }

    #[test]
    fn a_pair_wholly_past_the_truncation_costs_nothing() {
        let out = of_list(&[3.0, 2.0, 1.0], &[false, false, true], &[1.0; 3], 1);
        assert_eq!(out[1].0, 0.0);
        assert!(out[0].0 > 0.0);
    }

    #[test]
    fn a_list_without_a_like_pushes_nothing() {
        assert!(
            of_list(&[1.0, 2.0], &[false, false], &[1.0; 2], 5)
                .iter()
                .all(|d| *d == (0.0, 0.0))
        );
    }
}
