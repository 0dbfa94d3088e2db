//! Retrieval by vectors: the items whose vectors have the largest inner product, or cosine, with a query vector.
//!
//! [`VectorIndex`] is an inverted file (Jégou, Douze, Schmid, "Product quantization for nearest neighbor search", IEEE
//! PAMI 33(1), 2011, §4, with the vectors themselves in the lists). k-means puts each vector into one of about `4·√n`
//! lists; a search scans the lists that promise most, one after the other in memory. Of a list with centroid `c`, whose
//! `n` members deviate from it by `σ` per dimension, a query `q` may expect at best `q·c + |q| σ √(2 ln n)`, the expected
//! maximum of `n` normal deviates: so long vectors, which win by inner product from any list, are not overlooked.
//!
//! How many lists are scanned is not guessed. Building searches for a sample of queries exactly and takes the least
//! number of lists at which the wanted recall is reached. Where that leaves too little to gain, or where there are
//! fewer vectors than [`VectorIndexParams::exact_below`] (`cargo bench --bench ann` measures the border), every vector
//! is scored. The caller need not know which.
//!
//! The same vectors, settings and seed give the same index, bit for bit, whatever the number of threads; sums may differ
//! in their last bit between machines of another register width.

mod kmeans;
mod params;
mod stored;

use ndarray::{ArrayView1, ArrayView2};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::kernels::{dot, score_rows};
use crate::padded::Padded;
use crate::{Checked, Error};

pub use params::VectorIndexParams;

/// By what vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// `q·x`: what a factor model scores items by.
    InnerProduct,
    /// `q·x / (|q| |x|)`: how alike two items are, whatever their popularity. A zero vector is like nothing.
    Cosine,
}

/// One vector found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Row of the matrix that was indexed.
    pub item: u32,
    /// Inner product or cosine with the query.
    pub score: f32,
}

/// Buffers of one searching thread. Reuse them: searching then does not allocate.
#[derive(Debug, Clone, Default)]
pub struct SearchScratch {
    query: Vec<f32>,
    /// What each list promises, best first as far as needed.
    lists: Vec<Hit>,
    scores: Vec<f32>,
    found: Vec<Hit>,
}

/// The lists over the vectors.
#[derive(Debug, Clone, PartialEq)]
struct Lists {
    centroids: Padded,
    /// Expected best deviation of a member from the centroid, per unit of query.
    reach: Vec<f32>,
    /// End of each list, in rows.
    ends: Vec<u32>,
    /// Lists scanned at least.
    probes: usize,
    /// Recall measured on the sample at that number.
    recall: f64,
}

/// Vectors that can be searched. See the [module](self).
#[derive(Debug, Clone, PartialEq)]
pub struct VectorIndex {
    metric: Metric,
    /// List after list, then what was [appended](Self::append).
    rows: Padded,
    /// Item of each row.
    items: Vec<u32>,
    /// Row of each item.
    places: Vec<u32>,
    lists: Option<Lists>,
}

impl VectorIndex {
    /// Indexes the rows of `vectors` `[items, dimensions]`. `queries` `[any, dimensions]` are examples of what will be
    /// asked (users' factors, for instance); without any the vectors themselves are asked for.
    ///
    /// # Errors
    /// [`Error::Data`] without vectors or dimensions, with numbers that are not finite, or with queries of another
    /// length.
    pub fn build(
        vectors: ArrayView2<'_, f32>,
        queries: Option<ArrayView2<'_, f32>>,
        metric: Metric,
        params: &Checked<VectorIndexParams>,
        seed: u64,
    ) -> Result<Self, Error> {
        let (count, dimensions) = vectors.dim();
        if count == 0 || dimensions == 0 {
            return Err(Error::Data("there is no vector to index".into()));
        }
        let rows = normalised(vectors, metric)?;
        let mut index = Self {
            metric,
            rows,
            items: (0..count as u32).collect(),
            places: (0..count as u32).collect(),
            lists: None,
        };
        let queries = queries.filter(|queries| queries.nrows() > 0);
        if let Some(queries) = queries
            && queries.ncols() != dimensions
        {
            return Err(Error::Data(format!(
                "queries have {} dimensions, vectors {dimensions}",
                queries.ncols()
            )));
        }
        if count < params.exact_below.max(2) {
            return Ok(index);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let asked = queries.unwrap_or(vectors);
        let sample = index::sample(&mut rng, asked.nrows(), params.queries.min(asked.nrows())).into_vec();
        let sample = normalised(asked.select(ndarray::Axis(0), &sample).view(), metric)?;
        index.put_into_lists(params, &mut rng);
        index.calibrate(&sample, params);
        Ok(index)
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none; never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Length of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.rows.factors()
    }

    /// By what vectors are compared.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Whether every vector is scored.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.lists.is_none()
    }

