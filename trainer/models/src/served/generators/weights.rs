//! Item × item weights, as they are served and stored: the strongest of each row, in half precision.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Error;
use crate::tensors::{Tensor, TensorMap, Values};

/// Most items: columns are stored in 16 bits.
pub(crate) const MAX_ITEMS: usize = 1 << 16;

/// Widest scores: numbers side by side per item.
const MAX_WIDTH: usize = 2;

/// The share of its row through which an item of weight 1 would speak, were the row so long; in proportion, the share of
/// an item that weighs less. With 1, lists become worse by a hundredth (ml-100k, validation).
const HEARD: f32 = 4.0;

/// A buffer of scores. As long as columns can name items, so that no access needs a check.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoreScores(Vec<f32>);

impl CoreScores {
    /// Scores of `items` items, `N` each, all zero.
    fn zeroed<const N: usize>(&mut self, items: usize) -> Option<&mut [[f32; N]; MAX_ITEMS]> {
        self.0.resize(MAX_WIDTH * MAX_ITEMS, 0.0);
        self.0[..N * items].fill(0.0);
        let (scores, _) = self.0.as_chunks_mut::<N>();
        scores.first_chunk_mut()
    }
}

/// The rows of a pruned square matrix: row, item in the history; column, item scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ItemWeights {
    /// End of each row.
    ends: Vec<u32>,
    /// Within a row those of the largest weights first, of equals the smaller column.
    columns: Vec<u16>,
    /// Exactly representable in half precision, so that storing changes nothing.
    values: Vec<f32>,
}

