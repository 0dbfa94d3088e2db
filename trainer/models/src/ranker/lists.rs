//! Training lists, one after the other in flat buffers.

use rayon::prelude::*;

use crate::metrics::single_ndcg;

/// Lists of candidates with their features, oldest list first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingLists {
    width: usize,
    /// Row-major features.
    rows: Vec<f32>,
    /// What finding a row is worth: 1 for a like, less for what was met next but not liked, 0 for the others.
    gain: Vec<f32>,
    /// Candidates that a row stands for: 1, or more for a sampled one.
    weight: Vec<f32>,
    blend: Vec<f32>,
    /// End of each list, in rows.
    ends: Vec<usize>,
    users: Vec<u32>,
    /// Where in its stream each list was met; ascending.
    positions: Vec<usize>,
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

    /// Adds a candidate to the list under way: features, blend score, what finding it is worth (1 for a like), how many
    /// it stands for.
    pub fn push_row(&mut self, row: &[f32], blend: f32, gain: f32, weight: f32) {
        self.rows
            .extend(row.iter().copied().chain(std::iter::repeat(0.0)).take(self.width));
        self.gain.push(gain);
        self.weight.push(weight);
        self.blend.push(blend);
    }

    /// Ends the list under way, of `user`, met at `position` of its stream, which missed that many liked items.
    pub fn end_list(&mut self, user: u32, position: usize, missed: u32) {
        self.ends.push(self.gain.len());
        self.users.push(user);
        self.positions.push(position);
        self.missed.push(missed);
    }

    /// Adds the lists of `parts`, in the order of their positions and then users, whichever part holds them.
    pub fn append(&mut self, parts: &[Self]) {
        let mut order: Vec<(usize, u32, usize, usize)> = parts
            .iter()
            .enumerate()
            .flat_map(|(part, lists)| {
                (0..lists.len()).map(move |list| (lists.positions[list], lists.users[list], part, list))
            })
            .collect();
        order.sort_unstable();
        self.rows.reserve(parts.iter().map(|part| part.rows.len()).sum());
        for (position, user, part, list) in order {
            let lists = &parts[part];
            let range = lists.range(list);
            self.rows
                .extend_from_slice(&lists.rows[range.start * self.width..range.end * self.width]);
            self.gain.extend_from_slice(&lists.gain[range.clone()]);
            self.weight.extend_from_slice(&lists.weight[range.clone()]);
            self.blend.extend_from_slice(&lists.blend[range]);
            self.end_list(user, position, lists.missed[list]);
        }
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

    pub(super) fn gain(&self) -> &[f32] {
        &self.gain
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

    /// Lets go of the lists met before `position`.
    pub fn forget_before(&mut self, position: usize) {
        let lists = self.positions.partition_point(|&met| met < position);
        if lists == 0 {
            return;
        }
        let rows = self.ends[lists - 1];
        self.rows.drain(..rows * self.width);
        self.gain.drain(..rows);
        self.weight.drain(..rows);
        self.blend.drain(..rows);
        self.ends.drain(..lists);
        self.users.drain(..lists);
        self.positions.drain(..lists);
        self.missed.drain(..lists);
        for end in &mut self.ends {
            *end -= rows;
        }
    }

    /// Mean NDCG@k over all likes of the `chosen` lists, each as a single target, under `scores` by row; sampled rows
    /// count for what they stand for, likes that were no candidates count as misses.
    pub(super) fn ndcg(&self, chosen: &[usize], scores: &[f32], k: usize) -> f64 {
        let (sum, count) = chosen
            .par_iter()
            .map(|&list| {
                let range = self.range(list);
                let (mut sum, mut count) = (0.0, f64::from(self.missed[list]));
                for target in range.clone().filter(|&row| self.gain[row] >= 1.0) {
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
