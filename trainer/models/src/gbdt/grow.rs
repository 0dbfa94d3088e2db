//! Growing one tree, best leaf first.

use rayon::prelude::*;

use super::bins::MAX_BINS;
use super::{Binned, Bins, GbdtParams, LEAF, Node, Tree};

/// First and second derivatives in fixed point, both in one word: the first in the upper half, signed, the second in
/// the lower half. Sums of them are exact, so their order is free, and a bin of a histogram is one addition.
type Packed = i64;

/// Places of the upper half.
const SHIFT: u32 = 32;
/// Largest sum of either half, with room for rounding.
const ROOM: f64 = (1_u32 << 30) as f64;

/// Histograms that are counted side by side and then added up: neighbouring rows often fall into one bin, and an addition
/// that waits for the last one to be stored costs several.
const LANES: usize = 4;

/// What turns packed sums back.
#[derive(Debug, Clone, Copy)]
struct Scale {
    first: f64,
    second: f64,
}

impl Scale {
    fn of(derivatives: &[(f32, f32)]) -> Self {
        let (first, second) = derivatives.iter().fold((0.0, 0.0), |(first, second), &(a, b)| {
            (first + f64::from(a.abs()), second + f64::from(b.max(0.0)))
        });
        let scale = |sum: f64| if sum > 0.0 { ROOM / sum } else { 1.0 };
        Self {
            first: scale(first),
            second: scale(second),
        }
    }

    fn pack(self, (first, second): (f32, f32)) -> Packed {
        let first = (f64::from(first) * self.first).round() as i64;
        let second = (f64::from(second.max(0.0)) * self.second).round() as i64;
        (first << SHIFT).wrapping_add(second)
    }

