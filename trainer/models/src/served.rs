//! The model that serves: generators and live terms, blended into one score per item, re-ordered by a learned ranker
//! where that proved better.
//!
//! [`ServedModel::fit`] learns from a time-ordered stream. The result is immutable, carries its own external item
//! ids, and is stored with [`ServedModel::to_bytes`]. To serve, it is [bound](ServedModel::bind) to the dense indices
//! of a [`LiveState`] and answers a [`Query`]: a [`Context`] (a user's history, seed items, wanted genres) at a moment
//! in event time. Items the model never saw are scored by their live terms alone.
//!
//! Scoring is one pass: [`features`] fills a column of numbers per *source* over all items; the [`blend`] is their
//! weighted sum after each column is divided by its spread; the best candidates of the blend are re-ordered by the
//! ranker. Evaluation and serving call the same functions.

pub mod blend;
pub mod bundle;
pub mod catalogue;
pub mod context;
pub mod explain;
pub mod features;
pub mod fit;
mod generators;
mod rerank;

use serde::{Deserialize, Serialize};

pub use blend::BlendWeights;
pub use catalogue::{Binding, Catalogue, CatalogueItem};
pub use context::{Context, Fallback, Query, Recommendations, Recommended, ScoreScratch};
pub use explain::{Explanation, Reason, Term};
pub use fit::{FitParams, Fitter};
pub use generators::GeneratorParams;

use crate::Error;
use crate::live::{Interaction, LiveParams, LiveState};
use crate::ranker::{Ranker, RankerParams, Verdict};
use generators::Generators;

/// Unchecked settings of a [`ServedModel`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServedParams {
    /// Settings of the live state that the model is trained against; serve with the same ones.
    pub live: LiveParams,
    /// Weights of the blend.
    pub blend: BlendWeights,
    /// The batch generators.
    pub generators: GeneratorParams,
    /// The ranker's training lists.
    pub fit: FitParams,
    /// The ranker.
    pub ranker: RankerParams,
}

impl ServedParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        self.live.check()?;
        self.blend.check()?;
        self.generators.check()?;
        self.fit.check()?;
        self.ranker.check()
    }
}

/// A fitted, immutable model. See the [module](self).
#[derive(Debug, Clone, PartialEq)]
pub struct ServedModel {
    params: ServedParams,
    seed: u64,
    catalogue: Catalogue,
    generators: Generators,
    ranker: Option<Ranker>,
    verdict: Option<Verdict>,
    trained_on: u64,
    trained_until_ms: i64,
}

impl ServedModel {
    /// Learns from `interactions`, which must be ordered by time; `catalogue` describes items `0..catalogue.len()`.
    /// For one model after the other on a growing stream, keep a [`Fitter`].
    ///
    /// # Errors
    /// [`Error::Data`] without interactions, out of time order, with a rating or weight that is not finite, or with
    /// an item beyond the catalogue; [`Error::Hyperparameter`] for settings out of their domain.
    pub fn fit(
        interactions: &[Interaction],
        catalogue: &Catalogue,
        params: &ServedParams,
        seed: u64,
    ) -> Result<Self, Error> {
        Fitter::new(params, seed)?.fit(interactions, catalogue)
    }

    /// The settings it was fitted with.
    #[must_use]
    pub fn params(&self) -> &ServedParams {
        &self.params
    }

    /// What the held-out newest lists said of the ranker; `None` when there were too few to try one.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Whether a ranker orders the candidates.
    #[must_use]
    pub fn has_ranker(&self) -> bool {
        self.ranker.is_some()
    }

    /// The same model without its ranker.
    #[must_use]
    pub fn without_ranker(mut self) -> Self {
        self.ranker = None;
        self
    }

    /// The items it knows.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Number of interactions it was fitted on.
    #[must_use]
    pub fn trained_on(&self) -> u64 {
        self.trained_on
    }

    /// Event time of the newest interaction it was fitted on, milliseconds.
    #[must_use]
    pub fn trained_until_ms(&self) -> i64 {
        self.trained_until_ms
    }

    /// Maps live dense indices (position in `live_item_ids`, which holds external ids) to this model's items. Bind
    /// again when new items appeared; until then they are not scored.
    #[must_use]
    pub fn bind(&self, live_item_ids: &[u32]) -> Binding {
        Binding::new(&self.catalogue, live_item_ids, None)
    }

    /// As [`Self::bind`], with the present catalogue in live index order, so that movies which appeared after the
    /// fit have their year and genres too.
    #[must_use]
    pub fn bind_catalogue(&self, live: &Catalogue) -> Binding {
        Binding::new(&self.catalogue, &live.external_ids(), Some(live))
    }