impl ItemWeights {
    /// Keeps the `keep` weights of the largest magnitude per row of a square matrix in row order; of equals the
    /// smaller column.
    pub(crate) fn prune<'a>(rows: impl Iterator<Item = &'a [f32]>, keep: usize) -> Self {
        let mut pruned = Self {
            ends: Vec::new(),
            columns: Vec::new(),
            values: Vec::new(),
        };
        let mut strongest: Vec<u16> = Vec::new();
        for row in rows {
            strongest.clear();
            strongest.extend(
                (0..=u16::MAX)
                    .zip(row)
                    .filter(|&(_, &weight)| weight != 0.0)
                    .map(|(c, _)| c),
            );
            if strongest.len() > keep && keep > 0 {
                strongest.select_nth_unstable_by(keep - 1, |&a, &b| {
                    let size = |column: u16| row[usize::from(column)].abs();
                    size(b).total_cmp(&size(a)).then(a.cmp(&b))
                });
                strongest.truncate(keep);
            }
            for &column in &strongest {
                let value = f16::from_f32(row[usize::from(column)]).to_f32();
                if value != 0.0 && value.is_finite() {
                    pruned.columns.push(column);
                    pruned.values.push(value);
                }
            }
            pruned.ends.push(pruned.columns.len() as u32);
        }
        pruned.sort_rows();
        pruned
    }

    fn sort_rows(&mut self) {
        let mut row: Vec<(u16, f32)> = Vec::new();
        let mut begin = 0;
        for &end in &self.ends {
            let within = begin..end as usize;
            begin = within.end;
            let (columns, values) = (&mut self.columns[within.clone()], &mut self.values[within]);
            row.clear();
            row.extend(columns.iter().copied().zip(values.iter().copied()));
            row.sort_unstable_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
            for ((column, value), entry) in columns.iter_mut().zip(values).zip(&row) {
                (*column, *value) = *entry;
            }
        }
    }

    /// Number of rows and of columns.
    pub(crate) fn items(&self) -> usize {
        self.ends.len()
    }

    fn row(&self, item: u32) -> Option<(&[u16], &[f32])> {
        let item = item as usize;
        let end = *self.ends.get(item)? as usize;
        let begin = if item == 0 {
            0
        } else {
            self.ends[item - 1] as usize
        };
        Some((&self.columns[begin..end], &self.values[begin..end]))
    }

    /// The sum of the rows of `history` (item, weights), one score per item and weight; unknown items do not count. An
    /// item that weighs less than 1 speaks through fewer of its row's weights, the strongest (see [`HEARD`]): what the
    /// others would add is small twice over, and most of the work.
    pub(crate) fn score_into<'s, const N: usize>(
        &self,
        history: impl Iterator<Item = (u32, [f32; N])>,
        scores: &'s mut CoreScores,
    ) -> &'s [[f32; N]] {
        const { assert!(N > 0 && N <= MAX_WIDTH) };
        let Some(sums) = scores.zeroed::<N>(self.items()) else {
            return &[];
        };
        for (item, weights) in history {
            let Some((columns, values)) = self.row(item) else {
                continue;
            };
            let loudest = weights.into_iter().map(f32::abs).fold(0.0, f32::max);
            let heard = (columns.len() as f32 * (HEARD * loudest).min(1.0)).ceil() as usize;
            for (&column, &value) in columns[..heard].iter().zip(&values[..heard]) {
                for (sum, weight) in sums[usize::from(column)].iter_mut().zip(weights) {
                    *sum += weight * value;
                }
            }
        }
        &sums[..self.items()]
    }

    /// `ends [items]`, and, rows concatenated, `columns` and `values`.
    pub(crate) fn to_tensors(&self) -> TensorMap {
        let mut halves = vec![f16::ZERO; self.values.len()];
        halves.convert_from_f32_slice(&self.values);
        let mut map = TensorMap::new();
        map.insert("ends", Tensor::u32s(self.ends.clone()));
        map.insert("columns", Tensor::flat(Values::U16(self.columns.clone())));
        map.insert("values", Tensor::flat(Values::F16(halves)));
        map
    }

    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed, or they do not fit together.
    pub(crate) fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let (_, ends) = tensors.take_u32::<1>("ends")?;
        let columns = tensors.take_u16s("columns")?;
        let values = tensors.take_halves("values")?;
        let items = ends.len();
        let whole = ends.last().map_or(0, |&end| end as usize);
        if items > MAX_ITEMS
            || !ends.is_sorted()
            || whole != columns.len()
            || whole != values.len()
            || columns.iter().any(|&column| usize::from(column) >= items)
        {
            return Err(Error::Stored(format!(
                "weights of {items} rows, {} columns and {} values do not fit together",
                columns.len(),
                values.len()
            )));
        }
        let mut weights = Self {
            ends,
            columns,
            values,
        };
        weights.sort_rows();
        Ok(weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ItemWeights {
        let rows: [&[f32]; 3] = [&[0.0, 0.5, -2.0], &[1.0, 0.0, 0.25], &[0.0, 0.0, 0.0]];
        ItemWeights::prune(rows.into_iter(), 1)
    }

    #[test]
    fn the_strongest_of_a_row_stay_whatever_their_sign() {
        let mut buffer = CoreScores::default();
        let history = [(0, [1.0]), (1, [10.0]), (2, [1.0]), (77, [1.0])];
        let sums = sample().score_into(history.into_iter(), &mut buffer);
        assert_eq!(sums, [[10.0], [0.0], [-2.0]]);
        let history = [(0, [1.0, 0.5]), (1, [10.0, 0.0])];
        let sums = sample().score_into(history.into_iter(), &mut buffer);
        assert_eq!(sums, [[10.0, 0.0], [0.0, 0.0], [-2.0, -1.0]]);
    }

    #[test]
    fn who_weighs_less_speaks_through_the_strongest_weights_only() {
        let row: [f32; 5] = [0.0, 0.5, -4.0, 2.0, 1.0];
        let weights = ItemWeights::prune([&row[..], &[], &[], &[], &[]].into_iter(), 5);
        let mut buffer = CoreScores::default();
        let mut heard = |weight: f32| -> Vec<f32> {
            let sums = weights.score_into([(0, [weight])].into_iter(), &mut buffer);
            sums.iter().map(|sum| sum[0] / weight).collect()
        };
        assert_eq!((heard(1.0), heard(0.25)), (row.to_vec(), row.to_vec()));
        assert_eq!(heard(0.125), [0.0, 0.0, -4.0, 2.0, 0.0]);
        assert_eq!(heard(0.0625), [0.0, 0.0, -4.0, 0.0, 0.0]);
        assert_eq!(heard(0.03125), [0.0, 0.0, -4.0, 0.0, 0.0], "never through none");
    }

    #[test]
    fn weights_stored_in_another_order_are_put_in_order() {
        let row: [&[f32]; 2] = [&[0.5, -2.0], &[0.0, 0.0]];
        let both = ItemWeights::prune(row.into_iter(), 2);
        let mut ascending = both.to_tensors();
        ascending.insert("columns", Tensor::flat(Values::U16(vec![0, 1])));
        let values = [0.5, -2.0].map(f16::from_f32).to_vec();
        ascending.insert("values", Tensor::flat(Values::F16(values)));
        assert_eq!(ItemWeights::from_tensors(ascending).unwrap(), both);
    }

    #[test]
    fn storage_keeps_them_and_refuses_what_does_not_fit() {
        let weights = sample();
        assert_eq!(ItemWeights::from_tensors(weights.to_tensors()).unwrap(), weights);
        let mut wild = weights.to_tensors();
        wild.insert("columns", Tensor::flat(Values::U16(vec![2, 3])));
        assert!(matches!(ItemWeights::from_tensors(wild), Err(Error::Stored(_))));
        let mut short = weights.to_tensors();
        short.insert("ends", Tensor::u32s(vec![1, 2, 1]));
        assert!(matches!(ItemWeights::from_tensors(short), Err(Error::Stored(_))));
    }

    #[test]
    fn values_are_rounded_to_half_precision_when_they_are_pruned() {
        let rows: [&[f32]; 1] = [&[0.1]];
        let weights = ItemWeights::prune(rows.into_iter(), 5);
        assert!((weights.values[0] - 0.1).abs() < 1e-4 && weights.values[0] != 0.1);
        assert_eq!(ItemWeights::from_tensors(weights.to_tensors()).unwrap(), weights);
    }
}
