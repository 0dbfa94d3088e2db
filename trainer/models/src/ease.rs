//! EASE: the best linear item-item model, in closed form.
//!
//! Steck, "Embarrassingly shallow autoencoders for sparse data" (WWW 2019).

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, Par, Spec};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::checked::require;
use crate::kernels::{axpy, row};
use crate::tensors::{Tensor, TensorMap};
use crate::{Checked, Error, HistoryItem, Interactions, Scorer, Scratch};

/// Hyperparameters of [`Ease`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EaseParams {
    /// L2 penalty on the item-item weights (λ of the paper's equation 3).
    pub lambda: f32,
}

impl Default for EaseParams {
    fn default() -> Self {
        Self { lambda: 200.0 }
    }
}

impl EaseParams {
    /// Checks the domain.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless the penalty is positive and finite (at zero the system may be singular).
    pub fn check(self) -> Result<Checked<Self>, Error> {
        require(
            self.lambda.is_finite() && self.lambda > 0.0,
            "lambda",
            self.lambda,
            "finite and greater than 0",
        )?;
        Ok(Checked::new(self))
    }
}

/// A dense item × item weight matrix with a zero diagonal.
#[derive(Debug, Clone, PartialEq)]
pub struct Ease {
    /// `[items, items]`; row: item in the history, column: item scored.
    weights: Array2<f32>,
}

impl Ease {
    /// Solves `B = I − P · diag(1 / diag P)` with `P = (XᵀX + λI)⁻¹` (the paper's equation 8), in double precision.
    ///
    /// Time grows with the cube, memory with the square of the number of items: 20 bytes per pair of items while
    /// fitting, 4 afterwards. An item without events gets a zero row and column. The result does not depend on the
    /// number of threads.
    ///
    /// # Errors
    /// [`Error::Data`] if the matrix is too large to be addressed, or the system is not numerically positive definite
    /// (weights of wildly different sizes).
    pub fn fit(interactions: &Interactions, params: &Checked<EaseParams>) -> Result<Self, Error> {
        let items = interactions.items();
        let mut system = penalised_gram(interactions, params.lambda)?;
        invert(&mut system, items)?;
        // What was inverted is one triangle, by column: the entry of a greater row and a lesser column.
        let entry = |a: usize, b: usize| system[a.min(b) * items + a.max(b)];
        let diagonal: Vec<f64> = (0..items).map(|item| entry(item, item)).collect();
        let mut weights = Array2::<f32>::zeros((items, items));
        weights
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .enumerate()
            .for_each(|(item, mut row)| {
                for ((other, weight), pivot) in row.iter_mut().enumerate().zip(&diagonal) {
                    if other != item {
                        *weight = (-entry(item, other) / pivot) as f32;
                    }
                }
            });
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(Error::Data("the item-item system is numerically singular".into()));
        }
        Ok(Self { weights })
    }

    /// The weights `[items, items]`: row, item in the history; column, item scored.
    #[must_use]
    pub fn weights(&self) -> ArrayView2<'_, f32> {
        self.weights.view()
    }

    /// The model as tensors: `weights [items, items]`.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let mut map = TensorMap::new();
        map.insert("weights", Tensor::matrix(&self.weights));
        map
    }

    /// Rebuilds a model from its tensors.
    ///
    /// # Errors
    /// [`Error::Stored`] if the tensor is missing, malformed or not square.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let weights = tensors.take_matrix("weights")?;
        if !weights.is_square() {
            return Err(Error::Stored(format!(
                "weights are {} x {}, expected a square",
                weights.nrows(),
                weights.ncols()
            )));
        }
        Ok(Self { weights })
    }
}

impl Scorer for Ease {
    fn name(&self) -> &'static str {
        "ease"
    }

    fn items(&self) -> usize {
        self.weights.nrows()
    }

    /// `x · B`, where `x` holds the history's weights; a negative weight counts against.
    fn score_into(&self, history: &[HistoryItem], _scratch: &mut Scratch, out: &mut [f32]) {
        out.fill(0.0);
        for entry in history {
            if let Some(row) = row(&self.weights, entry.item) {
                axpy(entry.weight, row, out);
            }
        }
    }
}

/// `XᵀX + λI`, `[items, items]`.
fn penalised_gram(interactions: &Interactions, lambda: f32) -> Result<Vec<f64>, Error> {
    let items = interactions.items();
    let by_user = interactions.by_user();
    let by_item = interactions.by_item();
    let cells = items
        .checked_mul(items)
        .filter(|cells| *cells <= isize::MAX as usize / size_of::<f64>())
        .ok_or_else(|| Error::Data(format!("{items} items have too many pairs for a dense model")))?;
    let mut gram = vec![0.0_f64; cells];
    gram.par_chunks_exact_mut(items)
        .enumerate()
        .for_each(|(item, products)| {
            if let Some(users) = by_item.outer_view(item) {
                for (user, &weight) in users.iter() {
                    let Some(row) = by_user.outer_view(user) else {
                        continue;
                    };
                    for (&other, &other_weight) in row.indices().iter().zip(row.data()) {
                        products[other as usize] += f64::from(weight) * f64::from(other_weight);
                    }
                }
            }
            products[item] += f64::from(lambda);
        });
    Ok(gram)
}

