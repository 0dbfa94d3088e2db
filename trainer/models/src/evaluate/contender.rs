//! Who competes: the served model, parts of it, the single generators, and the rating baseline.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::als::{Als, AlsParams};
use crate::biases::{Biases, BiasesParams};
use crate::bpr::{Bpr, BprParams};
use crate::cosine::{Cosine, CosineParams};
use crate::ease::{Ease, EaseParams};
use crate::live::Interaction;
use crate::served::features::Column;
use crate::served::{Binding, Catalogue, Fitter, Query, ScoreScratch, ServedModel, ServedParams};
use crate::{Error, HistoryItem, Interactions, Scorer};

macro_rules! models {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// A competitor.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ModelName { $($(#[$doc])* $name,)* }

        impl ModelName {
            /// Everyone, in the order of reports.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As on the command line and in results.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }

        /// What a name that is not known is answered with.
        const EXPECTED: &str = concat!("one of", $(" ", $label,)*);
    };
}

models! {
    /// What the product serves.
    Served = "served",
    /// The served model without its ranker.
    Blend = "blend",
    /// Streaming item-to-item transitions.
    Transitions = "transitions",
    /// Streaming neighbours: what people alike met next.
    Alike = "alike",
    /// The linear next-item model inside the served one.
    NextItem = "next-item",
    /// EASE on likes, likes folded in as they arrive.
    Ease = "ease",
    /// ALS, likewise.
    Als = "als",
    /// BPR, likewise.
    Bpr = "bpr",
    /// Item-item cosine, likewise.
    Cosine = "cosine",
    /// Likes decayed by a half-life of 7 days, streaming.
    Popularity7d = "popularity-7d",
    /// The same with 30 days.
    Popularity = "popularity",
    /// The rating baseline: ranks by expected stars, and is judged by its rating errors too.
    Biases = "biases",
}

impl ModelName {
    /// Whether it can be judged on pairs that have neither time nor rating.
    #[must_use]
    pub fn needs_time(self) -> bool {
        !matches!(self, Self::Ease | Self::Als | Self::Bpr | Self::Cosine)
    }

    /// The source it consists of, where it is one of the served model's.
    fn column(self) -> Option<Column> {
        match self {
            Self::Popularity => Some(Column::Likes30d),
            Self::Popularity7d => Some(Column::Likes7d),
            Self::Transitions => Some(Column::After),
            Self::Alike => Some(Column::AlikeNext),
            Self::NextItem => Some(Column::NextItem),
            _ => None,
        }
    }

    /// Whether all it needs is the live state.
    fn is_live_alone(self) -> bool {
        self.column().is_some() && self != Self::NextItem
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
            .iter()
            .copied()
            .find(|model| model.name() == name)
            .ok_or_else(|| Error::Hyperparameter {
                name: "models",
                value: name.to_owned(),
                requirement: EXPECTED,
            })
    }
}

/// Fold-in weight lost per step back for the single generators (the anchor figures' own).
const FOLD_DECAY: f32 = 0.9;
/// Newest likes folded in.
const FOLDED: usize = 100;

enum Fitted {
    Served(Box<ServedModel>),
    Scorer(Box<dyn Scorer>),
    Biases(Biases),
}

/// One competitor, refitted as the stream goes on.
pub(super) struct Contender {
    model: ModelName,
    fitter: Fitter,
    fitted: Option<Fitted>,
    binding: Binding,
    scratch: ScoreScratch,
    fold: Vec<HistoryItem>,
    generator: crate::Scratch,
    scores: Vec<f32>,
}

impl Contender {
    pub(super) fn new(model: ModelName, params: &ServedParams, seed: u64) -> Result<Self, Error> {
        let mut params = params.clone();
        if model != ModelName::Served {
            // Nobody will ask for the ranker.
            params.fit.window = 0;
        }
        let nothing = Catalogue::default();
        Ok(Self {
            model,
            fitter: Fitter::new(&params, seed)?,
            fitted: None,
            binding: Binding::new(&nothing, &[], None),
            scratch: ScoreScratch::new(),
            fold: Vec::new(),
            generator: crate::Scratch::default(),
            scores: Vec::new(),
        })
    }

    /// Fits on what has been revealed, in place of any earlier fit.
    pub(super) fn fit(&mut self, prefix: &[Interaction], catalogue: &Catalogue) -> Result<(), Error> {
        self.binding = Binding::new(catalogue, &catalogue.external_ids(), Some(catalogue));
        self.fitted = Some(match self.model {
            ModelName::Ease | ModelName::Als | ModelName::Bpr | ModelName::Cosine => {
                Fitted::Scorer(fit_scorer(self.model, &likes(prefix, catalogue.len())?)?)
            }
            ModelName::Biases => {
                let ratings: Vec<_> = prefix
                    .iter()
                    .filter_map(|event| Some((event.user, event.item, event.rating?)))
                    .collect();
                let params = BiasesParams::default().check()?;
                Fitted::Biases(Biases::fit(&ratings, catalogue.len(), &params)?)
            }
            _ => {
                // A live source needs no fit: of one event no generator can be made.
                let prefix = if self.model.is_live_alone() {
                    &prefix[..prefix.len().min(1)]
                } else {
                    prefix
                };
                Fitted::Served(Box::new(self.fitter.fit(prefix, catalogue)?))
            }
        });
        Ok(())
    }

