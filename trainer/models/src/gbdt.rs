//! Gradient-boosted regression trees on histograms (Friedman 2001; Ke et al., "LightGBM", NeurIPS 2017, §2–3):
//! second-order leaf-wise growth over at most 255 bins per feature.
//!
//! Why our own: the pure-Rust boosters `perpetual` and `forust-ml` have no listwise objective and take no custom
//! gradients per round, and `lightgbm` bindings need a C++ toolchain that a bare machine lacks. What a ranker needs is
//! small: bins, histograms, leaf-wise splits. Histograms are summed in fixed point, so that the trees depend neither on
//! the order of rows nor on the number of threads.

mod bins;
mod forest;
mod grow;

pub use bins::{Binned, Bins};
pub(crate) use forest::Forest;
pub(crate) use grow::Grown;

use crate::Error;
use crate::checked::require;
use serde::{Deserialize, Serialize};

/// Unchecked settings of tree growth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GbdtParams {
    /// Most trees grown.
    pub trees: usize,
    /// Leaves per tree.
    pub leaves: usize,
    /// Shrinkage of each tree.
    pub learning_rate: f32,
    /// Smallest sum of second derivatives in a leaf.
    pub min_leaf_hessian: f64,
    /// L2 penalty on leaf values.
    pub l2: f64,
    /// Share of features offered to each tree.
    pub feature_share: f64,
    /// Share of lists each tree is grown on.
    pub list_share: f64,
    /// Rounds without improvement after which growth stops.
    pub patience: usize,
}

impl Default for GbdtParams {
    fn default() -> Self {
        Self {
            trees: 1000,
            leaves: 15,
            learning_rate: 0.025,
            min_leaf_hessian: 5.0,
            l2: 10.0,
            feature_share: 0.4,
            list_share: 0.4,
            patience: 120,
        }
    }
}

impl GbdtParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        require(self.trees > 0, "gbdt.trees", self.trees, "at least one")?;
        require(
            (2..=256).contains(&self.leaves),
            "gbdt.leaves",
            self.leaves,
            "from 2 to 256",
        )?;
        require(
            self.learning_rate > 0.0 && self.learning_rate <= 1.0,
            "gbdt.learning_rate",
            self.learning_rate,
            "within (0, 1]",
        )?;
        require(
            self.l2 >= 0.0 && self.l2.is_finite(),
            "gbdt.l2",
            self.l2,
            "finite, not negative",
        )?;
        require(
            self.feature_share > 0.0 && self.feature_share <= 1.0,
            "gbdt.feature_share",
            self.feature_share,
            "within (0, 1]",
        )?;
        require(
            self.list_share > 0.0 && self.list_share <= 1.0,
            "gbdt.list_share",
            self.list_share,
            "within (0, 1]",
        )
    }
}

/// A split or a leaf.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Node {
    /// Feature compared; [`LEAF`] marks a leaf.
    pub(crate) feature: u32,
    /// Rows with a value at or below it go left; in a leaf, the leaf's value.
    pub(crate) threshold: f32,
    /// Left child; the right one follows it.
    pub(crate) left: u32,
}

/// Feature number of a leaf.
pub(crate) const LEAF: u32 = u32::MAX;

/// One regression tree; node 0 is the root.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    pub(crate) nodes: Vec<Node>,
}

impl Tree {
    /// The value of the leaf that `row` falls into.
    #[must_use]
    pub fn predict(&self, row: &[f32]) -> f32 {
        let mut place = 0;
        while let Some(node) = self.nodes.get(place) {
            if node.feature == LEAF {
                return node.threshold;
            }
            let value = row.get(node.feature as usize).copied().unwrap_or(0.0);
            place = node.left as usize + usize::from(value > node.threshold);
        }
        0.0
    }

    /// Every split leads forward to existing nodes: what makes [`Self::predict`] end, whatever the stored bytes.
    pub(crate) fn is_sound(&self, features: usize) -> bool {
        !self.nodes.is_empty()
            && self.nodes.iter().enumerate().all(|(place, node)| {
                node.threshold.is_finite()
                    && (node.feature == LEAF
                        || ((node.feature as usize) < features
                            && node.left as usize > place
                            && (node.left as usize) < self.nodes.len() - 1))
            })
    }
}

/// A sum of trees.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gbdt {
    pub(crate) trees: Vec<Tree>,
}

impl Gbdt {
    /// Grows one more tree on some rows (ascending), their derivatives `(first, second)` of the loss, and some features
    /// (ascending), and returns it.
    pub(crate) fn grow(
        &mut self,
        data: &Binned,
        bins: &Bins,
        params: &GbdtParams,
        features: &[usize],
        rows: Vec<u32>,
        derivatives: &[(f32, f32)],
    ) -> Grown {
        let grown = grow::grow(data, bins, params, features, rows, derivatives);
        self.trees.push(grown.tree.clone());
        grown
    }

    /// Multiplies what every leaf says.
    pub(crate) fn scale(&mut self, factor: f32) {
        for node in self.trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
            if node.feature == LEAF {
                node.threshold *= factor;
            }
        }
    }

    /// The sum over all trees.
    #[must_use]
    pub fn predict(&self, row: &[f32]) -> f32 {
        self.trees.iter().map(|tree| tree.predict(row)).sum()
    }

    /// The sums over all trees for many rows (row-major, `width` numbers each), appended to `out`.
    pub fn predict_rows(&self, rows: &[f32], width: usize, out: &mut Vec<f32>) {
        // A few rows stay in the nearest cache while all trees pass by.
        const BLOCK: usize = 16;
        for block in rows.chunks(BLOCK * width.max(1)) {
            let mut sums = [0.0_f32; BLOCK];
            for tree in &self.trees {
                for (sum, row) in sums.iter_mut().zip(block.chunks_exact(width.max(1))) {
                    *sum += tree.predict(row);
                }
            }
            out.extend_from_slice(&sums[..block.len() / width.max(1)]);
        }
    }

    /// Number of trees.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trees.len()
    }

    /// Whether there is no tree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }
}

#[cfg(test)]
mod tests;
