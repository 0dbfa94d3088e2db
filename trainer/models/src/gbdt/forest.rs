//! Many rows through many small trees at once.
//!
//! QuickScorer (Lucchese, Nardini, Orlando, Perego, Tonellotto, Venturini: "QuickScorer: A Fast Algorithm to Rank
//! Documents with Additive Ensembles of Regression Trees", SIGIR 2015), vectorised over rows as in V-QuickScorer
//! (SIGIR 2016): instead of walking each tree, every cut that a row's value exceeds strikes the leaves to its left off
//! the tree's set of leaves; the leftmost leaf left is where the row ends. There are no branches to mispredict, and one
//! instruction serves several rows. The sums are those of [`super::Tree::predict`], bit for bit: the same leaves, added
//! in the order of the trees.

use std::slice;

use pulp::bytemuck::{cast_slice, cast_slice_mut};
use pulp::{Arch, Simd, WithSimd};

use super::{LEAF, Tree};

/// Leaves whose set fits a lane, with room to spare: the sets are as wide as the numbers that decide on them, so that a
/// comparison of some numbers is at once the choice of as many sets.
const LEAVES: usize = 16;
/// Most rows that pass together on any machine.
const MOST_LANES: usize = 16;

/// One split.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cut {
    /// Rows with a larger value go right ...
    threshold: f32,
    /// ... in this tree, ...
    tree: u32,
    /// ... where only these leaves then remain.
    remain: u32,
}

/// The cuts on one feature: `cuts[begin..end]`, ascending.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    feature: usize,
    begin: usize,
    end: usize,
}

/// Trees of at most [`LEAVES`] leaves, ready to score many rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Forest {
    cuts: Vec<Cut>,
    spans: Vec<Span>,
    /// By tree, leaves from left to right.
    leaves: Vec<[f32; LEAVES]>,
}

impl Forest {
    /// `None` where a tree has too many leaves, or a row has too few numbers for one.
    pub(crate) fn new(trees: &[Tree], width: usize) -> Option<Self> {
        let mut cuts: Vec<(u32, Cut)> = Vec::new();
        let mut leaves = Vec::with_capacity(trees.len());
        for (number, tree) in (0_u32..).zip(trees) {
            // Looked at first: a damaged tree must not be walked to any depth.
            if tree.nodes.len() >= 2 * LEAVES {
                return None;
            }
            let mut found = Leaves::default();
            found.walk(tree, 0, number, &mut cuts)?;
            leaves.push(found.values);
        }
        if cuts.iter().any(|&(feature, _)| feature as usize >= width) {
            return None;
        }
        cuts.sort_by(|(a, x), (b, y)| a.cmp(b).then(x.threshold.total_cmp(&y.threshold)));
        let mut spans = Vec::new();
        let mut begin = 0;
        for chunk in cuts.chunk_by(|(a, _), (b, _)| a == b) {
            spans.push(Span {
                feature: chunk[0].0 as usize,
                begin,
                end: begin + chunk.len(),
            });
            begin += chunk.len();
        }
        Some(Self {
            cuts: cuts.into_iter().map(|(_, cut)| cut).collect(),
            spans,
            leaves,
        })
    }

    /// Adds the sums over all trees for many rows (row-major, `width` numbers each) to `sums`, one per row.
    pub(crate) fn add_rows(&self, rows: &[f32], width: usize, sums: &mut [f32]) {
        Arch::new().dispatch(Pass {
            forest: self,
            rows,
            width: width.max(1),
            out: sums,
        });
    }
}

/// The leaves of one tree, met from left to right.
#[derive(Default)]
struct Leaves {
    values: [f32; LEAVES],
    met: usize,
}

impl Leaves {
    /// Notes what lies under `place`; `None` where there are more leaves than fit.
    fn walk(&mut self, tree: &Tree, place: usize, number: u32, cuts: &mut Vec<(u32, Cut)>) -> Option<()> {
        let node = tree.nodes.get(place)?;
        if node.feature == LEAF {
            *self.values.get_mut(self.met)? = node.threshold;
            self.met += 1;
            return Some(());
        }
        let first = self.met;
        self.walk(tree, node.left as usize, number, cuts)?;
        let left = (first..self.met).fold(0_u32, |set, leaf| set | 1 << leaf);
        cuts.push((
            node.feature,
            Cut {
                threshold: node.threshold,
                tree: number,
                remain: !left,
            },
        ));
        self.walk(tree, node.left as usize + 1, number, cuts)
    }
}

