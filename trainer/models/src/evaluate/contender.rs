//! Who competes: the served model, parts of it, and the single generators.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::als::{Als, AlsParams};
use crate::bpr::{Bpr, BprParams};
use crate::cosine::{Cosine, CosineParams};
use crate::ease::{Ease, EaseParams};
use crate::live::Interaction;
use crate::served::features::Column;
use crate::served::{Binding, Catalogue, Query, ScoreScratch, ServedModel, ServedParams};
use crate::{Error, HistoryItem, Interactions, Scorer};

/// A competitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelName {
    /// What the product serves.
    Served,
    /// The served model without its ranker.
    Blend,
    /// Likes decayed by a half-life of 30 days, streaming.
    Popularity,
    /// The same with 7 days.
    Popularity7d,
    /// Streaming item-to-item transitions.
    Transitions,
    /// The linear next-item model inside the served one.
    NextItem,
    /// EASE on likes, likes folded in as they arrive.
    Ease,
    /// ALS, likewise.
    Als,
    /// BPR, likewise.
    Bpr,
    /// Item-item cosine, likewise.
    Cosine,
}

impl ModelName {
    /// Everyone, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Served,
        Self::Blend,
        Self::Transitions,
        Self::NextItem,
        Self::Ease,
        Self::Als,
        Self::Bpr,
        Self::Cosine,
        Self::Popularity7d,
        Self::Popularity,
    ];

    /// As on the command line and in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Blend => "blend",
            Self::Popularity => "popularity",
            Self::Popularity7d => "popularity-7d",
            Self::Transitions => "transitions",
            Self::NextItem => "next-item",
            Self::Ease => "ease",
            Self::Als => "als",
            Self::Bpr => "bpr",
            Self::Cosine => "cosine",
        }
    }

    fn column(self) -> Option<Column> {
        match self {
            Self::Popularity => Some(Column::Likes30d),
            Self::Popularity7d => Some(Column::Likes7d),
            Self::Transitions => Some(Column::After),
            Self::NextItem => Some(Column::NextItem),
            _ => None,
        }
    }

    fn needs_served(self) -> bool {
        matches!(self, Self::Served | Self::Blend | Self::NextItem)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|model| model.name() == name)
            .ok_or_else(|| Error::Hyperparameter {
                name: "models",
                value: name.to_owned(),
                requirement: "one of served, blend, transitions, next-item, ease, als, bpr, cosine, popularity-7d, \
                              popularity",
            })
    }
}

/// Fold-in weight lost per step back for the single generators (the anchor figures' own).
const FOLD_DECAY: f32 = 0.9;
/// Newest likes folded in.
const FOLDED: usize = 100;

/// All competitors, fitted on one prefix of the stream.
pub(super) struct Contenders {
    served: ServedModel,
    binding: Binding,
    scorers: Vec<(ModelName, Box<dyn Scorer>)>,
    scratch: ScoreScratch,
    fold: Vec<HistoryItem>,
    generator: crate::Scratch,
    scores: Vec<f32>,
}

impl Contenders {
    pub(super) fn fit(
        prefix: &[Interaction],
        catalogue: &Catalogue,
        models: &[ModelName],
        params: &ServedParams,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut params = params.clone();
        if !models.contains(&ModelName::Served) {
            // Nobody will ask for the ranker.
            params.fit.warm_up = usize::MAX;
        }
        let fitted = if models.iter().any(|model| model.needs_served()) {
            prefix
        } else {
            &prefix[..prefix.len().min(1)]
        };
        let served = ServedModel::fit(fitted, catalogue, &params, seed)?;
        let mut scorers: Vec<(ModelName, Box<dyn Scorer>)> = Vec::new();
        for &model in models {
            if let Some(scorer) = fit_scorer(model, prefix, catalogue.len())? {
                scorers.push((model, scorer));
            }
        }
        Ok(Self {
            binding: served.bind_catalogue(catalogue),
            served,
            scorers,
            scratch: ScoreScratch::new(),
            fold: Vec::new(),
            generator: crate::Scratch::default(),
            scores: Vec::new(),
        })
    }

    pub(super) fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Scores of every item by `model`.
    pub(super) fn score(&mut self, model: ModelName, query: &Query<'_>) -> &[f32] {
        let query = Query {
            binding: &self.binding,
            ..*query
        };
        if model == ModelName::Served {
            return self.served.score_all(&query, &mut self.scratch);
        }
        if model == ModelName::Blend {
            return self.served.blend_all(&query, &mut self.scratch);
        }
        if let Some(column) = model.column() {
            return self.served.column_all(column, &query, &mut self.scratch);
        }
        self.scores.clear();
        self.scores.resize(query.binding.len(), 0.0);
        if let Some((_, scorer)) = self.scorers.iter().find(|(name, _)| *name == model) {
            self.fold.clear();
            let mut weight = 1.0;
            for entry in query
                .context
                .history
                .iter()
                .rev()
                .filter(|entry| entry.is_like())
                .take(FOLDED)
            {
                self.fold.push(HistoryItem {
                    item: entry.item,
                    weight,
                });
                weight *= FOLD_DECAY;
            }
            self.fold.reverse();
            scorer.score_into(&self.fold, &mut self.generator, &mut self.scores);
        }
        &self.scores
    }
}

fn fit_scorer(
    model: ModelName,
    prefix: &[Interaction],
    items: usize,
) -> Result<Option<Box<dyn Scorer>>, Error> {
    if !matches!(
        model,
        ModelName::Ease | ModelName::Als | ModelName::Bpr | ModelName::Cosine
    ) {
        return Ok(None);
    }
    let pairs: BTreeSet<(u32, u32)> = prefix
        .iter()
        .filter(|event| event.is_like())
        .map(|event| (event.user, event.item))
        .collect();
    let users = pairs.last().map_or(0, |&(user, _)| user as usize + 1);
    let triplets: Vec<(u32, u32, f32)> = pairs.into_iter().map(|(user, item)| (user, item, 1.0)).collect();
    let likes = Interactions::from_triplets(users, items, &triplets)?;
    Ok(Some(match model {
        ModelName::Als => Box::new(Als::fit(&likes, &AlsParams::default().check()?)?),
        ModelName::Bpr => Box::new(Bpr::fit(&likes, &BprParams::default().check()?)?),
        ModelName::Cosine => Box::new(Cosine::fit(&likes, &CosineParams::default().check()?)?),
        _ => Box::new(Ease::fit(&likes, &EaseParams::default().check()?)?),
    }))
}