    pub(super) fn binding(&self) -> Binding {
        self.binding.clone()
    }

    /// Scores of every item; zeros before the first fit.
    pub(super) fn score(&mut self, query: &Query<'_>) -> &[f32] {
        let query = Query {
            binding: &self.binding,
            ..*query
        };
        self.scores.clear();
        self.scores.resize(query.binding.len(), 0.0);
        match &self.fitted {
            Some(Fitted::Served(served)) => match (self.model, self.model.column()) {
                (_, Some(column)) => served.column_all(column, &query, &mut self.scratch),
                (ModelName::Blend, _) => served.blend_all(&query, &mut self.scratch),
                _ => served.score_all(&query, &mut self.scratch),
            },
            Some(Fitted::Scorer(scorer)) => {
                fold_likes(&query, &mut self.fold);
                scorer.score_into(&self.fold, &mut self.generator, &mut self.scores);
                &self.scores
            }
            Some(Fitted::Biases(biases)) => {
                let user = user_bias(biases, &query);
                for (item, score) in (0_u32..).zip(&mut self.scores) {
                    *score = biases.predict(user, item);
                }
                &self.scores
            }
            None => &self.scores,
        }
    }

    /// The stars expected for `item`, where the model predicts any.
    pub(super) fn stars(&self, query: &Query<'_>, item: u32) -> Option<f64> {
        match &self.fitted {
            Some(Fitted::Biases(biases)) => {
                let stars = biases.predict(user_bias(biases, query), item);
                Some(f64::from(stars.clamp(0.5, 5.0)))
            }
            _ => None,
        }
    }
}

fn user_bias(biases: &Biases, query: &Query<'_>) -> f32 {
    let history = query.context.history.iter();
    biases.fold_in(history.filter_map(|entry| Some((entry.item, entry.rating?))))
}

/// The newest likes of the history, oldest first, each step back weighing less.
fn fold_likes(query: &Query<'_>, fold: &mut Vec<HistoryItem>) {
    fold.clear();
    let newest = query.context.history.iter().rev();
    let mut weight = 1.0;
    for entry in newest.filter(|entry| entry.is_like()).take(FOLDED) {
        fold.push(HistoryItem {
            item: entry.item,
            weight,
        });
        weight *= FOLD_DECAY;
    }
    fold.reverse();
}

fn likes(prefix: &[Interaction], items: usize) -> Result<Interactions, Error> {
    let pairs: BTreeSet<(u32, u32)> = prefix
        .iter()
        .filter(|event| event.is_like())
        .map(|event| (event.user, event.item))
        .collect();
    let users = pairs.last().map_or(0, |&(user, _)| user as usize + 1);
    let triplets: Vec<(u32, u32, f32)> = pairs.into_iter().map(|(user, item)| (user, item, 1.0)).collect();
    Interactions::from_triplets(users, items, &triplets)
}

fn fit_scorer(model: ModelName, likes: &Interactions) -> Result<Box<dyn Scorer>, Error> {
    Ok(match model {
        ModelName::Als => Box::new(Als::fit(likes, &AlsParams::default().check()?)?),
        ModelName::Bpr => Box::new(Bpr::fit(likes, &BprParams::default().check()?)?),
        ModelName::Cosine => Box::new(Cosine::fit(likes, &CosineParams::default().check()?)?),
        _ => Box::new(Ease::fit(likes, &EaseParams::default().check()?)?),
    })
}

/// A single generator at the settings of the literature's ml-1m figures (section 4 of the protocol): ALS with 64 factors,
/// 15 iterations, λ = 1, α = 10; EASE with λ = 500; plain cosine with every neighbour; BPR as in its paper.
pub(super) fn fit_reference(model: ModelName, pairs: &Interactions) -> Result<Box<dyn Scorer>, Error> {
    Ok(match model {
        ModelName::Ease => Box::new(Ease::fit(pairs, &EaseParams { lambda: 500.0 }.check()?)?),
        ModelName::Cosine => {
            let params = CosineParams {
                neighbours: pairs.items(),
                shrinkage: 0.0,
            };
            Box::new(Cosine::fit(pairs, &params.check()?)?)
        }
        _ => fit_scorer(model, pairs)?,
    })
}