    /// Scores every bound item for `query`; higher is better, seen items are not masked. The slice has
    /// the length of the binding and lives in `scratch`, whose [`ScoreScratch::fallback`] tells whether the answer
    /// is personal. Does not allocate once `scratch` has grown.
    pub fn score_all<'s>(&self, query: &Query<'_>, scratch: &'s mut ScoreScratch) -> &'s [f32] {
        self.blend_all(query, scratch);
        if let Some(ranker) = self.ranker_for(query) {
            scratch.select_unseen(self.params.fit.candidates, &query.context);
            rerank::rerank(ranker, query, scratch);
        }
        &scratch.scores
    }

    /// As [`Self::score_all`], where only items that `allowed` lets pass will be listed: the ranker orders the best of
    /// those, so that a strict restriction does not leave it without candidates.
    pub fn score_among<'s>(
        &self,
        query: &Query<'_>,
        allowed: impl Fn(u32) -> bool,
        scratch: &'s mut ScoreScratch,
    ) -> &'s [f32] {
        self.blend_all(query, scratch);
        if let Some(ranker) = self.ranker_for(query) {
            scratch.select(self.params.fit.candidates, |item| !allowed(item));
            rerank::rerank(ranker, query, scratch);
        }
        &scratch.scores
    }

    /// The ranker, for somebody with a history.
    fn ranker_for(&self, query: &Query<'_>) -> Option<&Ranker> {
        self.ranker.as_ref().filter(|_| !query.context.history.is_empty())
    }

    /// As [`Self::score_all`], by the plain blend.
    pub(crate) fn blend_all<'s>(&self, query: &Query<'_>, scratch: &'s mut ScoreScratch) -> &'s [f32] {
        let weights = &self.params.blend;
        let whole = |column| weights.weight(column, query) != 0.0;
        features::compute(&self.generators, query, whole, scratch);
        blend::blend(weights, 0..features::COLUMNS, query, scratch);
        &scratch.scores
    }

    /// As [`Self::score_all`], by one source alone.
    pub(crate) fn column_all<'s>(
        &self,
        column: features::Column,
        query: &Query<'_>,
        scratch: &'s mut ScoreScratch,
    ) -> &'s [f32] {
        features::compute(&self.generators, query, |other| other == column as usize, scratch);
        &scratch.columns[column as usize]
    }

    /// The best `k` items for `query`, without what its person has seen and without what `exclude` refuses (by live
    /// index), best first; of equal scores the smaller index first.
    pub fn recommend(
        &self,
        query: &Query<'_>,
        k: usize,
        exclude: impl Fn(u32) -> bool,
        scratch: &mut ScoreScratch,
    ) -> Recommendations {
        self.score_all(query, scratch);
        Recommendations {
            items: scratch.top(k, |item| query.context.is_seen(item) || exclude(item)),
            fallback: scratch.fallback(),
        }
    }

    /// The `k` items closest to `seeds` (live indices), by what follows, precedes and accompanies them; popularity
    /// plays no part.
    pub fn similar(
        &self,
        binding: &Binding,
        live: &LiveState,
        seeds: &[u32],
        now_ms: i64,
        k: usize,
        scratch: &mut ScoreScratch,
    ) -> Vec<Recommended> {
        let history: Vec<_> = seeds
            .iter()
            .map(|&seed| crate::live::HistoryEntry::like(seed, now_ms))
            .collect();
        let query = Query {
            binding,
            live,
            context: Context::of_history(&history),
            now_ms,
        };
        features::compute_pairwise(&self.generators, &query, scratch);
        blend::blend(&self.params.blend, features::PAIRWISE, &query, scratch);
        scratch.top(k, |item| seeds.contains(&item))
    }
}

fn check_stream(interactions: &[Interaction], catalogue: &Catalogue) -> Result<(), Error> {
    if interactions.is_empty() {
        return Err(Error::Data("there is no interaction to learn from".into()));
    }
    if !interactions.is_sorted_by_key(|event| event.time_ms) {
        return Err(Error::Data("interactions are not in time order".into()));
    }
    for event in interactions {
        if event.item as usize >= catalogue.len() {
            return Err(Error::Data(format!(
                "item {} lies outside the catalogue of {} items",
                event.item,
                catalogue.len()
            )));
        }
        if !event.weight.is_finite() || event.rating.is_some_and(|stars| !stars.is_finite()) {
            return Err(Error::Data(format!(
                "user {} gave item {} a rating or weight that is not finite",
                event.user, event.item
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