    fn unpack(self, sum: Packed) -> Sum {
        Sum {
            first: (sum >> SHIFT) as f64 / self.first,
            second: f64::from(sum as u32) / self.second,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sum {
    first: f64,
    second: f64,
}

impl Sum {
    /// Loss saved by the best constant on these rows, twice (Chen, Guestrin, "XGBoost", KDD 2016, equation 7).
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

type Histogram = Vec<[Packed; MAX_BINS + 1]>;

struct Leaf {
    node: usize,
    rows: Vec<u32>,
    /// Derivatives of `rows`.
    packed: Vec<Packed>,
    total: Packed,
    histogram: Histogram,
    split: Option<Split>,
}

/// A new tree, and its splits by bin: rows that are binned already need no comparison of numbers.
pub(crate) struct Grown {
    pub(crate) tree: Tree,
    bins: Vec<u8>,
}

impl Grown {
    /// Adds the tree's value to the score of every row of `data`.
    pub(crate) fn add_to(&self, data: &Binned, scores: &mut [f32]) {
        const BLOCK: usize = 4096;
        scores
            .par_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(block, scores)| {
                for (row, score) in (block * BLOCK..).zip(scores) {
                    *score += self.value(data, row);
                }
            });
    }

    fn value(&self, data: &Binned, row: usize) -> f32 {
        let mut place = 0;
        loop {
            let node = self.tree.nodes[place];
            if node.feature == LEAF {
                return node.threshold;
            }
            let right = data.columns[node.feature as usize][row] > self.bins[place];
            place = node.left as usize + usize::from(right);
        }
    }
}

struct Grower<'a> {
    data: &'a Binned,
    bins: &'a Bins,
    params: &'a GbdtParams,
    features: &'a [usize],
    scale: Scale,
}

/// Grows a tree on `rows` (ascending) with their `derivatives`, offered `features` (ascending).
pub(super) fn grow(
    data: &Binned,
    bins: &Bins,
    params: &GbdtParams,
    features: &[usize],
    rows: Vec<u32>,
    derivatives: &[(f32, f32)],
) -> Grown {
    let grower = Grower {
        data,
        bins,
        params,
        features,
        scale: Scale::of(derivatives),
    };
    let packed = derivatives.iter().map(|&pair| grower.scale.pack(pair)).collect();
    grower.grow(rows, packed)
}

impl Grower<'_> {
    fn grow(&self, rows: Vec<u32>, packed: Vec<Packed>) -> Grown {
        let histogram = self.count(&rows, &packed);
        let root = self.leaf(0, rows, packed, histogram);
        let mut nodes = vec![self.leaf_node(root.total)];
        let mut split_bins = vec![0_u8];
        let mut leaves = vec![root];
        while leaves.len() < self.params.leaves {
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
            let left_node = nodes.len();
            nodes[leaf.node] = Node {
                feature: split.feature as u32,
                threshold: self.bins.cut(split.feature, split.bin),
                left: left_node as u32,
            };
            split_bins[leaf.node] = split.bin as u8;
            for half in self.divide(leaf, split, left_node) {
                nodes.push(self.leaf_node(half.total));
                split_bins.push(0);
                leaves.push(half);
            }
        }
        Grown {
            tree: Tree { nodes },
            bins: split_bins,
        }
    }

    /// The left and the right part of a leaf.
    fn divide(&self, leaf: Leaf, split: Split, left_node: usize) -> [Leaf; 2] {
        let column = self.data.columns[split.feature].as_slice();
        let mut parts = [
            (
                Vec::with_capacity(leaf.rows.len()),
                Vec::with_capacity(leaf.rows.len()),
            ),
            (Vec::new(), Vec::new()),
        ];
        for (&row, &packed) in leaf.rows.iter().zip(&leaf.packed) {
            let right = column[row as usize] as usize > split.bin;
            let (rows, derivatives) = &mut parts[usize::from(right)];
            rows.push(row);
            derivatives.push(packed);
        }
        let [left, right] = parts;
        // Only the smaller child is counted; the larger one is the difference.
        let left_is_small = left.0.len() <= right.0.len();
        let (rows, packed) = if left_is_small { &left } else { &right };
        let small = self.count(rows, packed);
        let mut large = leaf.histogram;
        for (large, small) in large.iter_mut().flatten().zip(small.iter().flatten()) {
            *large = large.wrapping_sub(*small);
        }
        let (left_counts, right_counts) = if left_is_small {
            (small, large)
        } else {
            (large, small)
        };
        [
            self.leaf(left_node, left.0, left.1, left_counts),
            self.leaf(left_node + 1, right.0, right.1, right_counts),
        ]
    }

    fn leaf(&self, node: usize, rows: Vec<u32>, packed: Vec<Packed>, histogram: Histogram) -> Leaf {
        let total = packed.iter().fold(0, |sum: Packed, &one| sum.wrapping_add(one));
        let split = self.best_split(&histogram, total);
        Leaf {
            node,
            rows,
            packed,
            total,
            histogram,
            split,
        }
    }

    fn leaf_node(&self, total: Packed) -> Node {
        let total = self.scale.unpack(total);
        let step = -total.first / (total.second + self.params.l2).max(1e-12);
        Node {
            feature: LEAF,
            threshold: (step * f64::from(self.params.learning_rate)) as f32,
            left: 0,
        }
    }

    fn count(&self, rows: &[u32], packed: &[Packed]) -> Histogram {
        self.features
            .par_iter()
            .map(|&feature| {
                let column = self.data.columns[feature].as_slice();
                let mut lanes = [[0; MAX_BINS + 1]; LANES];
                let mut add = |lane: usize, row: u32, one: Packed| {
                    let sum: &mut Packed = &mut lanes[lane][column[row as usize] as usize];
                    *sum = sum.wrapping_add(one);
                };
                let (rows, last_rows) = rows.as_chunks::<LANES>();
                let (packed, last_packed) = packed.as_chunks::<LANES>();
                for (rows, packed) in rows.iter().zip(packed) {
                    for lane in 0..LANES {
                        add(lane, rows[lane], packed[lane]);
                    }
                }
                for (&row, &one) in last_rows.iter().zip(last_packed) {
                    add(0, row, one);
                }
                let [mut histogram, others @ ..] = lanes;
                for (place, sum) in histogram.iter_mut().enumerate() {
                    *sum = others
                        .iter()
                        .fold(*sum, |sum, lane| sum.wrapping_add(lane[place]));
                }
                histogram
            })
            .collect()
    }

    fn best_split(&self, histogram: &Histogram, total: Packed) -> Option<Split> {
        let l2 = self.params.l2;
        let whole = self.scale.unpack(total).score(l2);
        let mut best: Option<Split> = None;
        for (sums, &feature) in histogram.iter().zip(self.features) {
            let mut left: Packed = 0;
            for (bin, &sum) in sums.iter().enumerate().take(self.bins.count(feature) - 1) {
                if sum == 0 {
                    continue;
                }
                left = left.wrapping_add(sum);
                let (below, above) = (
                    self.scale.unpack(left),
                    self.scale.unpack(total.wrapping_sub(left)),
                );
                if below.second < self.params.min_leaf_hessian || above.second < self.params.min_leaf_hessian
                {
                    continue;
                }
                let gain = below.score(l2) + above.score(l2) - whole;
                if gain > 1e-9 && best.is_none_or(|best| gain > best.gain) {
                    best = Some(Split { gain, feature, bin });
                }
            }
        }
        best
    }
}
