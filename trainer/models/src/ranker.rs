//! Learning to order candidates: LambdaRank (Burges, "From RankNet to LambdaRank to LambdaMART: An Overview",
//! MSR-TR-2010-82, §3–4) on gradient-boosted trees.
//!
//! A training list is one moment of one person: its candidates with their features as they were *then*, which of them
//! was liked next, and how many unsampled candidates each row stands for. The newest lists are held out: they stop
//! the boosting and decide whether the ranker beats the plain blend at all. People of the held-out lists are purged
//! from the others while that is measured.

mod lambda;
mod lists;
mod stored;

use std::collections::HashSet;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use lists::TrainingLists;

use crate::Error;
use crate::checked::require;
use crate::gbdt::{Bins, Gbdt, GbdtParams};

/// Unchecked settings of a [`Ranker`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankerParams {
    /// Tree growth.
    pub gbdt: GbdtParams,
    /// Share of the lists, the newest, held out.
    pub holdout: f64,
    /// Fewest training lists for which a ranker is tried at all.
    pub min_lists: usize,
    /// Position past which order no longer matters to the loss.
    pub truncation: usize,
}

impl Default for RankerParams {
    fn default() -> Self {
        Self {
            gbdt: GbdtParams::default(),
            holdout: 0.15,
            min_lists: 300,
            truncation: 30,
        }
    }
}

impl RankerParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        self.gbdt.check()?;
        require(
            self.holdout > 0.0 && self.holdout < 1.0,
            "ranker.holdout",
            self.holdout,
            "within (0, 1)",
        )?;
        require(
            self.truncation > 0,
            "ranker.truncation",
            self.truncation,
            "at least one",
        )
    }
}

/// What the held-out lists said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// NDCG@10 of the plain blend on the held-out lists.
    pub blend_ndcg: f64,
    /// NDCG@10 of the ranker at its best round.
    pub ranker_ndcg: f64,
    /// Trees at that round.
    pub trees: usize,
    /// Lists held out.
    pub lists: usize,
}

impl Verdict {
    /// Whether the ranker is better.
    #[must_use]
    pub fn ranker_wins(&self) -> bool {
        self.ranker_ndcg > self.blend_ndcg && self.trees > 0
    }
}

/// A fitted ranker.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranker {
    pub(crate) model: Gbdt,
    /// Numbers per candidate.
    pub(crate) width: usize,
}

impl Ranker {
    /// Learns from `lists` (oldest first). Answers the ranker only if it beat the blend on the held-out newest ones,
    /// and then refitted on all of them with as many trees; and the verdict, if there were lists enough.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] for settings out of their domain.
    pub fn fit(
        lists: &TrainingLists,
        params: &RankerParams,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Option<Self>, Option<Verdict>), Error> {
        params.check()?;
        let count = lists.len();
        let held = ((count as f64 * params.holdout) as usize).max(1);
        if count < params.min_lists.max(2) {
            return Ok((None, None));
        }
        let held_out: Vec<usize> = (count - held..count).collect();
        let their_users: HashSet<u32> = held_out.iter().map(|&list| lists.user(list)).collect();
        let kept: Vec<usize> = (0..count - held)
            .filter(|&list| !their_users.contains(&lists.user(list)))
            .collect();
        let (train, judge) = (lists.select(&kept), lists.select(&held_out));
        if train.is_empty() {
            return Ok((None, None));
        }
        let (_, trees, ranker_ndcg) = boost(&train, Some(&judge), params, params.gbdt.trees, rng);
        let verdict = Verdict {
            blend_ndcg: judge.ndcg(judge.blend(), 10),
            ranker_ndcg,
            trees,
            lists: held,
        };
        if !verdict.ranker_wins() {
            return Ok((None, Some(verdict)));
        }
        let (model, _, _) = boost(lists, None, params, trees, rng);
        let ranker = Self {
            model,
            width: lists.width(),
        };
        Ok((Some(ranker), Some(verdict)))
    }

    /// Numbers per candidate that it reads.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The score of one candidate's row.
    #[must_use]
    pub fn score(&self, row: &[f32]) -> f32 {
        self.model.predict(row)
    }
}

/// Boosts up to `rounds` trees on `train`; with lists to judge by, keeps the best prefix. Returns the model, its
/// number of trees and its NDCG@10 there.
fn boost(
    train: &TrainingLists,
    judge: Option<&TrainingLists>,
    params: &RankerParams,
    rounds: usize,
    rng: &mut ChaCha8Rng,
) -> (Gbdt, usize, f64) {
    let width = train.width();
    let bins = Bins::fit(train.rows(), width);
    let data = bins.apply(train.rows());
    let offered = ((width as f64 * params.gbdt.feature_share).ceil() as usize).clamp(1, width);
    let mut model = Gbdt::default();
    let mut scores = vec![0.0_f32; data.rows()];
    let mut judged = judge.map(|judge| (judge, vec![0.0_f32; judge.rows().len() / width]));
    let (mut best_round, mut best) = (0, 0.0);
    let mut features: Vec<usize> = (0..width).collect();
    for round in 1..=rounds {
        features.shuffle(rng);
        let mut chosen = features[..offered].to_vec();
        chosen.sort_unstable();
        let derivatives = lambda::derivatives(train, &scores, params.truncation);
        let rows = train.sample_rows(params.gbdt.list_share, rng);
        let tree = model.grow(&data, &bins, &derivatives, &params.gbdt, &chosen, rows);
        lists::add_tree(tree, train.rows(), width, &mut scores);
        if let Some((judge, judge_scores)) = &mut judged {
            lists::add_tree(tree, judge.rows(), width, judge_scores);
            let ndcg = judge.ndcg(judge_scores, 10);
            if ndcg > best {
                (best_round, best) = (round, ndcg);
            } else if round >= best_round + params.gbdt.patience {
                break;
            }
        }
    }
    if judge.is_some() {
        model.trees.truncate(best_round);
    } else {
        best_round = model.trees.len();
    }
    (model, best_round, best)
}

#[cfg(test)]
mod tests;
