//! Settings of an index.

use serde::{Deserialize, Serialize};

use crate::checked::require;
use crate::{Checked, Error};

/// Unchecked settings of a [`VectorIndex`](super::VectorIndex).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VectorIndexParams {
    /// Fewer vectors than this are always searched exactly. Lists win from 3,000 on, but below 10,000 they save less than
    /// a tenth of a millisecond, for which no answer need be approximate.
    pub exact_below: usize,
    /// Recall to be reached on the sample of queries, within (0, 1].
    pub recall: f64,
    /// Length of the lists whose recall counts.
    pub recall_at: usize,
    /// Queries in the sample.
    pub queries: usize,
    /// Lists per square root of the number of vectors.
    pub lists_per_root: f64,
    /// Rounds of k-means.
    pub iterations: usize,
    /// Vectors per list that k-means learns from.
    pub sample_per_list: usize,
}

impl Default for VectorIndexParams {
    fn default() -> Self {
        Self {
            exact_below: 10_000,
            recall: 0.985,
            recall_at: 100,
            queries: 200,
            lists_per_root: 4.0,
            iterations: 6,
            sample_per_list: 32,
        }
    }
}

impl VectorIndexParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(self) -> Result<Checked<Self>, Error> {
        require(
            self.recall > 0.0 && self.recall <= 1.0,
            "ann.recall",
            self.recall,
            "within (0, 1]",
        )?;
        require(
            self.lists_per_root > 0.0 && self.lists_per_root.is_finite(),
            "ann.lists_per_root",
            self.lists_per_root,
            "finite, greater than zero",
        )?;
        for (name, value) in [
            ("ann.recall_at", self.recall_at),
            ("ann.queries", self.queries),
            ("ann.iterations", self.iterations),
            ("ann.sample_per_list", self.sample_per_list),
        ] {
            require(value > 0, name, value, "at least one")?;
        }
        Ok(Checked::new(self))
    }
}
