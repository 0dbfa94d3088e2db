//! BPR: matrix factorisation that learns to rank a chosen item above an unchosen one.
//!
//! Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian personalized ranking from implicit feedback"
//! (UAI 2009): the criterion of section 4.1, the stochastic gradient descent of section 4.2, the matrix factorisation
//! of section 4.3.1 with a bias per item.

mod epoch;
mod fold_in;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::epoch::Trainer;
use crate::checked::require;
use crate::factors::{self, Factors};
use crate::kernels::score_rows;
use crate::tensors::{Tensor, TensorMap};
use crate::{Checked, Error, HistoryItem, Interactions, Scorer, Scratch};

/// Where the unchosen item of a comparison is drawn from. Items that the user chose are drawn again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Negatives {
    /// Every item alike, as in the paper: popular items rank high.
    #[default]
    Uniform,
    /// As often as the item was chosen, as in the `implicit` library: popularity is learned away, so lists reach farther
    /// into the catalogue and hit less often.
    Popular,
}

/// Hyperparameters of [`Bpr`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BprParams {
    /// Length of a factor vector.
    pub factors: usize,
    /// Passes over all pairs.
    pub iterations: usize,
    /// Step length of the gradient descent.
    pub learning_rate: f32,
    /// L2 penalty on factors and biases.
    pub regularization: f32,
    /// Distribution of the unchosen items.
    pub negatives: Negatives,
    /// Seed of the initial factors, of the order of events and of the negatives.
    pub seed: u64,
}

impl Default for BprParams {
    fn default() -> Self {
        Self {
            factors: 64,
            iterations: 100,
            learning_rate: 0.01,
            regularization: 0.01,
            negatives: Negatives::Uniform,
            seed: 0,
        }
    }
}

impl BprParams {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] if there are no factors or iterations, the step is not positive, the penalty is
    /// negative, or any of them is not finite.
    pub fn check(self) -> Result<Checked<Self>, Error> {
        require(
            (1..=4096).contains(&self.factors),
            "factors",
            self.factors,
            "from 1 to 4096",
        )?;
        require(self.iterations > 0, "iterations", self.iterations, "at least 1")?;
        require(
            self.learning_rate.is_finite() && self.learning_rate > 0.0,
            "learning_rate",
            self.learning_rate,
            "finite and greater than 0",
        )?;
        require(
            self.regularization.is_finite() && self.regularization >= 0.0,
            "regularization",
            self.regularization,
            "finite and not negative",
        )?;
        Ok(Checked::new(self))
    }
}

/// User and item factors, and a bias per item.
#[derive(Debug, Clone, PartialEq)]
pub struct Bpr {
    users: Array2<f32>,
    items: Array2<f32>,
    biases: Array1<f32>,
    learning_rate: f32,
    regularization: f32,
}

impl Bpr {
    /// Descends the gradient over all pairs, `iterations` times; a pair's weight is not used, its presence is.
    ///
    /// Users and items are partitioned into a fixed number of blocks, so that threads never share a vector: the
    /// result depends on input, parameters and seed, not on the number of threads.
    ///
    /// # Errors
    /// [`Error::Data`] if the descent diverges (too long a step).
    pub fn fit(interactions: &Interactions, params: &Checked<BprParams>) -> Result<Self, Error> {
        let mut random = ChaCha8Rng::seed_from_u64(params.seed);
        // Small against the gradients of the first steps, as in implicit's and MyMediaLite's implementations.
        let bound = 0.5 / params.factors as f32;
        let mut initial = |rows| {
            Array2::from_shape_simple_fn((rows, params.factors), || random.random_range(-bound..bound))
        };
        let users = initial(interactions.users());
        let items = initial(interactions.items());
        let mut trainer = Trainer::new(interactions, params, users, items);
        for _ in 0..params.iterations {
            trainer.epoch();
        }
        let (users, items, biases) = trainer.finish();
        if !users
            .iter()
            .chain(&items)
            .chain(&biases)
            .all(|value| value.is_finite())
        {
            return Err(Error::Data(
                "the gradient descent diverged; a smaller learning_rate helps".into(),
            ));
        }
        Ok(Self {
            users,
            items,
            biases,
            learning_rate: params.learning_rate,
            regularization: params.regularization,
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

    /// Biases of the items: `[items]`.
    #[must_use]
    pub fn item_biases(&self) -> ArrayView1<'_, f32> {
        self.biases.view()
    }

    /// Length of a factor vector.
    #[must_use]
    pub fn factors(&self) -> usize {
        self.items.ncols()
    }

    /// Finds a user's vector from a history, with the items held fixed, into `user` (length [`Bpr::factors`]).
    ///
    /// Only positive weights count; unknown items do not. Without any the vector is zero, and the scores are the
    /// biases: popularity as the model sees it.
    pub fn fold_in_into(&self, history: &[HistoryItem], _scratch: &mut Scratch, user: &mut [f32]) {
        fold_in::solve(self, history, user);
    }

    /// The model as tensors: `users [users, factors]`, `items [items, factors]`, `biases [items]`, and
    /// `fold_in [2]` = learning rate, regularisation.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let fold_in = [self.learning_rate, self.regularization];
        let mut map = factors::store(&self.users, &self.items, fold_in);
        map.insert("biases", Tensor::f32s(self.biases.to_vec()));
        map
    }

    /// Rebuilds a model from its tensors.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed, or shapes or parameters do not fit together.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let Factors {
            users,
            items,
            fold_in: [learning_rate, regularization],
        } = factors::load(&mut tensors)?;
        let ([_], biases) = tensors.take_f32("biases")?;
        if biases.len() != items.nrows() {
            return Err(Error::Stored(format!(
                "{} biases of {} items",
                biases.len(),
                items.nrows()
            )));
        }
        let params = BprParams {
            factors: items.ncols(),
            learning_rate,
            regularization,
            ..BprParams::default()
        };
        params.check().map_err(|error| Error::Stored(error.to_string()))?;
        Ok(Self {
            users,
            items,
            biases: biases.into(),
            learning_rate,
            regularization,
        })
    }
}

impl Scorer for Bpr {
    fn name(&self) -> &'static str {
        "bpr"
    }

    fn items(&self) -> usize {
        self.items.nrows()
    }

    /// Folds the history in (see [`Bpr::fold_in_into`]) and writes bias plus inner product for every item.
    fn score_into(&self, history: &[HistoryItem], scratch: &mut Scratch, out: &mut [f32]) {
        let mut user = std::mem::take(&mut scratch.more_floats);
        user.clear();
        user.resize(self.factors(), 0.0);
        self.fold_in_into(history, scratch, &mut user);
        if let Some(items) = self.items.as_slice() {
            score_rows(items, &user, out);
            out.iter_mut()
                .zip(&self.biases)
                .for_each(|(score, bias)| *score += bias);
        }
        scratch.more_floats = user;
    }
}

#[cfg(test)]
mod tests;
