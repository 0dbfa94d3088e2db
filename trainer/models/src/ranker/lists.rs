//! Training lists, one after the other in flat buffers.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::gbdt::Tree;
use crate::metrics::single_ndcg;

/// Lists of candidates with their features, oldest list first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingLists {
    width: usize,
    /// Row-major features.
    rows: Vec<f32>,
    liked: Vec<bool>,
    /// Candidates that a row stands for: 1, or more for a sampled one.
    weight: Vec<f32>,
    blend: Vec<f32>,
    /// End of each list, in rows.
    ends: Vec<usize>,
    users: Vec<u32>,
    /// Likes of the moment that were no candidates: they count as misses when lists are judged.
    missed: Vec<u32>,
}

impl TrainingLists {
    /// No list yet, of rows `width` numbers wide.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self {
            width,
            ..Self::default()
        }
    }

    /// Adds a candidate to the list under way: features, blend score, whether it was liked, how many it stands for.
    pub fn push_row(&mut self, row: &[f32], blend: f32, liked: bool, weight: f32) {
        self.rows
            .extend(row.iter().copied().chain(std::iter::repeat(0.0)).take(self.width));
        self.liked.push(liked);
        self.weight.push(weight);
        self.blend.push(blend);
    }

    /// Ends the list under way, of `user`, which missed that many liked items.
    pub fn end_list(&mut self, user: u32, missed: u32) {
        self.ends.push(self.liked.len());
        self.users.push(user);
        self.missed.push(missed);
    }

    /// Number of lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn rows(&self) -> &[f32] {
        &self.rows
    }

    pub(super) fn liked(&self) -> &[bool] {
        &self.liked
    }

    pub(super) fn weight(&self) -> &[f32] {
        &self.weight
    }

    pub(super) fn blend(&self) -> &[f32] {
        &self.blend
    }

    pub(super) fn user(&self, list: usize) -> u32 {
        self.users[list]
    }

    pub(super) fn range(&self, list: usize) -> std::ops::Range<usize> {
        let begin = if list == 0 { 0 } else { self.ends[list - 1] };
        begin..self.ends[list]
    }

    /// The rows of a random share of the lists, ascending.
    pub(super) fn sample_rows(&self, share: f64, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let mut rows = Vec::with_capacity((self.liked.len() as f64 * share) as usize);
        for list in 0..self.len() {
            if share >= 1.0 || rng.random::<f64>() < share {
                rows.extend(self.range(list).map(|row| row as u32));
            }
        }
        rows
    }

    /// A copy of some of the lists.
    pub(super) fn select(&self, chosen: &[usize]) -> Self {
        let mut part = Self::new(self.width);
        for &list in chosen {
            let range = self.range(list);
            part.rows
                .extend_from_slice(&self.rows[range.start * self.width..range.end * self.width]);
            part.liked.extend_from_slice(&self.liked[range.clone()]);
            part.weight.extend_from_slice(&self.weight[range.clone()]);
            part.blend.extend_from_slice(&self.blend[range]);
            part.end_list(self.users[list], self.missed[list]);
        }
        part
    }

    /// Mean NDCG@k over all likes, each as a single target, under `scores` by row; sampled rows count for what they
    /// stand for, likes that were no candidates count as misses.
    pub(super) fn ndcg(&self, scores: &[f32], k: usize) -> f64 {
        let (sum, count) = (0..self.len())
            .into_par_iter()
            .map(|list| {
                let range = self.range(list);
                let (mut sum, mut count) = (0.0, f64::from(self.missed[list]));
                for target in range.clone().filter(|&row| self.liked[row]) {
                    let mut rank = 0.0;
                    for row in range.clone().filter(|&row| row != target) {
                        if scores[row] > scores[target] {
                            rank += f64::from(self.weight[row]);
                        } else if scores[row] == scores[target] {
                            rank += f64::from(self.weight[row]) / 2.0;
                        }
                    }
                    sum += single_ndcg(rank, k);
                    count += 1.0;
                }
                (sum, count)
            })
            .collect::<Vec<_>>()
            .into_iter()
            .fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        if count > 0.0 { sum / count } else { 0.0 }
    }
}

/// Adds a tree's prediction to every row's score.
pub(super) fn add_tree(tree: &Tree, rows: &[f32], width: usize, scores: &mut [f32]) {
    scores
        .par_chunks_mut(4096)
        .zip(rows.par_chunks(4096 * width))
        .for_each(|(scores, rows)| {
            for (score, row) in scores.iter_mut().zip(rows.chunks_exact(width)) {
                *score += tree.predict(row);
            }
        });
}