    /// Recall on the sample of queries that the index was built with; 1 where the search is exact.
    #[must_use]
    pub fn sample_recall(&self) -> f64 {
        self.lists.as_ref().map_or(1.0, |lists| lists.recall)
    }

    /// Vectors appended since the index was built. They cost a scan each; build anew before they are many.
    #[must_use]
    pub fn appended(&self) -> usize {
        self.lists.as_ref().map_or(0, |_| self.len() - self.listed())
    }

    /// Adds vectors `[more, dimensions]` under the next item numbers. They are found exactly.
    ///
    /// # Errors
    /// [`Error::Data`] for vectors of another length or with numbers that are not finite; nothing is added then.
    pub fn append(&mut self, vectors: ArrayView2<'_, f32>) -> Result<(), Error> {
        if vectors.ncols() != self.dimensions() {
            return Err(Error::Data(format!(
                "appended vectors have {} dimensions, the index {}",
                vectors.ncols(),
                self.dimensions()
            )));
        }
        let more = normalised(vectors, self.metric)?;
        let items = self.len() as u32..(self.len() + more.rows()) as u32;
        self.items.extend(items.clone());
        self.places.extend(items);
        self.rows.append(more);
        Ok(())
    }

    /// The `k` items that score highest with `query` (of [`Self::dimensions`]) among those that `admit` lets pass, best
    /// first, of equals the smaller item first; fewer only if fewer are admitted. Nothing is found by a query of another
    /// length.
    pub fn search<'s>(
        &self,
        query: &[f32],
        k: usize,
        admit: impl Fn(u32) -> bool,
        scratch: &'s mut SearchScratch,
    ) -> &'s [Hit] {
        self.search_lists(query, k, admit, self.lists.as_ref(), scratch)
    }

    /// As [`Self::search`], by scoring every vector.
    pub fn search_exactly<'s>(
        &self,
        query: &[f32],
        k: usize,
        admit: impl Fn(u32) -> bool,
        scratch: &'s mut SearchScratch,
    ) -> &'s [Hit] {
        self.search_lists(query, k, admit, None, scratch)
    }

    /// The `k` other items closest to `item`; none for an unknown item.
    pub fn similar<'s>(&self, item: u32, k: usize, scratch: &'s mut SearchScratch) -> &'s [Hit] {
        let Some(&place) = self.places.get(item as usize) else {
            scratch.found.clear();
            return &scratch.found;
        };
        let query = &self.rows.row(place)[..self.dimensions()];
        self.search(query, k, |other| other != item, scratch)
    }

    fn search_lists<'s>(
        &self,
        query: &[f32],
        k: usize,
        admit: impl Fn(u32) -> bool,
        lists: Option<&Lists>,
        scratch: &'s mut SearchScratch,
    ) -> &'s [Hit] {
        let SearchScratch {
            query: padded,
            lists: order,
            scores,
            found,
        } = scratch;
        found.clear();
        if k == 0 || query.len() != self.dimensions() {
            return found;
        }
        padded.clear();
        padded.extend_from_slice(query);
        padded.resize(self.rows.stride(), 0.0);
        if self.metric == Metric::Cosine {
            normalise(padded);
        }
        let mut best = Best {
            k,
            floor: f32::NEG_INFINITY,
            found,
        };
        let mut scan = |rows: std::ops::Range<usize>, best: &mut Best<'_>| {
            // A piece at a time, so that its scores are still at hand when they are read.
            for begin in rows.clone().step_by(SCANNED) {
                let rows = begin..(begin + SCANNED).min(rows.end);
                scores.clear();
                scores.resize(rows.len(), 0.0);
                score_rows(self.rows.range(rows.clone()), padded, scores);
                for (&item, &score) in self.items[rows].iter().zip(&*scores) {
                    if score >= best.floor && admit(item) {
                        best.offer(Hit { item, score });
                    }
                }
            }
        };
        match lists {
            None => scan(0..self.len(), &mut best),
            Some(lists) => {
                scan(self.listed()..self.len(), &mut best);
                lists.promise(padded, order);
                let mut sorted = 0;
                let mut probes = lists.probes.min(order.len());
                while sorted < order.len() {
                    let rest = &mut order[sorted..];
                    if probes < rest.len() {
                        rest.select_nth_unstable_by(probes - 1, best_first);
                    }
                    for list in &rest[..probes] {
                        scan(lists.members(list.item as usize), &mut best);
                    }
                    sorted += probes;
                    best.shrink();
                    if best.found.len() >= k {
                        break;
                    }
                    // Too few were admitted: look further.
                    probes = probes.min(order.len() - sorted);
                }
            }
        }
        best.shrink();
        found.sort_unstable_by(best_first);
        found
    }

    /// Rows in lists.
    fn listed(&self) -> usize {
        self.lists
            .as_ref()
            .and_then(|lists| lists.ends.last())
            .map_or(0, |&end| end as usize)
    }

    /// Orders the rows list by list. Nothing is found through the lists before [`Self::calibrate`].
    fn put_into_lists(&mut self, params: &VectorIndexParams, rng: &mut ChaCha8Rng) {
        let count = self.len();
        let lists = ((count as f64).sqrt() * params.lists_per_root) as usize;
        let lists = lists.clamp(1, count);
        let sample = index::sample(rng, count, (lists * params.sample_per_list).clamp(lists, count));
        let centroids = kmeans::fit(&self.rows, &sample.into_vec(), lists, params.iterations, rng);
        let assigned = kmeans::assign(&self.rows, &centroids);
        let (members, ends) = kmeans::grouped(&assigned, lists);
        let mut rows = Padded::zeros(count, self.dimensions());
        for (row, &item) in rows.rows_mut().zip(&members) {
            row.copy_from_slice(self.rows.row(item));
        }
        for (place, &item) in (0_u32..).zip(&members) {
            self.places[item as usize] = place;
        }
        self.rows = rows;
        self.items = members;
        let lists = Lists {
            reach: Vec::new(),
            centroids,
            ends,
            probes: 0,
            recall: 0.0,
        };
        let reach = (0..lists.ends.len())
            .into_par_iter()
            .map(|list| reach(&self.rows, lists.members(list), lists.centroids.row(list as u32)))
            .collect();
        self.lists = Some(Lists { reach, ..lists });
    }

    /// Finds the least number of lists to scan that reaches the wanted recall, and lets go of the lists if that is
    /// hardly less work than to scan everything.
    fn calibrate(&mut self, sample: &Padded, params: &VectorIndexParams) {
        let Some(mut lists) = self.lists.take() else {
            return;
        };
        let k = params.recall_at.min(self.len());
        let needed: Vec<Vec<u32>> = (0..sample.rows() as u32)
            .into_par_iter()
            .map_init(
                || (SearchScratch::default(), Vec::new()),
                |(scratch, order), query| {
                    let query = sample.row(query);
                    lists.promise(query, order);
                    order.sort_unstable_by(best_first);
                    let mut ranks = vec![0_u32; order.len()];
                    for (rank, list) in (0_u32..).zip(&*order) {
                        ranks[list.item as usize] = rank;
                    }
                    self.search_exactly(&query[..self.dimensions()], k, |_| true, scratch)
                        .iter()
                        .map(|hit| ranks[lists.holding(self.places[hit.item as usize])])
                        .collect()
                },
            )
            .collect();
        let mut found = vec![0_usize; lists.ends.len()];
        let mut wanted = 0_usize;
        for rank in needed.into_iter().flatten() {
            found[rank as usize] += 1;
            wanted += 1;
        }
        let mut sum = 0;
        for (probes, found) in (1..).zip(found) {
            sum += found;
            if sum as f64 >= params.recall * wanted as f64 {
                (lists.probes, lists.recall) = (probes, sum as f64 / wanted as f64);
                break;
            }
        }
        let scanned = lists.probes as f64 / lists.ends.len() as f64 * self.len() as f64;
        if scanned + (lists.ends.len() as f64) < self.len() as f64 / WORTH {
            self.lists = Some(lists);
        }
    }
}

