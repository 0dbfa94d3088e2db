//! The sparse user × item matrix that every model is fitted from.

use sprs::CsMatI;

use crate::Error;

/// Compressed sparse rows with 32-bit column indices: half the memory traffic of word-sized ones.
pub type SparseRows = CsMatI<f32, u32, usize>;

/// Validated user × item interaction weights in compressed sparse row form.
///
/// Duplicate (user, item) pairs are summed, every weight is finite and positive, and neither axis is empty.
/// A user or an item without events is an empty row or column: models give it no factors, no neighbours, and a
/// zero score, and never divide by its count.
#[derive(Debug, Clone)]
pub struct Interactions {
    by_user: SparseRows,
}

impl Interactions {
    /// Builds the matrix from `(user, item, weight)` triplets over `users` × `items`, in any order.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no triplet, an axis exceeds `u32`, an index is out of range, or a weight (or a
    /// sum of duplicates) is NaN, infinite or not positive.
    pub fn from_triplets(users: usize, items: usize, triplets: &[(u32, u32, f32)]) -> Result<Self, Error> {
        if triplets.is_empty() || users == 0 || items == 0 {
            return Err(Error::Data("the interaction matrix is empty".into()));
        }
        if u32::try_from(users).is_err() || u32::try_from(items).is_err() {
            return Err(Error::Data(format!(
                "{users} users x {items} items exceed 32-bit indices"
            )));
        }
        for &(user, item, weight) in triplets {
            if user as usize >= users || item as usize >= items {
                return Err(Error::Data(format!(
                    "pair ({user}, {item}) lies outside {users} users x {items} items"
                )));
            }
            if !weight.is_finite() || weight <= 0.0 {
                return Err(Error::Data(format!(
                    "weight {weight} of pair ({user}, {item}) is not a positive finite number"
                )));
            }
        }

        // A counting sort by user keeps the order of arrival inside a row, which the stable sort by item then keeps
        // among duplicates: their sum does not depend on anything but the input's order.
        let mut starts = row_starts(users, triplets.iter().map(|&(user, _, _)| user));
        let mut rows = vec![(0_u32, 0.0_f32); triplets.len()];
        let mut next = starts.clone();
        for &(user, item, weight) in triplets {
            let slot = &mut next[user as usize];
            rows[*slot] = (item, weight);
            *slot += 1;
        }
        let mut columns = Vec::with_capacity(triplets.len());
        let mut weights: Vec<f32> = Vec::with_capacity(triplets.len());
        for user in 0..users {
            let row = &mut rows[starts[user]..starts[user + 1]];
            row.sort_by_key(|&(item, _)| item);
            let begin = columns.len();
            for &(item, weight) in row.iter() {
                match weights.last_mut() {
                    Some(sum) if columns.len() > begin && columns.last() == Some(&item) => {
                        *sum += weight;
                        if !sum.is_finite() {
                            return Err(Error::Data(format!(
                                "the weights of pair ({user}, {item}) overflow"
                            )));
                        }
                    }
                    _ => {
                        columns.push(item);
                        weights.push(weight);
                    }
                }
            }
            // Row `user` has been read, and only later rows look at later starts.
            starts[user] = begin;
        }
        starts[users] = columns.len();
        Ok(Self {
            by_user: SparseRows::new((users, items), starts, columns, weights),
        })
    }

    /// Rows are users, columns items; columns ascend within a row.
    #[must_use]
    pub fn by_user(&self) -> &SparseRows {
        &self.by_user
    }

    /// The transposed matrix: rows are items, columns users, ascending within a row. Built anew on each call.
    #[must_use]
    pub fn by_item(&self) -> SparseRows {
        let users = self.by_user.indptr();
        let mut next = row_starts(self.items(), self.by_user.indices().iter().copied());
        let starts = next.clone();
        let mut columns = vec![0_u32; self.pairs()];
        let mut weights = vec![0.0_f32; self.pairs()];
        for (user, range) in (0_u32..).zip(users.iter_outer_sz()) {
            let row = self.by_user.indices()[range.clone()]
                .iter()
                .zip(&self.by_user.data()[range]);
            for (&item, &weight) in row {
                let slot = &mut next[item as usize];
                columns[*slot] = user;
                weights[*slot] = weight;
                *slot += 1;
            }
        }
        SparseRows::new((self.items(), self.users()), starts, columns, weights)
    }

    /// Number of users (rows).
    #[must_use]
    pub fn users(&self) -> usize {
        self.by_user.rows()
    }

    /// Number of items (columns).
    #[must_use]
    pub fn items(&self) -> usize {
        self.by_user.cols()
    }

    /// Number of distinct (user, item) pairs.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.by_user.nnz()
    }
}

/// Offsets of each row in a matrix whose entries have the given rows; one more than there are rows.
fn row_starts(rows: usize, entries: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut starts = vec![0_usize; rows + 1];
    for row in entries {
        starts[row as usize + 1] += 1;
    }
    let mut total = 0;
    for start in &mut starts {
        total += *start;
        *start = total;
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_summed_and_rows_sorted() {
        let matrix = Interactions::from_triplets(
            3,
            4,
            &[(2, 3, 1.0), (0, 2, 1.0), (2, 0, 5.0), (2, 3, 0.5), (0, 1, 2.0)],
        )
        .unwrap();
        assert_eq!(matrix.pairs(), 4);
        assert_eq!(matrix.by_user().indices(), &[1, 2, 0, 3]);
        assert_eq!(matrix.by_user().data(), &[2.0, 1.0, 5.0, 1.5]);
        assert_eq!(matrix.by_user().indptr().raw_storage(), &[0, 2, 2, 4]);
    }

    #[test]
    fn the_transpose_holds_the_same_pairs() {
        let matrix = Interactions::from_triplets(3, 4, &[(2, 3, 1.0), (0, 3, 2.0), (2, 0, 5.0)]).unwrap();
        let by_item = matrix.by_item();
        assert_eq!(by_item.indptr().raw_storage(), &[0, 1, 1, 1, 3]);
        assert_eq!(by_item.indices(), &[2, 0, 2]);
        assert_eq!(by_item.data(), &[5.0, 2.0, 1.0]);
    }

    #[test]
    fn what_cannot_be_trained_on_is_refused_by_name() {
        let refused = |users, items, triplets: &[(u32, u32, f32)]| {
            let Err(Error::Data(message)) = Interactions::from_triplets(users, items, triplets) else {
                panic!("accepted {triplets:?}");
            };
            message
        };
        assert!(refused(2, 2, &[]).contains("empty"));
        assert!(refused(0, 2, &[(0, 0, 1.0)]).contains("empty"));
        assert!(refused(2, 2, &[(2, 0, 1.0)]).contains("outside"));
        assert!(refused(2, 2, &[(0, 2, 1.0)]).contains("outside"));
        assert!(refused(2, 2, &[(0, 0, f32::NAN)]).contains("NaN"));
        assert!(refused(2, 2, &[(0, 0, 0.0)]).contains("positive"));
        assert!(refused(2, 2, &[(0, 0, -1.0)]).contains("positive"));
        assert!(refused(2, 2, &[(0, 0, f32::MAX), (0, 0, f32::MAX)]).contains("overflow"));
    }
}
