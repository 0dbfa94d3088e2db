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

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use lists::TrainingLists;

use crate::Error;
use crate::checked::require;
use crate::gbdt::{Binned, Bins, Forest, Gbdt, GbdtParams};
use crate::metrics::{rank_key, ranked_index};

/// What the trees minimise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// LambdaRank: pairs, weighted by the NDCG at stake.
    #[default]
    Lambda,
    /// Softmax cross-entropy over the list.
    Softmax,
}

/// Unchecked settings of a [`Ranker`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankerParams {
    /// Tree growth.
    pub gbdt: GbdtParams,
    /// What the trees minimise.
    pub objective: Objective,
    /// Rankers of different seeds whose scores are averaged. They cost as many times the trees.
    pub bags: usize,
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
            objective: Objective::default(),
            bags: 1,
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
        require(self.bags > 0, "ranker.bags", self.bags, "at least one")?;
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
    /// The model as it is served, its first trees and the others; none where its trees are too large.
    stages: Option<[Forest; 2]>,
}

/// Share of the trees that every candidate passes; only the [`FINALISTS`] go on to the others. Cambazoglu, Zaragoza,
/// Chapelle, Chen, Liao, Zheng, Degenhardt, "Early Exit Optimizations for Additive Machine Learned Ranking Systems"
/// (WSDM 2010, §3.2, by rank). The first trees are the largest steps: who is not among the finalists by them hardly
/// ever reaches the top ten by all.
const FIRST_STAGE: f64 = 0.2;
/// Candidates that pass all trees.
const FINALISTS: usize = 80;

impl Ranker {
    pub(crate) fn new(model: Gbdt, width: usize) -> Self {
        let first = (model.len() as f64 * FIRST_STAGE).ceil() as usize;
        let (first, others) = model.trees.split_at(first.min(model.len()));
        let stages = Forest::new(first, width).zip(Forest::new(others, width));
        Self {
            stages: stages.map(|(first, others)| [first, others]),
            model,
            width,
        }
    }

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
        let judge: Vec<usize> = (count - held..count).collect();
        let their_users: HashSet<u32> = judge.iter().map(|&list| lists.user(list)).collect();
        let train: Vec<usize> = (0..count - held)
            .filter(|&list| !their_users.contains(&lists.user(list)))
            .collect();
        if train.is_empty() {
            return Ok((None, None));
        }
        let boosting = Boosting::new(lists, params);
        let (model, ranker_ndcg) = boosting.run(&train, &judge, params.gbdt.trees, rng);
        let verdict = Verdict {
            blend_ndcg: lists.ndcg(&judge, lists.blend(), 10),
            ranker_ndcg,
            trees: model.len(),
            lists: held,
        };
        let ranker = verdict.ranker_wins().then(|| boosting.on_all(verdict, rng));
        Ok((ranker, Some(verdict)))
    }

    /// Learns from `lists` by an earlier verdict of the same recipe, which is not tried again: a ranker with as many
    /// trees, if it won, and none otherwise.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] for settings out of their domain.
    pub fn fit_as_judged(
        lists: &TrainingLists,
        params: &RankerParams,
        verdict: Verdict,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Self>, Error> {
        params.check()?;
        if !verdict.ranker_wins() || lists.is_empty() {
            return Ok(None);
        }
        Ok(Some(Boosting::new(lists, params).on_all(verdict, rng)))
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

    /// Scores that put many candidates' rows, one after the other, into their order; left in `out`. Those of the
    /// finalists are [`Self::score`]'s; the others follow them in the order of the first stage. Uses up `rows`; `keys`
    /// is a buffer.
    pub(crate) fn rank_rows(&self, rows: &mut [f32], keys: &mut Vec<u64>, out: &mut Vec<f32>) {
        let width = self.width.max(1);
        let count = rows.len() / width;
        out.clear();
        let Some([first, others]) = &self.stages else {
            self.model.predict_rows(rows, width, out);
            return;
        };
        out.resize(count, 0.0);
        first.add_rows(rows, width, out);
        if count <= FINALISTS {
            others.add_rows(rows, width, out);
            return;
        }
        keys.clear();
        keys.extend(
            (0_u32..)
                .zip(out.iter())
                .map(|(row, &score)| rank_key(score, row)),
        );
        keys.select_nth_unstable(FINALISTS - 1);
        let (finalists, rest) = keys.split_at_mut(FINALISTS);
        for key in finalists.iter_mut() {
            *key = u64::from(ranked_index(*key));
        }
        finalists.sort_unstable();
        let mut sums = [0.0; FINALISTS];
        for ((place, &row), sum) in finalists.iter().enumerate().zip(&mut sums) {
            let row = row as usize;
            // Ascending, so that no row is overwritten before it was moved.
            rows.copy_within(row * width..(row + 1) * width, place * width);
            *sum = out[row];
        }
        others.add_rows(&rows[..FINALISTS * width], width, &mut sums);
        let lowest = sums.iter().copied().fold(f32::INFINITY, f32::min);
        let row_of = |key: &u64| ranked_index(*key) as usize;
        let highest = rest
            .iter()
            .map(|key| out[row_of(key)])
            .fold(f32::NEG_INFINITY, f32::max);
        let down = highest - lowest + 1.0;
        for key in rest.iter() {
            out[row_of(key)] -= down;
        }
        for (&row, sum) in finalists.iter().zip(sums) {
            out[row as usize] = sum;
        }
    }
}

/// Lists made ready for trees.
struct Boosting<'a> {
    lists: &'a TrainingLists,
    params: &'a RankerParams,
    bins: Bins,
    data: Binned,
}

