//! The weighted sum of all sources, each first divided by its own spread over the items.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::context::{Query, ScoreScratch};
use super::features::{Column, NAMES};
use crate::Error;
use crate::checked::require;
use crate::kernels::widest;

/// Weight of each source once scaled to unit spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlendWeights {
    /// By the name of the source; a source that is not listed weighs nothing.
    pub weights: BTreeMap<String, f32>,
    /// Weight of wanted genres, in spreads.
    pub genre_wish: f32,
}

impl Default for BlendWeights {
    fn default() -> Self {
        let weights = [
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
        ];
        Self {
            weights: weights
                .into_iter()
                .map(|(column, weight)| (NAMES[column as usize].to_owned(), weight))
                .collect(),
            genre_wish: 5.0,
        }
    }
}

impl BlendWeights {
    /// # Errors
    /// [`Error::Hyperparameter`] for a source that does not exist or a weight that is not finite.
    pub fn check(&self) -> Result<(), Error> {
        require(
            self.genre_wish.is_finite(),
            "blend.genre_wish",
            self.genre_wish,
            "finite",
        )?;
        for (name, weight) in &self.weights {
            require(
                NAMES.contains(&name.as_str()) && weight.is_finite(),
                "blend.weights",
                format!("{name} = {weight}"),
                "a finite weight of an existing source",
            )?;
        }
        Ok(())
    }

    /// Weight of a column; wanted genres weigh only where some are wanted.
    pub(crate) fn weight(&self, column: usize, query: &Query<'_>) -> f32 {
        if column == Column::Wish as usize {
            return if query.context.genres == 0 {
                0.0
            } else {
                self.genre_wish
            };
        }
        self.weights.get(NAMES[column]).copied().unwrap_or(0.0)
    }
}

/// Standard deviation of a column; 1 for a constant one, so that dividing by it is harmless.
pub(crate) fn spread(variance: f32) -> f32 {
    if variance > NO_VARIANCE {
        variance.sqrt()
    } else {
        1.0
    }
}

/// Below this a column counts as constant.
pub(crate) const NO_VARIANCE: f32 = 1e-20;

/// Writes the blend of the columns in `of` into `scratch.scores`.
pub(crate) fn blend(weights: &BlendWeights, of: Range<usize>, query: &Query<'_>, scratch: &mut ScoreScratch) {
    scratch.scores.fill(0.0);
    scratch.mean_score = 0.0;
    for (column, values) in scratch.columns.iter().enumerate().take(of.end).skip(of.start) {
        let weight = weights.weight(column, query);
        if weight == 0.0 {
            continue;
        }
        let (mean, variance) = scratch.moments[column];
        let factor = weight / spread(variance);
        scratch.mean_score += factor * mean;
        let scores = &mut scratch.scores;
        widest(
            #[inline(always)]
            || {
                for (score, value) in scores.iter_mut().zip(values) {
                    *score += factor * value;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::moments;

    #[test]
    fn the_spread_is_the_standard_deviation_and_harmless_for_constants() {
        let of = |column: &[f32]| spread(moments(column).1);
        assert_eq!(of(&[1.0, 3.0]), 1.0);
        assert_eq!(of(&[0.0, 4.0]), 2.0);
        assert_eq!((of(&[5.0; 4]), of(&[])), (1.0, 1.0));
    }

    #[test]
    fn unknown_sources_and_wild_weights_are_refused_by_name() {
        let mut weights = BlendWeights::default();
        assert!(weights.check().is_ok());
        weights.weights.insert("astrology".to_owned(), 1.0);
        assert!(weights.check().unwrap_err().to_string().contains("astrology"));
        let wild = BlendWeights {
            genre_wish: f32::NAN,
            ..BlendWeights::default()
        };
        assert!(wild.check().is_err());
    }
}
