//! Popularity: the score of an item is how often it was chosen, lately or ever.
//!
//! The same for everyone, so it serves users without a history and is the floor that any model must beat.

use crate::checked::require;
use crate::tensors::{Tensor, TensorMap};
use crate::{Checked, Error, HistoryItem, Interactions, Scorer, Scratch};

/// How fast old events fade.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecayParams {
    /// Time after which an event counts half, in milliseconds.
    pub half_life_ms: i64,
}

impl Default for DecayParams {
    /// Thirty days.
    fn default() -> Self {
        Self {
            half_life_ms: 30 * 24 * 3_600_000,
        }
    }
}

impl DecayParams {
    /// Checks the domain.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] unless the half-life is positive.
    pub fn check(self) -> Result<Checked<Self>, Error> {
        require(
            self.half_life_ms > 0,
            "half_life_ms",
            self.half_life_ms,
            "at least 1",
        )?;
        Ok(Checked::new(self))
    }
}

/// One score per item, whoever asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Popularity {
    scores: Vec<f32>,
}

impl Popularity {
    /// Sums each item's weights over all users.
    #[must_use]
    pub fn fit(interactions: &Interactions) -> Self {
        // In f64: a busy item's count must not stop growing where f32 runs out of integers.
        let mut sums = vec![0.0_f64; interactions.items()];
        let matrix = interactions.by_user();
        for (&item, &weight) in matrix.indices().iter().zip(matrix.data()) {
            sums[item as usize] += f64::from(weight);
        }
        Self::from_sums(&sums)
    }

    /// Counts events with weight `2^(-(as_of_ms - time_ms) / half_life_ms)`.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no item, an event names an item at or beyond `items`, or lies after `as_of_ms`
    /// (that would be a look into the future).
    pub fn fit_decayed(
        items: usize,
        events: &[(u32, i64)],
        as_of_ms: i64,
        params: &Checked<DecayParams>,
    ) -> Result<Self, Error> {
        if items == 0 {
            return Err(Error::Data("there are no items to rank".into()));
        }
        let mut sums = vec![0.0_f64; items];
        for &(item, time_ms) in events {
            let sum = sums
                .get_mut(item as usize)
                .ok_or_else(|| Error::Data(format!("event of item {item} lies outside {items} items")))?;
            if time_ms > as_of_ms {
                return Err(Error::Data(format!(
                    "event at {time_ms} ms lies after {as_of_ms} ms"
                )));
            }
            *sum += decay(as_of_ms.saturating_sub(time_ms), params.half_life_ms);
        }
        Ok(Self::from_sums(&sums))
    }

    fn from_sums(sums: &[f64]) -> Self {
        Self {
            scores: sums.iter().map(|&sum| sum as f32).collect(),
        }
    }

    /// The scores: `[items]`.
    #[must_use]
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The model as tensors: `scores [items]`.
    #[must_use]
    pub fn to_tensors(&self) -> TensorMap {
        let mut map = TensorMap::new();
        map.insert("scores", Tensor::f32s(self.scores.clone()));
        map
    }

    /// Rebuilds a model from its tensors.
    ///
    /// # Errors
    /// [`Error::Stored`] if a tensor is missing or malformed.
    pub fn from_tensors(mut tensors: TensorMap) -> Result<Self, Error> {
        let ([_], scores) = tensors.take_f32("scores")?;
        Ok(Self { scores })
    }
}

impl Scorer for Popularity {
    fn name(&self) -> &'static str {
        "popularity"
    }

    fn items(&self) -> usize {
        self.scores.len()
    }

    fn score_into(&self, _history: &[HistoryItem], _scratch: &mut Scratch, out: &mut [f32]) {
        out.copy_from_slice(&self.scores);
    }
}

/// What is left of 1 after `age_ms`.
fn decay(age_ms: i64, half_life_ms: i64) -> f64 {
    (-(age_ms as f64) / half_life_ms as f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_sums_of_weights() {
        let matrix = Interactions::from_triplets(2, 3, &[(0, 0, 1.0), (1, 0, 2.0), (1, 2, 0.5)]).unwrap();
        assert_eq!(Popularity::fit(&matrix).scores(), &[3.0, 0.0, 0.5]);
    }

    #[test]
    fn an_event_counts_half_after_a_half_life() {
        let params = DecayParams { half_life_ms: 100 }.check().unwrap();
        let model = Popularity::fit_decayed(2, &[(0, 1000), (0, 900), (1, 800)], 1000, &params).unwrap();
        assert_eq!(model.scores(), &[1.5, 0.25]);
    }

    #[test]
    fn future_events_and_unknown_items_are_refused() {
        let params = DecayParams { half_life_ms: 100 }.check().unwrap();
        assert!(matches!(
            Popularity::fit_decayed(2, &[(0, 11)], 10, &params),
            Err(Error::Data(_))
        ));
        assert!(matches!(
            Popularity::fit_decayed(2, &[(2, 1)], 10, &params),
            Err(Error::Data(_))
        ));
        assert!(matches!(
            Popularity::fit_decayed(0, &[], 10, &params),
            Err(Error::Data(_))
        ));
        let refused = DecayParams { half_life_ms: 0 }.check();
        assert!(matches!(
            refused,
            Err(Error::Hyperparameter {
                name: "half_life_ms",
                ..
            })
        ));
    }

    #[test]
    fn storage_keeps_the_model() {
        let model = Popularity {
            scores: vec![1.0, 2.0],
        };
        assert_eq!(Popularity::from_tensors(model.to_tensors()).unwrap(), model);
        assert!(matches!(
            Popularity::from_tensors(TensorMap::new()),
            Err(Error::Stored(_))
        ));
    }
}
