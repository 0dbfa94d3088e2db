//! Growing one tree, best leaf first.

use rayon::prelude::*;

use super::bins::MAX_BINS;
use super::{Binned, Bins, GbdtParams, LEAF, Node, Tree};

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    first: f64,
    second: f64,
    rows: u32,
}

impl Sum {
    fn minus(self, other: Self) -> Self {
        Self {
            first: self.first - other.first,
            second: self.second - other.second,
            rows: self.rows - other.rows,
        }
    }

    fn add(&mut self, other: Self) {
        self.first += other.first;
        self.second += other.second;
        self.rows += other.rows;
    }

    /// Loss saved by the best constant on these rows, twice (Ke et al. 2017; Chen, Guestrin 2016, equation 7).
    fn score(self, l2: f64) -> f64 {
        self.first * self.first / (self.second + l2).max(1e-12)
    }
}

#[derive(Debug, Clone, Copy)]
struct Split {
    gain: f64,
    feature: usize,
    bin: usize,
}

type Histogram = Vec<[Sum; MAX_BINS + 1]>;

struct Leaf {
    node: usize,
    rows: Vec<u32>,
    total: Sum,
    histogram: Histogram,
    split: Option<Split>,
}

/// Grows a tree on `rows` (ascending), offered `features` (ascending).
pub(super) fn grow(
    data: &Binned,
    bins: &Bins,
    derivatives: &[(f32, f32)],
    params: &GbdtParams,
    features: &[usize],
    rows: Vec<u32>,
) -> Tree {
    let histogram = build(data, derivatives, &rows, features);
    let mut total = Sum::default();
    if let Some(first) = histogram.first() {
        for sum in first {
            total.add(*sum);
        }
    }
    let mut nodes = vec![leaf_node(total, params)];
    let split = best_split(&histogram, bins, total, params, features);
    let mut leaves = vec![Leaf {
        node: 0,
        rows,
        total,
        histogram,
        split,
    }];
    while leaves.len() < params.leaves {
        // Of equal gains the older leaf is split, so that the order is fixed.
        let best = leaves
            .iter()
            .enumerate()
            .filter_map(|(place, leaf)| leaf.split.map(|split| (place, split)))
            .max_by(|a, b| a.1.gain.total_cmp(&b.1.gain).then(b.0.cmp(&a.0)));
        let Some((place, split)) = best else {
            break;
        };
        let leaf = leaves.swap_remove(place);
        let column = &data.columns[split.feature];
        let (left_rows, right_rows): (Vec<u32>, Vec<u32>) = leaf
            .rows
            .iter()
            .partition(|&&row| column[row as usize] as usize <= split.bin);
        let left_node = nodes.len();
        nodes[leaf.node] = Node {
            feature: split.feature as u32,
            threshold: bins.cut(split.feature, split.bin),
            left: left_node as u32,
        };
        // Only the smaller child is counted; the larger one is the difference.
        let left_is_small = left_rows.len() <= right_rows.len();
        let small_rows = if left_is_small { &left_rows } else { &right_rows };
        let small = build(data, derivatives, small_rows, features);
        let mut large = leaf.histogram;
        for (large, small) in large.iter_mut().zip(&small) {
            for (large, small) in large.iter_mut().zip(small) {
                *large = large.minus(*small);
            }
        }
        let mut small_total = Sum::default();
        if let Some(first) = small.first() {
            for sum in first {
                small_total.add(*sum);
            }
        }
        let large_total = leaf.total.minus(small_total);
        let ((left, left_total), (right, right_total)) = if left_is_small {
            ((small, small_total), (large, large_total))
        } else {
            ((large, large_total), (small, small_total))
        };
        for (offset, rows, total, histogram) in [
            (0, left_rows, left_total, left),
            (1, right_rows, right_total, right),
        ] {
            nodes.push(leaf_node(total, params));
            let split = best_split(&histogram, bins, total, params, features);
            leaves.push(Leaf {
                node: left_node + offset,
                rows,
                total,
                histogram,
                split,
            });
        }
    }
    Tree { nodes }
}

fn leaf_node(total: Sum, params: &GbdtParams) -> Node {
    let value = -total.first / (total.second + params.l2).max(1e-12) * f64::from(params.learning_rate);
    Node {
        feature: LEAF,
        threshold: value as f32,
        left: 0,
    }
}

fn build(data: &Binned, derivatives: &[(f32, f32)], rows: &[u32], features: &[usize]) -> Histogram {
    // Gathered once, read by every feature in order.
    let gathered: Vec<(f32, f32)> = rows.iter().map(|&row| derivatives[row as usize]).collect();
    features
        .par_iter()
        .map(|&feature| {
            let column = data.columns[feature].as_slice();
            let mut histogram = [Sum::default(); MAX_BINS + 1];
            for (&row, &(first, second)) in rows.iter().zip(&gathered) {
                let sum = &mut histogram[column[row as usize] as usize];
                sum.first += f64::from(first);
                sum.second += f64::from(second);
                sum.rows = sum.rows.wrapping_add(1);
            }
            histogram
        })
        .collect()
}

fn best_split(
    histogram: &Histogram,
    bins: &Bins,
    total: Sum,
    params: &GbdtParams,
    features: &[usize],
) -> Option<Split> {
    let whole = total.score(params.l2);
    let fits =
        |sum: &Sum| sum.rows as usize >= params.min_leaf_rows.max(1) && sum.second >= params.min_leaf_hessian;
    let mut best: Option<Split> = None;
    for (sums, &feature) in histogram.iter().zip(features) {
        let mut left = Sum::default();
        for (bin, sum) in sums.iter().enumerate().take(bins.count(feature) - 1) {
            left.add(*sum);
            let right = total.minus(left);
            if !fits(&left) || !fits(&right) {
                continue;
            }
            let gain = left.score(params.l2) + right.score(params.l2) - whole;
            if gain > 1e-9 && best.is_none_or(|best| gain > best.gain) {
                best = Some(Split { gain, feature, bin });
            }
        }
    }
    best
}