struct Pass<'a> {
    forest: &'a Forest,
    rows: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            forest,
            rows,
            width,
            out,
        } = self;
        let lanes = S::F32_LANES;
        let all = simd.splat_u32s(u32::MAX);
        let mut sets = vec![all; forest.leaves.len()];
        let mut values = vec![simd.splat_f32s(0.0); width];
        for (block, out) in rows.chunks(lanes * width).zip(out.chunks_mut(lanes)) {
            let by_feature: &mut [f32] = cast_slice_mut(&mut values);
            for (lane, row) in block.chunks_exact(width).enumerate() {
                for (values, &value) in by_feature.chunks_exact_mut(lanes).zip(row) {
                    values[lane] = value;
                }
            }
            sets.fill(all);
            for span in &forest.spans {
                let values = values[span.feature];
                let mut largest = f32::NEG_INFINITY;
                for &value in cast_slice::<_, f32>(slice::from_ref(&values)) {
                    largest = if value > largest { value } else { largest };
                }
                for cut in &forest.cuts[span.begin..span.end] {
                    if cut.threshold >= largest {
                        break;
                    }
                    let right = simd.greater_than_f32s(values, simd.splat_f32s(cut.threshold));
                    let remain = simd.select_u32s(right, simd.splat_u32s(cut.remain), all);
                    let set = &mut sets[cut.tree as usize];
                    *set = simd.and_u32s(*set, remain);
                }
            }
            let mut sums = [0.0_f32; MOST_LANES];
            let sums = &mut sums[..lanes];
            sums[..out.len()].copy_from_slice(out);
            for (set, leaves) in sets.iter().zip(&forest.leaves) {
                for (sum, set) in sums.iter_mut().zip(cast_slice::<_, u32>(slice::from_ref(set))) {
                    *sum += leaves[set.trailing_zeros() as usize % LEAVES];
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Gbdt, Node};
    use super::*;

    const WIDTH: usize = 5;

    /// A tree of `leaves` leaves: at each step a leaf, chosen by `choices`, is split.
    fn grown(choices: &[(usize, u32, i8)]) -> Tree {
        let leaf = |value: f32| Node {
            feature: LEAF,
            threshold: value,
            left: 0,
        };
        let mut nodes = vec![leaf(0.5)];
        for &(choice, feature, threshold) in choices {
            let open: Vec<usize> = (0..nodes.len()).filter(|&at| nodes[at].feature == LEAF).collect();
            let left = nodes.len() as u32;
            nodes[open[choice % open.len()]] = Node {
                feature,
                threshold: f32::from(threshold) / 4.0,
                left,
            };
            nodes.push(leaf(left as f32 * 0.37 - 1.1));
            nodes.push(leaf(left as f32 * -0.21 + 0.3));
        }
        Tree { nodes }
    }

    fn trees(splits: usize) -> impl Strategy<Value = Gbdt> {
        let split = (0_usize..16, 0_u32..WIDTH as u32, -8_i8..8);
        let tree = prop::collection::vec(split, 0..=splits).prop_map(|choices| grown(&choices));
        prop::collection::vec(tree, 0..12).prop_map(|trees| Gbdt { trees })
    }

    proptest! {
        #[test]
        fn it_gives_what_walking_each_tree_gives(
            model in trees(15),
            rows in prop::collection::vec(prop::collection::vec(-9_i8..9, WIDTH), 0..40),
        ) {
            // Quarters meet thresholds exactly; one value is no number at all.
            let number = |value: i8| if value == 8 { f32::NAN } else { f32::from(value) / 4.0 };
            let rows: Vec<f32> = rows.into_iter().flatten().map(number).collect();
            let forest = Forest::new(&model.trees, WIDTH).unwrap();
            let mut sums = vec![0.0; rows.len() / WIDTH];
            forest.add_rows(&rows, WIDTH, &mut sums);
            let walked: Vec<f32> = rows
                .chunks_exact(WIDTH)
                .map(|row| model.trees.iter().fold(0.0, |sum, tree| sum + tree.predict(row)))
                .collect();
            prop_assert_eq!(sums, walked);
        }
    }

    #[test]
    fn trees_with_more_leaves_than_a_lane_has_bits_are_left_to_walking() {
        let choices: Vec<(usize, u32, i8)> = (0..16).map(|step| (step, 0, step as i8)).collect();
        let model = Gbdt {
            trees: vec![grown(&choices)],
        };
        assert_eq!(Forest::new(&model.trees, WIDTH), None);
        let narrow = Gbdt {
            trees: vec![grown(&[(0, 4, 0)])],
        };
        assert_eq!(Forest::new(&narrow.trees, 4), None);
    }
}
