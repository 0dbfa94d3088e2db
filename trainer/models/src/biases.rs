//! Predicting stars from how generous a user and how well liked a movie is: the baseline of every rating prediction.
//!
//! `r̂ = μ + b_u + b_i` with ridge-regularised biases (Koren, "Factor in the neighbors: scalable and accurate
//! collaborative filtering", TKDD 2010, §2.1), solved by alternating exact half-steps.

use crate::checked::require;
use crate::tensors::{Tensor, TensorMap};
use crate::{Checked, Error};

/// One rating: dense user, dense item, stars.
pub type Rating = (u32, u32, f32);

/// Hyperparameters of [`Biases`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasesParams {
    /// L2 penalty on a user's bias, in ratings.
    pub user_regularization: f64,
    /// L2 penalty on an item's bias, in ratings.
    pub item_regularization: f64,
    /// Alternations between users and items.
    pub iterations: usize,
}

impl Default for BiasesParams {
    fn default() -> Self {
        Self {
            user_regularization: 5.0,
            item_regularization: 5.0,
            iterations: 10,
        }
    }
}

impl BiasesParams {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] if a penalty is negative or not finite, or there is no iteration.
    pub fn check(self) -> Result<Checked<Self>, Error> {
        for (name, penalty) in [
            ("user_regularization", self.user_regularization),
            ("item_regularization", self.item_regularization),
        ] {
            require(
                penalty.is_finite() && penalty >= 0.0,
                name,
                penalty,
                "finite and not negative",
            )?;
        }
        require(self.iterations > 0, "iterations", self.iterations, "at least 1")?;
        Ok(Checked::new(self))
    }
}

/// The mean of all ratings and each item's bias. A user's bias is folded in from the user's ratings.
#[derive(Debug, Clone, PartialEq)]
pub struct Biases {
    mean: f32,
    items: Vec<f32>,
    user_regularization: f64,
}

impl Biases {
    /// Alternates between all users' and all items' biases. An item without ratings has none.
    ///
    /// # Errors
    /// [`Error::Data`] without a rating, with one that is not finite, or with an item outside `0..items`.
    pub fn fit(ratings: &[Rating], items: usize, params: &Checked<BiasesParams>) -> Result<Self, Error> {
        if ratings.is_empty() {
            return Err(Error::Data("there is no rating to learn from".into()));
        }
        for &(user, item, stars) in ratings {
            if !stars.is_finite() {
                return Err(Error::Data(format!(
                    "user {user} gave item {item} a rating that is not finite"
                )));
            }
            if item as usize >= items {
                return Err(Error::Data(format!("item {item} lies outside {items} items")));
            }
        }
        let users = ratings
            .iter()
            .map(|&(user, ..)| user as usize + 1)
            .max()
            .unwrap_or(0);
        let mean = ratings.iter().map(|&(.., stars)| f64::from(stars)).sum::<f64>() / ratings.len() as f64;
        let mut user_biases = vec![0.0_f64; users];
        let mut item_biases = vec![0.0_f64; items];
        for _ in 0..params.iterations {
            let residuals = ratings.iter().map(|&(user, item, stars)| {
                (
                    item as usize,
                    f64::from(stars) - mean - user_biases[user as usize],
                )
            });
            item_biases = half_step(residuals, items, params.item_regularization);
            let residuals = ratings.iter().map(|&(user, item, stars)| {
                (
                    user as usize,
                    f64::from(stars) - mean - item_biases[item as usize],
                )
            });
            user_biases = half_step(residuals, users, params.user_regularization);
        }
        Ok(Self {
            mean: mean as f32,
            items: item_biases.into_iter().map(|bias| bias as f32).collect(),
            user_regularization: params.user_regularization,
        })
    }

    /// Mean of all ratings, stars.
    #[must_use]
    pub fn mean(&self) -> f32 {
        self.mean
    }

    /// Bias of each item, stars.
    #[must_use]
    pub fn items(&self) -> &[f32] {
        &self.items
    }

    /// The bias of a user who gave these ratings (item, stars); 0 without any. Unknown items have no bias of their own.
    #[must_use]
    pub fn fold_in(&self, ratings: impl IntoIterator<Item = (u32, f32)>) -> f32 {
        let residuals = ratings
            .into_iter()
            .map(|(item, stars)| (0, f64::from(stars - self.predict(0.0, item))));
        half_step(residuals, 1, self.user_regularization)[0] as f32
    }

