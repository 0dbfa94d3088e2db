//! ALS: matrix factorisation for implicit feedback by alternating least squares.
//!
//! The model and its exact solution: Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets"
//! (ICDM 2008), section 4. Its confidence is `c = max(1, α·weight)`: as in the `implicit` library, and unlike the paper's
//! `1 + α·weight`, alpha is the whole confidence of a plain positive, so that published settings carry over. The conjugate-gradient solver: Takács, Pilászy, Tikk,
//! "Applications of the conjugate gradient method for implicit feedback collaborative filtering" (RecSys 2011),
//! section 3. Frequency-scaled regularisation: Rendle, Krichene, Zhang, Koren, "Revisiting the performance of iALS
//! on item recommendation benchmarks" (RecSys 2022), section 3.

mod conjugate_gradient;
mod fold_in;
mod half_step;
mod normal_equations;

use ndarray::{Array2, ArrayView2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::fold_in::FoldIn;
use self::half_step::HalfStep;
use crate::checked::require;
use crate::factors::{self, Factors};
use crate::kernels::score_rows;
use crate::padded::Padded;
use crate::tensors::TensorMap;
use crate::{Checked, Error, HistoryItem, Interactions, Scorer, Scratch};

/// How each least-squares system is solved during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlsSolver {
    /// Approximately, by a few conjugate-gradient steps from the previous solution.
    ConjugateGradient {
        /// Steps per system and iteration; 3 is nearly as good as exact.
        steps: usize,
    },
    /// Exactly, by a Cholesky factorisation per user and item.
    Cholesky,
}

/// Hyperparameters of [`Als`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlsParams {
    /// Length of a factor vector.
    pub factors: usize,
    /// Passes over users and items.
    pub iterations: usize,
    /// L2 penalty λ on every factor vector.
    pub regularization: f32,
    /// Confidence per unit of weight, `c = max(1, α·weight)`, where a pair that was not observed has 1.
    pub alpha: f32,
    /// Solver of the training's systems; the fold-in is always exact.
    pub solver: AlsSolver,
    /// ν: the penalty of a vector with `n` events against `m` opposite rows is `λ·(n + m/α)^ν`. 0 gives every vector
    /// λ; 1 weighs the penalty like the loss.
    pub frequency_scaling: f32,
    /// Seed of the initial item factors.
    pub seed: u64,
}

impl Default for AlsParams {
    fn default() -> Self {
        Self {
            factors: 64,
            iterations: 15,
            regularization: 1.0,
            alpha: 10.0,
            solver: AlsSolver::ConjugateGradient { steps: 3 },
            frequency_scaling: 0.0,
            seed: 0,
        }
    }
}

impl AlsParams {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] if there are no factors, iterations or steps, the penalty is negative, alpha is not
    /// positive, the scaling exponent lies outside `[0, 1]`, or any of them is not finite.
    pub fn check(self) -> Result<Checked<Self>, Error> {
        require(
            (1..=4096).contains(&self.factors),
            "factors",
            self.factors,
            "from 1 to 4096",
        )?;
        require(self.iterations > 0, "iterations", self.iterations, "at least 1")?;
        require(
            self.regularization.is_finite() && self.regularization >= 0.0,
            "regularization",
            self.regularization,
            "finite and not negative",
        )?;
        require(
            self.alpha.is_finite() && self.alpha > 0.0,
            "alpha",
            self.alpha,
            "finite and greater than 0",
        )?;
        require(
            (0.0..=1.0).contains(&self.frequency_scaling),
            "frequency_scaling",
            self.frequency_scaling,
            "from 0 to 1",
        )?;
        if let AlsSolver::ConjugateGradient { steps } = self.solver {
            require(steps > 0, "steps", steps, "at least 1")?;
        }
        Ok(Checked::new(self))
    }
}

/// λ of a vector with `events` events whose opposite side has `opposite` rows.
fn penalty(params: &AlsParams, events: usize, opposite: usize) -> f32 {
    let mass = events as f32 + opposite as f32 / params.alpha;
    params.regularization * mass.powf(params.frequency_scaling)
}

/// How far the confidence of an observed pair exceeds the 1 of any other: `c − 1`.
fn excess(params: &AlsParams, weight: f32) -> f32 {
    (params.alpha * weight - 1.0).max(0.0)
}

/// User and item factors, and what a fold-in needs prepared.
#[derive(Debug, Clone)]
pub struct Als {
    params: AlsParams,
    users: Array2<f32>,
    items: Array2<f32>,
    fold_in: FoldIn,
}