/// Overwrites the lower triangle, by column, of a symmetric positive definite matrix with that of its inverse:
/// `A = L Lᵀ`, `A⁻¹ = L⁻ᵀ L⁻¹`, each step in the place of what is no longer needed.
fn invert(matrix: &mut [f64], side: usize) -> Result<(), Error> {
    let threads = Par::rayon(0);
    let mut matrix = MatMut::from_column_major_slice_mut(matrix, side, side);
    let mut workspace = MemBuffer::new(factor::cholesky_in_place_scratch::<f64>(
        side,
        threads,
        Spec::default(),
    ));
    factor::cholesky_in_place(
        matrix.rb_mut(),
        factor::LltRegularization::default(),
        threads,
        MemStack::new(&mut workspace),
        Spec::default(),
    )
    .map_err(|error| Error::Data(format!("the item-item system cannot be factorised: {error:?}")))?;
    let mut inverse = Mat::<f64>::zeros(side, side);
    invert_lower_triangular(inverse.as_mut(), matrix.rb(), threads);
    triangular::matmul(
        matrix.rb_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        inverse.transpose(),
        BlockStructure::TriangularUpper,
        inverse.as_ref(),
        BlockStructure::TriangularLower,
        1.0,
        threads,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fit(items: usize, pairs: &[(u32, u32, f32)], lambda: f32) -> Ease {
        let matrix = Interactions::from_triplets(8, items, pairs).unwrap();
        Ease::fit(&matrix, &EaseParams { lambda }.check().unwrap()).unwrap()
    }

    #[test]
    fn two_items_match_the_inverse_by_hand() {
        // XᵀX = [[2, 1], [1, 1]], λ = 1: G = [[3, 1], [1, 2]], P = 1/5 [[2, -1], [-1, 3]],
        // B[0][1] = -P01 / P11 = 1/3, B[1][0] = -P10 / P00 = 1/2.
        let model = fit(2, &[(0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0)], 1.0);
        let weights = model.weights();
        assert!((weights[(0, 1)] - 1.0 / 3.0).abs() < 1e-6);
        assert!((weights[(1, 0)] - 0.5).abs() < 1e-6);
        assert_eq!((weights[(0, 0)], weights[(1, 1)]), (0.0, 0.0));
    }

    #[test]
    fn an_item_without_events_neither_gives_nor_takes() {
        let model = fit(3, &[(0, 0, 1.0), (0, 1, 1.0)], 1.0);
        assert!((0..3).all(|other| model.weights()[(2, other)] == 0.0 && model.weights()[(other, 2)] == 0.0));
    }

    #[test]
    fn scores_are_the_weighted_rows_and_unknown_items_are_ignored() {
        let model = fit(2, &[(0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0)], 1.0);
        let history = [(0, 2.0), (5, 1.0)].map(|(item, weight)| HistoryItem { item, weight });
        let mut out = [9.0; 2];
        model.score_into(&history, &mut Scratch::default(), &mut out);
        assert_eq!(out[0], 0.0);
        assert!((out[1] - 2.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn a_penalty_out_of_domain_is_refused() {
        for lambda in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(
                EaseParams { lambda }.check(),
                Err(Error::Hyperparameter { name: "lambda", .. })
            ));
        }
    }

    #[test]
    fn storage_keeps_the_model_and_refuses_an_oblong() {
        let model = fit(2, &[(0, 0, 1.0), (0, 1, 1.0)], 1.0);
        assert_eq!(Ease::from_tensors(model.to_tensors()).unwrap(), model);
        let mut oblong = TensorMap::new();
        oblong.insert("weights", Tensor::matrix(&Array2::zeros((1, 2))));
        assert!(matches!(Ease::from_tensors(oblong), Err(Error::Stored(_))));
    }

    #[test]
    fn the_thread_count_does_not_change_a_byte() {
        // Large enough for the factorisation to be divided among threads.
        let pairs: Vec<_> = (0..9000_u32)
            .map(|index| (index * 31 % 397, index * 17 % 300, 1.0))
            .collect();
        let matrix = Interactions::from_triplets(400, 300, &pairs).unwrap();
        let bytes = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let params = EaseParams { lambda: 5.0 }.check().unwrap();
            pool.install(|| {
                Ease::fit(&matrix, &params)
                    .unwrap()
                    .to_tensors()
                    .serialize(None)
                    .unwrap()
            })
        };
        assert_eq!(bytes(1), bytes(3));
    }

    proptest! {
        /// Stationarity of the paper's equation 5: off the diagonal, `(XᵀX + λI) B = XᵀX`.
        #[test]
        fn the_normal_equations_hold_off_the_diagonal(
            pairs in prop::collection::vec((0_u32..8, 0_u32..5, 0.5_f32..2.0), 1..30),
            lambda in 0.5_f32..20.0,
        ) {
            let matrix = Interactions::from_triplets(8, 5, &pairs).unwrap();
            let model = Ease::fit(&matrix, &EaseParams { lambda }.check().unwrap()).unwrap();
            let mut dense = ndarray::Array2::<f32>::zeros((8, 5));
            for (&weight, (user, item)) in matrix.by_user().iter() {
                dense[(user as usize, item as usize)] = weight;
            }
            let gram = dense.t().dot(&dense);
            let penalised = &gram + &(ndarray::Array2::<f32>::eye(5) * lambda);
            let residual = penalised.dot(&model.weights()) - gram;
            for ((row, column), &value) in residual.indexed_iter() {
                prop_assert!(row == column || value.abs() < 1e-2, "({row}, {column}): {value}");
            }
        }
    }
}
