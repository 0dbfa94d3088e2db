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
//! ranker. Evaluation and serving call the same functions. From [`POOLED_FROM`] items on, lists are made from a pool of
//! the items that anything speaks for: who is in it scores as in the pass over all.

pub mod blend;
pub mod bundle;
pub mod catalogue;
pub mod context;
pub mod explain;
pub mod features;
pub mod fit;
mod generators;
mod places;
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

/// Items from which on a list looks at a pool of them only: about where that becomes the faster way (`cargo bench --bench
/// serving -- --parts growth`).
pub const POOLED_FROM: usize = 1 << 14;

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

    /// The ranker, for somebody with a history.
    fn ranker_for(&self, query: &Query<'_>) -> Option<&Ranker> {
        self.ranker.as_ref().filter(|_| !query.context.history.is_empty())
    }

    /// As [`Self::score_all`], by the plain blend.
    pub(crate) fn blend_all<'s>(&self, query: &Query<'_>, scratch: &'s mut ScoreScratch) -> &'s [f32] {
        blend_all(&self.generators, &self.params.blend, query, scratch);
        &scratch.scores
    }

    fn pools(&self, query: &Query<'_>) -> bool {
        pools(&self.params.blend, query)
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

    /// The best `k` items that `allowed` lets pass (by live index), best first; of equal scores the smaller index first.
    /// The ranker orders the best of those, so that a strict restriction does not leave it without candidates.
    ///
    /// Of a large catalogue a pool is scored, unless a restriction leaves too few of it. Who is not in the pool has
    /// nothing in common with the history, and five hundred others are more popular at each half-life that counts.
    pub fn best(
        &self,
        query: &Query<'_>,
        k: usize,
        allowed: impl Fn(u32) -> bool,
        scratch: &mut ScoreScratch,
    ) -> Vec<Recommended> {
        let ranker = self.ranker_for(query);
        let candidates = ranker.map_or(0, |_| self.params.fit.candidates);
        let select = |scratch: &mut ScoreScratch| {
            scratch.select(candidates.max(k), |item| !allowed(item));
        };
        choose(
            (&self.generators, &self.params.blend),
            query,
            candidates.max(k),
            select,
            scratch,
        );
        if let Some(ranker) = ranker {
            scratch.order.truncate(candidates);
            rerank::rerank(ranker, query, scratch);
            scratch.top(k, |item| !allowed(item))
        } else {
            scratch.order.truncate(k);
            scratch.chosen()
        }
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
        let allowed = |item| !query.context.is_seen(item) && !exclude(item);
        Recommendations {
            items: self.best(query, k, allowed, scratch),
            fallback: scratch.fallback(),
        }
    }

    /// The `k` items closest to `seeds` (live indices), by what follows, precedes and accompanies them; popularity
    /// plays no part. Fewer where nothing speaks for more.
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
        if query.binding.len() < POOLED_FROM {
            features::compute_pairwise(&self.generators, &query, scratch);
        } else {
            features::compute_pairwise_pool(&self.generators, &query, scratch);
        }
        blend::blend(&self.params.blend, features::PAIRWISE, &query, scratch);
        let mut similar = scratch.top(k, |item| seeds.contains(&item));
        similar.retain(|similar| similar.score > 0.0);
        similar
    }
}

/// Whether a list looks at a pool only: of a large catalogue, and unless the blend weighs facts, by which any item may
/// be the best.
fn pools(weights: &BlendWeights, query: &Query<'_>) -> bool {
    let weighs_facts =
        || (features::SCORES..features::COLUMNS).any(|fact| weights.weight(fact, query) != 0.0);
    query.binding.len() >= POOLED_FROM && !weighs_facts()
}

/// Blends the columns of every item.
fn blend_all(generators: &Generators, weights: &BlendWeights, query: &Query<'_>, scratch: &mut ScoreScratch) {
    let weighs = |column| weights.weight(column, query) != 0.0;
    features::compute(generators, query, weighs, scratch);
    blend::blend(weights, 0..features::COLUMNS, query, scratch);
}

/// Blends the columns of as many items as it takes for `select` to find `count` candidates, and leaves those.
fn choose(
    (generators, weights): (&Generators, &BlendWeights),
    query: &Query<'_>,
    count: usize,
    select: impl Fn(&mut ScoreScratch),
    scratch: &mut ScoreScratch,
) {
    if pools(weights, query) {
        let weighs = |column| weights.weight(column, query) != 0.0;
        features::compute_pool(generators, query, weighs, &[], scratch);
        blend::blend(weights, 0..features::COLUMNS, query, scratch);
        select(scratch);
        if scratch.order.len() >= count {
            return;
        }
    }
    blend_all(generators, weights, query, scratch);
    select(scratch);
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