impl<'a> Boosting<'a> {
    fn new(lists: &'a TrainingLists, params: &'a RankerParams) -> Self {
        let bins = Bins::fit(lists.rows(), lists.width());
        let data = bins.apply(lists.rows());
        Self {
            lists,
            params,
            bins,
            data,
        }
    }

    /// Boosts as many trees on all lists as the verdict says, once per bag.
    fn on_all(&self, verdict: Verdict, rng: &mut ChaCha8Rng) -> Ranker {
        let all: Vec<usize> = (0..self.lists.len()).collect();
        let mut model = Gbdt::default();
        for _ in 0..self.params.bags {
            let (bag, _) = self.run(&all, &[], verdict.trees, rng);
            model.trees.extend(bag.trees);
        }
        model.scale(1.0 / self.params.bags as f32);
        Ranker::new(model, self.lists.width())
    }

    /// Boosts up to `rounds` trees on the lists `train`; with lists to judge by, keeps the best prefix. Answers the
    /// model and its NDCG@10 on the judged lists.
    fn run(&self, train: &[usize], judge: &[usize], rounds: usize, rng: &mut ChaCha8Rng) -> (Gbdt, f64) {
        let gbdt = &self.params.gbdt;
        let width = self.lists.width();
        let offered = ((width as f64 * gbdt.feature_share).ceil() as usize).clamp(1, width);
        let mut features: Vec<usize> = (0..width).collect();
        let mut model = Gbdt::default();
        let mut scores = vec![0.0_f32; self.data.rows()];
        let (mut best_round, mut best) = (0, 0.0);
        for round in 1..=rounds {
            features.shuffle(rng);
            let mut chosen = features[..offered].to_vec();
            chosen.sort_unstable();
            let sample: Vec<usize> = train
                .iter()
                .copied()
                .filter(|_| gbdt.list_share >= 1.0 || rng.random::<f64>() < gbdt.list_share)
                .collect();
            let pulls = lambda::derivatives(
                self.lists,
                &sample,
                &scores,
                self.params.objective,
                self.params.truncation,
            );
            let grown = model.grow(&self.data, &self.bins, gbdt, &chosen, pulls.rows, &pulls.values);
            grown.add_to(&self.data, &mut scores);
            if judge.is_empty() {
                continue;
            }
            let ndcg = self.lists.ndcg(judge, &scores, 10);
            if ndcg > best {
                (best_round, best) = (round, ndcg);
            } else if round >= best_round + gbdt.patience {
                break;
            }
        }
        if !judge.is_empty() {
            model.trees.truncate(best_round);
        }
        (model, best)
    }
}

#[cfg(test)]
mod tests;
