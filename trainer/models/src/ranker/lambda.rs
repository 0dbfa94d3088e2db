//! The derivatives of the loss.

use rayon::prelude::*;

use super::{Objective, TrainingLists};
use crate::metrics::{rank_key, ranked_index};

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
/// By [`Objective::Lambda`], for each pair of rows of one list of which one has the greater gain:
/// `ρ = 1 / (1 + exp(s⁺ − s⁻))`, weighted by how much NDCG the exchange of the two would cost (Burges 2010, §4) when at
/// least one of them stands before `truncation`, and by the number of candidates that the other row stands for.
///
/// By [`Objective::Softmax`], `−Σ gain_i ln p_i` with `p = softmax(s)`, where a row counts for all the candidates it
/// stands for (Cao, Qin, Liu, Tsai, Li, "Learning to rank: from pairwise approach to listwise approach", ICML 2007, §4).
pub(super) fn derivatives(
    lists: &TrainingLists,
    chosen: &[usize],
    scores: &[f32],
    objective: Objective,
    truncation: usize,
) -> Derivatives {
    let parts: Vec<Derivatives> = chosen
        .par_chunks(BLOCK)
        .map(|block| {
            let mut part = Derivatives::default();
            let mut work = Work::default();
            for &list in block {
                let range = lists.range(list);
                let (scores, gain) = (&scores[range.clone()], &lists.gain()[range.clone()]);
                let weight = &lists.weight()[range.clone()];
                match objective {
                    Objective::Lambda => work.derive(scores, gain, weight, truncation),
                    Objective::Softmax => work.derive_softmax(scores, gain, weight),
                }
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
    /// Leaves LambdaRank's derivatives of one list in `out`.
    fn derive(&mut self, scores: &[f32], gain: &[f32], weight: &[f32], truncation: usize) {
        self.out.clear();
        self.out.resize(scores.len(), (0.0, 0.0));
        let targets = gain.iter().filter(|&&gain| gain > 0.0).count();
        let ideal: f32 = (0..targets.min(truncation))
            .map(|rank| 1.0 / (rank as f32 + 2.0).log2())
            .sum();
        if ideal <= 0.0 {
            return;
        }
        self.order.clear();
        self.order
            .extend((0_u32..).zip(scores).map(|(row, &score)| rank_key(score, row)));
        self.order.sort_unstable();
        // The position of a row counts the candidates that the rows before it stand for.
        self.discount.clear();
        self.discount.resize(scores.len(), 0.0);
        let mut position = 0.0_f32;
        for &key in &self.order {
            let row = ranked_index(key) as usize;
            if position >= truncation as f32 {
                break;
            }
            self.discount[row] = 1.0 / (position + 2.0).log2();
            position += weight[row];
        }
        for up in (0..scores.len()).filter(|&row| gain[row] > 0.0) {
            for down in (0..scores.len()).filter(|&row| gain[row] < gain[up]) {
                let more = gain[up] - gain[down];
                let cost = more * (self.discount[up] - self.discount[down]).abs() / ideal * weight[down];
                if cost == 0.0 {
                    continue;
                }
                let rho = 1.0 / (1.0 + (scores[up] - scores[down]).exp());
                let first = rho * cost;
                let second = rho * (1.0 - rho) * cost;
                self.out[up].0 -= first;
                self.out[up].1 += second;
                self.out[down].0 += first;
                self.out[down].1 += second;
            }
        }
    }

    /// Leaves the derivatives of the softmax cross-entropy of one list in `out`.
    fn derive_softmax(&mut self, scores: &[f32], gain: &[f32], weight: &[f32]) {
        self.out.clear();
        let all: f32 = gain.iter().sum();
        if all <= 0.0 {
            self.out.resize(scores.len(), (0.0, 0.0));
            return;
        }
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mass = |(score, weight): (&f32, &f32)| (score - highest).exp() * weight;
        let sum: f32 = scores.iter().zip(weight).map(mass).sum();
        self.out
            .extend(scores.iter().zip(weight).zip(gain).map(|(row, gain)| {
                let share = mass(row) / sum;
                (all * share - gain, all * share * (1.0 - share))
            }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_list(scores: &[f32], gain: &[f32], truncation: usize) -> Vec<(f32, f32)> {
        let mut work = Work::default();
        work.derive(scores, gain, &vec![1.0; scores.len()], truncation);
        work.out
    }

    #[test]
    fn one_pair_matches_the_formula() {
        // The liked row stands second: exchanging costs 1 - 1/log2(3); ρ = 1/(1 + e^(0 - 1)).
        let out = of_list(&[1.0, 0.0], &[0.0, 1.0], 10);
        let gain = 1.0 - 1.0 / 3.0_f32.log2();
        let rho = 1.0 / (1.0 + (-1.0_f32).exp());
        assert!((out[1].0 + rho * gain).abs() < 1e-6 && (out[0].0 - rho * gain).abs() < 1e-6);
        assert!((out[0].1 - rho * (1.0 - rho) * gain).abs() < 1e-6);
    }

    #[test]
    fn a_pair_wholly_past_the_truncation_costs_nothing() {
        let out = of_list(&[3.0, 2.0, 1.0], &[0.0, 0.0, 1.0], 1);
        assert_eq!(out[1].0, 0.0);
        assert!(out[0].0 > 0.0);
    }

    #[test]
    fn a_list_without_a_like_pushes_nothing() {
        assert!(
            of_list(&[1.0, 2.0], &[0.0, 0.0], 5)
                .iter()
                .all(|d| *d == (0.0, 0.0))
        );
    }

    #[test]
    fn what_was_met_but_not_liked_pushes_in_proportion_and_gives_way_to_a_like() {
        let (half, whole) = (
            of_list(&[1.0, 0.0], &[0.0, 0.5], 10),
            of_list(&[1.0, 0.0], &[0.0, 1.0], 10),
        );
        assert!((half[1].0 - whole[1].0 / 2.0).abs() < 1e-6);
        assert!(of_list(&[1.0, 0.0], &[0.5, 1.0], 10)[1].0 < 0.0);
    }

    #[test]
    fn softmax_matches_the_formula_and_a_row_counts_for_all_it_stands_for() {
        let mut work = Work::default();
        // Equal scores, the second row stands for three: p = 1/4 and 3/4.
        work.derive_softmax(&[2.0, 2.0], &[1.0, 0.0], &[1.0, 3.0]);
        let near = |pair: (f32, f32), first: f32, second: f32| {
            (pair.0 - first).abs() < 1e-6 && (pair.1 - second).abs() < 1e-6
        };
        assert!(near(work.out[0], 0.25 - 1.0, 0.1875) && near(work.out[1], 0.75, 0.1875));
        work.derive_softmax(&[2.0, 1.0], &[0.0, 0.0], &[1.0, 1.0]);
        assert_eq!(work.out, [(0.0, 0.0); 2]);
    }
}