    /// Stars expected of a user with this bias for an item, not clamped to the scale.
    #[must_use]
    pub fn predict(&self, user_bias: f32, item: u32) -> f32 {
        self.mean + user_bias + self.items.get(item as usize).copied().unwrap_or(0.0)
    }

    /// The model as tensors: `items [items]`, and `fold_in [2]` = mean, penalty on a user's bias.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let mut map = TensorMap::new();
        map.insert("items", Tensor::f32s(self.items.clone()));
        map.insert(
            "fold_in",
            Tensor::f32s(vec![self.mean, self.user_regularization as f32]),
        );
        map
    }

    /// Rebuilds a model from its tensors.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed, or the penalty is negative.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let (_, items) = tensors.take_f32::<1>("items")?;
        let (_, fold_in) = tensors.take_f32::<1>("fold_in")?;
        match fold_in[..] {
            [mean, penalty] if penalty >= 0.0 => Ok(Self {
                mean,
                items,
                user_regularization: f64::from(penalty),
            }),
            _ => Err(Error::Stored(format!(
                "fold_in holds {fold_in:?}, expected a mean and a penalty"
            ))),
        }
    }
}

/// The ridge solution of each row from its residuals: their sum ÷ (their number + penalty).
fn half_step(residuals: impl Iterator<Item = (usize, f64)>, rows: usize, penalty: f64) -> Vec<f64> {
    let mut sums = vec![(0.0_f64, 0.0_f64); rows];
    for (row, residual) in residuals {
        sums[row].0 += residual;
        sums[row].1 += 1.0;
    }
    sums.into_iter()
        .map(|(sum, count)| if count > 0.0 { sum / (count + penalty) } else { 0.0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(penalty: f64, iterations: usize) -> Checked<BiasesParams> {
        BiasesParams {
            user_regularization: penalty,
            item_regularization: penalty,
            iterations,
        }
        .check()
        .unwrap()
    }

    /// Two users a star apart, two items two stars apart: mean 3, biases ±0.5 and ±1.
    const ADDITIVE: [Rating; 4] = [(0, 0, 3.5), (0, 1, 1.5), (1, 0, 4.5), (1, 1, 2.5)];

    #[test]
    fn additive_ratings_are_explained_without_rest() {
        let model = Biases::fit(&ADDITIVE, 2, &params(0.0, 5)).unwrap();
        assert_eq!((model.mean(), model.items()), (3.0, &[1.0, -1.0][..]));
        let generous = model.fold_in([(0, 4.5), (1, 2.5)]);
        assert_eq!((generous, model.predict(generous, 0)), (0.5, 4.5));
    }

    #[test]
    fn the_penalty_shrinks_what_few_ratings_say() {
        let model = Biases::fit(&ADDITIVE, 2, &params(2.0, 1)).unwrap();
        // Residuals 0.5 + 1.5 over 2 + 2.
        assert_eq!(model.items(), [0.5, -0.5]);
        // (5 - 3.5) / (1 + 2), and nothing without a rating.
        assert_eq!(model.fold_in([(0, 5.0)]), 0.5);
        assert_eq!(model.fold_in([]), 0.0);
    }

    #[test]
    fn unknown_items_get_the_mean() {
        let model = Biases::fit(&ADDITIVE, 3, &params(1.0, 3)).unwrap();
        assert_eq!((model.predict(0.0, 2), model.predict(0.0, 99)), (3.0, 3.0));
    }

    #[test]
    fn what_cannot_be_learned_from_is_refused_by_name() {
        let refused = |ratings: &[Rating]| Biases::fit(ratings, 2, &params(1.0, 1)).unwrap_err().to_string();
        assert!(refused(&[]).contains("no rating"));
        assert!(refused(&[(0, 0, f32::NAN)]).contains("not finite"));
        assert!(refused(&[(0, 2, 1.0)]).contains("outside"));
        let wild = BiasesParams {
            user_regularization: -1.0,
            ..BiasesParams::default()
        };
        assert!(
            wild.check()
                .unwrap_err()
                .to_string()
                .contains("user_regularization")
        );
    }

    #[test]
    fn storage_keeps_the_model_and_refuses_damage() {
        let model = Biases::fit(&ADDITIVE, 2, &params(2.0, 2)).unwrap();
        assert_eq!(Biases::from_tensors(model.to_tensors()).unwrap(), model);
        let mut damaged = model.to_tensors();
        damaged.insert("fold_in", Tensor::f32s(vec![3.0]));
        assert!(matches!(Biases::from_tensors(damaged), Err(Error::Stored(_))));
    }
}
