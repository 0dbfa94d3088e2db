//! The derivatives of LambdaRank.

use rayon::prelude::*;

use super::TrainingLists;
use crate::metrics::descending;

/// Rows of some lists with their derivatives.
#[derive(Debug, Default)]
pub(super) struct Derivatives {
    /// Ascending if the lists are.
    pub(super) rows: Vec<u32>,
    /// First and second derivative of the loss, one pair per row.
    pub(super) values: Vec<(f32, f32)>,
}

/// Lists per unit of parallel work.
const BLOCK: usize = 512;

/// First and second derivative of the loss by row of the `chosen` lists; rows that the loss does not depend on are left
/// out.
///
/// For each pair of a liked and another row of one list: `ρ = 1 / (1 + exp(s⁺ − s⁻))`, weighted by how much NDCG the
/// exchange of the two would cost (Burges 2010, §4) when at least one of them stands before `truncation`, and by the
/// number of candidates that the other row stands for.
pub(super) fn derivatives(
    lists: &TrainingLists,
    chosen: &[usize],
    scores: &[f32],
    truncation: usize,
) -> Derivatives {
    let parts: Vec<Derivatives> = chosen
        .par_chunks(BLOCK)
        .map(|block| {
            let mut part = Derivatives::default();
            let mut work = Work::default();
            for &list in block {
                let range = lists.range(list);
                work.derive(
                    &scores[range.clone()],
                    &lists.liked()[range.clone()],
                    &lists.weight()[range.clone()],
                    truncation,
                );
                for (row, &pair) in range.zip(&work.out) {
                    if pair != (0.0, 0.0) {
                        part.rows.push(row as u32);
                        part.values.push(pair);
                    }
                }
            }
            part
        })
        .collect();
    let mut all = Derivatives::default();
    for part in parts {
        all.rows.extend(part.rows);
        all.values.extend(part.values);
    }
    all
}

/// Buffers for one list after the other.
#[derive(Debug, Default)]
struct Work {
    order: Vec<u64>,
    discount: Vec<f32>,
    out: Vec<(f32, f32)>,
}

impl Work {
    /// Leaves the derivatives of one list in `out`.
    fn derive(&mut self, scores: &[f32], liked: &[bool], weight: &[f32], truncation: usize) {
        self.out.clear();
        self.out.resize(scores.len(), (0.0, 0.0));
        let likes = liked.iter().filter(|&&liked| liked).count();
        let ideal: f32 = (0..likes.min(truncation))
            .map(|rank| 1.0 / (rank as f32 + 2.0).log2())
            .sum();
        if ideal <= 0.0 {
            return;
        }
        self.order.clear();
        self.order.extend(
            (0_u64..)
                .zip(scores)
                .map(|(row, &score)| u64::from(descending(score)) << 32 | row),
        );
        self.order.sort_unstable();
        // The position of a row counts the candidates that the rows before it stand for.
        self.discount.clear();
        self.discount.resize(scores.len(), 0.0);
        let mut position = 0.0_f32;
        for &key in &self.order {
            let row = key as u32 as usize;
            if position >= truncation as f32 {
                break;
            }
            self.discount[row] = 1.0 / (position + 2.0).log2();
            position += weight[row];
        }
        for up in (0..scores.len()).filter(|&row| liked[row]) {
            for down in (0..scores.len()).filter(|&row| !liked[row]) {
                let gain = (self.discount[up] - self.discount[down]).abs() / ideal * weight[down];
                if gain == 0.0 {
                    continue;
                }
                let rho = 1.0 / (1.0 + (scores[up] - scores[down]).exp());
                let first = rho * gain;
                let second = rho * (1.0 - rho) * gain;
                self.out[up].0 -= first;
                self.out[up].1 += second;
                self.out[down].0 += first;
                self.out[down].1 += second;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_list(scores: &[f32], liked: &[bool], truncation: usize) -> Vec<(f32, f32)> {
        let mut work = Work::default();
        work.derive(scores, liked, &vec![1.0; scores.len()], truncation);
        work.out
    }

    #[test]
    fn one_pair_matches_the_formula() {
        // The liked row stands second: exchanging costs 1 - 1/log2(3); ρ = 1/(1 + e^(0 - 1)).
        let out = of_list(&[1.0, 0.0], &[false, true], 10);
        let gain = 1.0 - 1.0 / 3.0_f32.log2();
        let rho = 1.0 / (1.0 + (-1.0_f32).exp());
        assert!((out[1].0 + rho * gain).abs() < 1e-6 && (out[0].0 - rho * gain).abs() < 1e-6);
        assert!((out[0].1 - rho * (1.0 - rho) * gain).abs() < 1e-6);
    }

    #[test]
    fn a_pair_wholly_past_the_truncation_costs_nothing() {
        let out = of_list(&[3.0, 2.0, 1.0], &[false, false, true], 1);
        assert_eq!(out[1].0, 0.0);
        assert!(out[0].0 > 0.0);
    }

    #[test]
    fn a_list_without_a_like_pushes_nothing() {
        assert!(
            of_list(&[1.0, 2.0], &[false, false], 5)
                .iter()
                .all(|d| *d == (0.0, 0.0))
        );
    }
}