/// Rows scored at a time.
const SCANNED: usize = 4096;
/// Factor by which lists must save work to be worth their detours.
const WORTH: f64 = 2.0;

impl Lists {
    fn members(&self, list: usize) -> std::ops::Range<usize> {
        let begin = if list == 0 {
            0
        } else {
            self.ends[list - 1] as usize
        };
        begin..self.ends[list] as usize
    }

    /// The list that holds a row.
    fn holding(&self, row: u32) -> usize {
        self.ends.partition_point(|&end| end <= row)
    }

    /// Leaves in `order` what each list promises to a padded query.
    fn promise(&self, query: &[f32], order: &mut Vec<Hit>) {
        let length = dot(query, query).sqrt();
        order.clear();
        order.extend((0..self.ends.len() as u32).map(|item| Hit { item, score: 0.0 }));
        self.centroids.score_each(query, |list, score| {
            order[list].score = score + length * self.reach[list]
        });
    }
}

/// `σ √(2 ln n)` of a list.
fn reach(rows: &Padded, members: std::ops::Range<usize>, centroid: &[f32]) -> f32 {
    let count = members.len();
    if count < 2 {
        return 0.0;
    }
    let sum: f64 = members
        .flat_map(|row| rows.row(row as u32).iter().zip(centroid))
        .map(|(a, b)| f64::from((a - b) * (a - b)))
        .sum();
    let variance = sum / (count * rows.factors()) as f64;
    (variance * 2.0 * (count as f64).ln()).sqrt() as f32
}

