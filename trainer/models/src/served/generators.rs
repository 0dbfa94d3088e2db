//! The batch models inside a served model, refitted as a whole.

pub(crate) mod next_item;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::ServedParams;
use crate::ease::{Ease, EaseParams};
use crate::live::Interaction;
use crate::{Error, Interactions};
use next_item::NextItem;

/// Unchecked settings of the batch generators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneratorParams {
    /// Penalty of EASE on every interaction.
    pub ease_lambda: f32,
    /// Penalty of EASE on likes.
    pub ease_likes_lambda: f32,
    /// Penalty of the linear next-item model.
    pub next_item_lambda: f32,
}

impl Default for GeneratorParams {
    fn default() -> Self {
        Self {
            ease_lambda: 200.0,
            ease_likes_lambda: 200.0,
            next_item_lambda: 1000.0,
        }
    }
}

impl GeneratorParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        for lambda in [self.ease_lambda, self.ease_likes_lambda, self.next_item_lambda] {
            EaseParams { lambda }.check()?;
        }
        Ok(())
    }
}

/// Batch-fitted candidate generators over the model's item space.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Generators {
    /// EASE on every interaction.
    pub(crate) ease: Option<Ease>,
    /// EASE on likes alone.
    pub(crate) ease_likes: Option<Ease>,
    /// Linear next-item model.
    pub(crate) next_item: Option<NextItem>,
}

impl Generators {
    pub(crate) fn fit(
        interactions: &[Interaction],
        items: usize,
        params: &ServedParams,
    ) -> Result<Self, Error> {
        Ok(Self {
            ease: fit_ease(
                interactions.iter().filter(|event| event.weight > 0.0),
                items,
                params.generators.ease_lambda,
            )?,
            ease_likes: fit_ease(
                interactions.iter().filter(|event| event.is_like()),
                items,
                params.generators.ease_likes_lambda,
            )?,
            next_item: Some(NextItem::fit(
                interactions,
                items,
                params.generators.next_item_lambda,
            )?),
        })
    }
}

fn fit_ease<'a>(
    events: impl Iterator<Item = &'a Interaction>,
    items: usize,
    lambda: f32,
) -> Result<Option<Ease>, Error> {
    let pairs: HashSet<(u32, u32)> = events.map(|event| (event.user, event.item)).collect();
    if pairs.is_empty() {
        return Ok(None);
    }
    let users = pairs
        .iter()
        .map(|&(user, _)| user as usize + 1)
        .max()
        .unwrap_or(0);
    let mut triplets: Vec<(u32, u32, f32)> =
        pairs.into_iter().map(|(user, item)| (user, item, 1.0)).collect();
    triplets.sort_unstable_by_key(|&(user, item, _)| (user, item));
    let matrix = Interactions::from_triplets(users, items, &triplets)?;
    let params = EaseParams { lambda }.check()?;
    Ease::fit(&matrix, &params).map(Some)
}
