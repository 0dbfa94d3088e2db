//! The weighted sum of all sources, each first divided by its own spread over the items.

use serde::{Deserialize, Serialize};

use super::context::{Query, ScoreScratch};
use super::features::{COLUMNS, Column, PAIRWISE};
use crate::Error;

/// Weight of each source once scaled to unit spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlendWeights {
    /// In the order of the feature columns.
    pub weights: Vec<f32>,
    /// Weight of wanted genres, in spreads.
    pub genre_wish: f32,
}

impl Default for BlendWeights {
    fn default() -> Self {
        let mut weights = vec![0.0; COLUMNS];
        for (column, weight) in [
            (Column::After, 0.5),
            (Column::Next, 0.5),
            (Column::Before, 0.3),
            (Column::LikedAfter, 0.3),
            (Column::Ease, 0.5),
            (Column::EaseLong, 0.4),
            (Column::EaseLikes, 0.5),
            (Column::NextItem, 0.6),
            (Column::Likes1d, 0.1),
            (Column::Likes7d, 0.2),
            (Column::Likes30d, 0.2),
            (Column::Position, 0.3),
        ] {
            weights[column as usize] = weight;
        }
        Self {
            weights,
            genre_wish: 5.0,
        }
    }
}

impl BlendWeights {
    /// # Errors
    /// [`Error::Hyperparameter`] when there is not one finite weight per source.
    pub fn check(&self) -> Result<(), Error> {
        if self.weights.len() != COLUMNS || self.weights.iter().any(|weight| !weight.is_finite()) {
            return Err(Error::Hyperparameter {
                name: "blend.weights",
                value: format!("{:?}", self.weights),
                requirement: "one finite weight per source",
            });
        }
        Ok(())
    }

    pub(crate) fn only_pairwise(&self) -> Self {
        let mut only = self.clone();
        for (column, weight) in only.weights.iter_mut().enumerate() {
            if !PAIRWISE.contains(&column) {
                *weight = 0.0;
            }
        }
        only
    }

    /// Weight of a column for this context: without a history only popularity (and a genre wish) speaks.
    pub(crate) fn weight(&self, column: usize, query: &Query<'_>) -> f32 {
        if column == Column::Wish as usize {
            return if query.context.genres == 0 {
                0.0
            } else {
                self.genre_wish
            };
        }
        self.weights.get(column).copied().unwrap_or(0.0)
    }
}

/// Standard deviation of a column; 1 for a constant one, so that dividing by it is harmless.
pub(crate) fn spread(column: &[f32]) -> f32 {
    if column.is_empty() {
        return 1.0;
    }
    let count = column.len() as f32;
    let mean = column.iter().sum::<f32>() / count;
    let variance = column.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
    if variance > 1e-20 { variance.sqrt() } else { 1.0 }
}

/// Writes the blend of `scratch.columns` into `scratch.scores`.
pub(crate) fn blend(weights: &BlendWeights, query: &Query<'_>, scratch: &mut ScoreScratch) {
    scratch.scores.fill(0.0);
    for (column, values) in scratch.columns.iter().enumerate() {
        let weight = weights.weight(column, query);
        if weight == 0.0 {
            continue;
        }
        let factor = weight / spread(values);
        for (score, value) in scratch.scores.iter_mut().zip(values) {
            *score += factor * value;
        }
    }
}