fn best_first(a: &Hit, b: &Hit) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.item.cmp(&b.item))
}

/// The best so far, and a few more.
struct Best<'a> {
    k: usize,
    /// Score of the worst that is among the best `k` for sure.
    floor: f32,
    found: &'a mut Vec<Hit>,
}

impl Best<'_> {
    fn offer(&mut self, hit: Hit) {
        self.found.push(hit);
        if self.found.len() >= 2 * self.k + 64 {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.found.len() > self.k {
            self.found.select_nth_unstable_by(self.k - 1, best_first);
            self.found.truncate(self.k);
        }
        if let Some(worst) = self.found.get(self.k - 1) {
            self.floor = worst.score;
        }
    }
}

/// A padded copy, of unit rows where the metric says so.
fn normalised(vectors: ArrayView2<'_, f32>, metric: Metric) -> Result<Padded, Error> {
    let is_finite = |row: ArrayView1<'_, f32>| row.iter().all(|value| value.is_finite());
    if let Some(bad) = vectors.rows().into_iter().position(|row| !is_finite(row)) {
        return Err(Error::Data(format!(
            "vector {bad} has a number that is not finite"
        )));
    }
    let mut rows = Padded::from_array(&vectors);
    if metric == Metric::Cosine {
        rows.rows_mut().for_each(normalise);
    }
    Ok(rows)
}

fn normalise(row: &mut [f32]) {
    let length = dot(row, row).sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests;
