//! The batch models inside a served model, refitted as a whole.

pub(crate) mod core;
pub(crate) mod next_item;
pub(crate) mod weights;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use self::core::Core;
use self::weights::{ItemWeights, MAX_ITEMS};
use crate::checked::require;
use crate::ease::{Ease, EaseParams};
use crate::live::Interaction;
use crate::{Error, Interactions};

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
    /// Interactions that an item needs to take part; rarer ones are served by live terms alone.
    pub min_events: usize,
    /// Most items that take part, the most popular ones: fitting costs the cube of their number in time, and its square
    /// in memory (20 bytes a pair).
    pub max_items: usize,
    /// Weights kept per item and model, the strongest ones.
    pub weights_per_item: usize,
}

impl Default for GeneratorParams {
    fn default() -> Self {
        Self {
            ease_lambda: 200.0,
            ease_likes_lambda: 200.0,
            next_item_lambda: 1000.0,
            min_events: 5,
            max_items: 4096,
            weights_per_item: 512,
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
        require(
            (1..=MAX_ITEMS).contains(&self.max_items),
            "generators.max_items",
            self.max_items,
            "from 1 to 65536",
        )?;
        require(
            self.weights_per_item > 0,
            "generators.weights_per_item",
            self.weights_per_item,
            "at least one",
        )
    }
}

/// Batch-fitted candidate generators over the model's item space.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Generators {
    /// What the others are over.
    pub(crate) core: Core,
    /// EASE on every interaction.
    pub(crate) ease: Option<ItemWeights>,
    /// EASE on likes alone.
    pub(crate) ease_likes: Option<ItemWeights>,
    /// Linear next-item model.
    pub(crate) next_item: Option<ItemWeights>,
}

impl Generators {
    pub(crate) fn fit(
        interactions: &[Interaction],
        items: usize,
        params: &GeneratorParams,
    ) -> Result<Self, Error> {
        let core = Core::choose(interactions, items, params.min_events, params.max_items);
        if core.len() == 0 {
            return Ok(Self {
                core,
                ..Self::default()
            });
        }
        let events = core.keep(interactions);
        let (items, keep) = (core.len(), params.weights_per_item);
        let next_item = next_item::fit(&events, items, params.next_item_lambda)?;
        let ease = |only_likes: bool, lambda| {
            let chosen = events.iter().filter(|event| {
                if only_likes {
                    event.is_like()
                } else {
                    event.weight > 0.0
                }
            });
            fit_ease(chosen, items, lambda, keep)
        };
        Ok(Self {
            ease: ease(false, params.ease_lambda)?,
            ease_likes: ease(true, params.ease_likes_lambda)?,
            next_item: Some(ItemWeights::prune(next_item.chunks_exact(items), keep)),
            core,
        })
    }

    /// The models with their names in storage.
    pub(crate) fn parts(&self) -> [(&'static str, Option<&ItemWeights>); 3] {
        [
            ("ease", self.ease.as_ref()),
            ("ease-likes", self.ease_likes.as_ref()),
            ("next-item", self.next_item.as_ref()),
        ]
    }
}

fn fit_ease<'a>(
    events: impl Iterator<Item = &'a Interaction>,
    items: usize,
    lambda: f32,
    keep: usize,
) -> Result<Option<ItemWeights>, Error> {
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
    let ease = Ease::fit(&matrix, &params)?;
    let rows = ease.weights();
    let rows = rows.rows().into_iter().filter_map(|row| row.to_slice());
    Ok(Some(ItemWeights::prune(rows, keep)))
}
