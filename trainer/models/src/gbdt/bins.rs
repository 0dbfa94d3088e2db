//! Cutting each feature into at most 255 bins of about equal population.

use rayon::prelude::*;

/// Most bins per feature.
pub(crate) const MAX_BINS: usize = 255;
/// Rows looked at to place the cuts.
const SAMPLE: usize = 50_000;

/// Cuts per feature: bin `b` holds values in `(cut[b-1], cut[b]]`, the last bin what lies above every cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Bins {
    cuts: Vec<Vec<f32>>,
}

impl Bins {
    /// Places cuts at quantiles of an even sample of `rows` (row-major, `features` wide).
    #[must_use]
    pub fn fit(rows: &[f32], features: usize) -> Self {
        let count = rows.len() / features.max(1);
        let step = count.div_ceil(SAMPLE).max(1);
        let cuts = (0..features)
            .into_par_iter()
            .map(|feature| {
                let mut values: Vec<f32> = rows
                    .iter()
                    .skip(feature)
                    .step_by(features * step)
                    .copied()
                    .collect();
                values.sort_unstable_by(f32::total_cmp);
                let mut cuts: Vec<f32> = (1..MAX_BINS)
                    .filter_map(|bin| values.get(bin * values.len() / MAX_BINS).copied())
                    .collect();
                cuts.dedup();
                // A cut at the maximum would leave the last bin empty.
                if cuts.last() == values.last() {
                    cuts.pop();
                }
                cuts
            })
            .collect();
        Self { cuts }
    }

    /// Number of features.
    #[must_use]
    pub fn features(&self) -> usize {
        self.cuts.len()
    }

    pub(super) fn cut(&self, feature: usize, bin: usize) -> f32 {
        self.cuts[feature][bin]
    }

    pub(super) fn count(&self, feature: usize) -> usize {
        self.cuts[feature].len() + 1
    }

    /// Bins every row.
    #[must_use]
    pub fn apply(&self, rows: &[f32]) -> Binned {
        // Neighbouring features of a row share a cache line: a group of them takes one pass over the rows.
        const GROUP: usize = 16;
        let features = self.cuts.len();
        let count = rows.len() / features.max(1);
        let mut columns: Vec<Vec<u8>> = vec![vec![0; count]; features];
        columns
            .par_chunks_mut(GROUP)
            .zip(self.cuts.par_chunks(GROUP))
            .enumerate()
            .for_each(|(group, (columns, cuts))| {
                for (place, row) in rows.chunks_exact(features).enumerate() {
                    let values = &row[group * GROUP..];
                    for ((column, cuts), value) in columns.iter_mut().zip(cuts).zip(values) {
                        column[place] = cuts.partition_point(|cut| cut < value) as u8;
                    }
                }
            });
        Binned { rows: count, columns }
    }
}

/// Bin numbers, one column per feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Binned {
    pub(super) rows: usize,
    pub(super) columns: Vec<Vec<u8>>,
}

impl Binned {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
}