impl Als {
    /// Alternates between solving all users and all items.
    ///
    /// A user or item without events gets the zero vector. The result depends on the input, the parameters and the
    /// machine's instruction set, not on the number of threads: every vector is solved on its own, and sums over rows are
    /// added in blocks of fixed size.
    ///
    /// # Errors
    /// [`Error::Data`] if the factors overflow (weights times alpha beyond what `f32` carries), or a system is
    /// singular, which needs a zero penalty.
    pub fn fit(interactions: &Interactions, params: &Checked<AlsParams>) -> Result<Self, Error> {
        let by_item = interactions.by_item();
        let mut users = Padded::zeros(interactions.users(), params.factors);
        let mut items = initial_factors(interactions.items(), params);
        for _ in 0..params.iterations {
            HalfStep::new(interactions.by_user(), &items, params).solve(&mut users)?;
            HalfStep::new(&by_item, &users, params).solve(&mut items)?;
        }
        Self::assemble(**params, users.into_array(), items.into_array())
    }

    fn assemble(params: AlsParams, users: Array2<f32>, items: Array2<f32>) -> Result<Self, Error> {
        let fold_in = FoldIn::new(&items);
        Ok(Self {
            params,
            users,
            items,
            fold_in,
        })
    }

    /// Factors of the training users: `[users, factors]`.
    #[must_use]
    pub fn user_factors(&self) -> ArrayView2<'_, f32> {
        self.users.view()
    }

    /// Factors of the items: `[items, factors]`.
    #[must_use]
    pub fn item_factors(&self) -> ArrayView2<'_, f32> {
        self.items.view()
    }

    /// Length of a factor vector.
    #[must_use]
    pub fn factors(&self) -> usize {
        self.items.ncols()
    }

    /// Solves a user's vector exactly from a history, against the fixed item factors, into `user` (length
    /// [`Als::factors`]).
    ///
    /// A negative weight is a dislike: a preference of 0 held with confidence `max(1, α·|weight|)`. Zero weights and
    /// unknown items do not count; without any counted item the vector is zero.
    pub fn fold_in_into(&self, history: &[HistoryItem], scratch: &mut Scratch, user: &mut [f32]) {
        self.fold_in
            .solve(&self.items, &self.params, history, scratch, user);
    }

    /// [`Als::fold_in_into`] a new vector.
    #[must_use]
    pub fn fold_in(&self, history: &[HistoryItem]) -> Vec<f32> {
        let mut user = vec![0.0; self.factors()];
        self.fold_in_into(history, &mut Scratch::default(), &mut user);
        user
    }

    /// The model as tensors: `users [users, factors]`, `items [items, factors]`, and
    /// `fold_in [3]` = regularisation, alpha, frequency scaling.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let AlsParams {
            regularization,
            alpha,
            frequency_scaling,
            ..
        } = self.params;
        factors::store(
            &self.users,
            &self.items,
            [regularization, alpha, frequency_scaling],
        )
    }

    /// Rebuilds a model from its tensors. Training parameters that scoring does not need come back as defaults.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed, or shapes or parameters do not fit together.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let Factors {
            users,
            items,
            fold_in: [regularization, alpha, frequency_scaling],
        } = factors::load(&mut tensors)?;
        let params = AlsParams {
            factors: items.ncols(),
            regularization,
            alpha,
            frequency_scaling,
            ..AlsParams::default()
        };
        let params = params.check().map_err(|error| Error::Stored(error.to_string()))?;
        Self::assemble(*params, users, items)
    }
}

impl Scorer for Als {
    fn name(&self) -> &'static str {
        "als"
    }

    fn items(&self) -> usize {
        self.items.nrows()
    }

    /// Folds the history in (see [`Als::fold_in_into`]) and writes the inner product with every item.
    fn score_into(&self, history: &[HistoryItem], scratch: &mut Scratch, out: &mut [f32]) {
        let mut user = std::mem::take(&mut scratch.more_floats);
        user.clear();
        user.resize(self.factors(), 0.0);
        self.fold_in_into(history, scratch, &mut user);
        if let Some(items) = self.items.as_slice() {
            score_rows(items, &user, out);
        }
        scratch.more_floats = user;
    }
}

/// Uniform values of standard deviation `0.1 / √factors`, the scale that Rendle et al. start from.
fn initial_factors(rows: usize, params: &AlsParams) -> Padded {
    let mut random = ChaCha8Rng::seed_from_u64(params.seed);
    let bound = 0.1 * (3.0 / params.factors as f32).sqrt();
    let mut factors = Padded::zeros(rows, params.factors);
    for row in factors.rows_mut() {
        for value in &mut row[..params.factors] {
            *value = random.random_range(-bound..bound);
        }
    }
    factors
}

#[cfg(test)]
mod tests;
