//! What another model would have earned on the requests that were logged.
//!
//! A small slice of the served lists is drawn at random: from the `pool` best movies of the serving model, position
//! after position, the movie of rank r (from 1) with weight `r^-steepness`, and each position's probability is logged.
//! The question answered here is what *the same slice* would have earned had another model done the ranking. For each
//! such list the request is put before the other model's stored bundle again, **with what was known at that moment**:
//! the user's history up to the logged feature version, and the live state (popularity, transitions) folded from the
//! interactions before it. The new ranking gives every shown movie its probability under the other model, and the
//! estimators of [`marquee_statistics::off_policy`] do the rest.
//!
//! The serving model's own bundle is put to the same test: the share of lists whose logged probabilities come out
//! exactly ([`WhatIf::fidelity`]) says how far the past was really restored.
//!
//! What is left out, and counted: lists with filters or seeds (the log does not say which movies passed them), lists
//! younger than the attribution window, and lists whose bundle is gone.

mod past;
mod policy;
mod rescore;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use marquee_models::served::ServedModel;
use marquee_schemas::Kind;
use marquee_statistics::off_policy::{
    Diagnostics, Estimator, Floors, LoggedList, OffPolicyEstimate, Refusal, RewardModel, Slot, diagnose,
    estimate, naive,
};
use marquee_trainer::GenreVocabulary;
use marquee_trainer::registry::{self, RegistryReader};

use crate::error::Error;
use crate::evaluation::{By, List, for_each_chunk};
use past::Past;
use policy::{RankPolicy, places};
use rescore::Rescorer;

/// The policy name under which the recommender logs drawn lists.
const DRAWN: &str = "plackett_luce";

/// How the question is put.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WhatIfOptions {
    /// Positions that count.
    pub k: usize,
    /// How long after a list an interaction may answer it, ms of event time.
    pub attribution_window_ms: i64,
    /// The moment at which the question is put, ms; younger lists are left out.
    pub as_of_ms: i64,
    /// Best-ranked movies that a list is drawn from: `recommender.explore.pool`.
    pub pool: usize,
    /// How strongly the ranking is kept: `recommender.explore.steepness`.
    pub steepness: f64,
    /// Weights above this are cut by the clipped estimator, and counted.
    pub clip: f64,
    /// Below which estimates are refused.
    pub floors: Floors,
}

/// What counts as earned at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reward {
    /// A click that names the list.
    Click,
    /// Any answer: the user took the movie up next. Used where no click names a list.
    NextInteraction,
}

/// The answer.
#[derive(Debug, Clone)]
pub struct WhatIf {
    /// Drawn lists of the period.
    pub drawn: u64,
    /// Those left out for filters or seeds, or because their user was erased, and the history with them.
    pub restricted: u64,
    /// Those left out because their window is not over.
    pub censored: u64,
    /// Those left out because the bundle that served them is gone or unknown.
    pub unknown_model: u64,
    /// Lists that the estimates rest on.
    pub used: u64,
    /// Share of the used lists whose logged probabilities follow exactly from the restored past.
    pub fidelity: f64,
    /// What counts as earned.
    pub reward: Reward,
    /// What the serving models earned per list.
    pub naive: Option<OffPolicyEstimate>,
    /// How well the lists can speak for the other model.
    pub diagnostics: Diagnostics,
    /// What the other model would have earned per list, by estimator.
    pub estimates: Vec<(Estimator, Result<OffPolicyEstimate, Refusal>)>,
}

/// A drawn list with what it earned.
struct Drawn {
    list: List,
    clicked: Vec<bool>,
    taken: Vec<bool>,
}

/// What `version` would have earned on the drawn lists from `from_ms` (inclusive) to `to_ms` (exclusive).
///
/// # Errors
/// [`Error::Registry`] if the bundle of `version` cannot be loaded, [`Error::Sql`] if the lake cannot be read.
pub async fn what_if(
    lake_dir: &Path,
    registry_dir: &Path,
    version: &str,
    from_ms: i64,
    to_ms: i64,
    options: WhatIfOptions,
) -> Result<WhatIf, Error> {
    let models = registry::open_read_only(registry_dir)?;
    what_if_of(lake_dir, &models, version, from_ms, to_ms, options).await
}

/// Where models of the past lie.
trait Models {
    fn load(&self, version: &str) -> Result<(ServedModel, GenreVocabulary), Error>;
}

impl Models for RegistryReader {
    fn load(&self, version: &str) -> Result<(ServedModel, GenreVocabulary), Error> {
        let bundle = RegistryReader::load(self, version)?;
        Ok((bundle.model, bundle.manifest.genres))
    }
}

async fn what_if_of(
    lake_dir: &Path,
    models: &impl Models,
    version: &str,
    from_ms: i64,
    to_ms: i64,
    options: WhatIfOptions,
) -> Result<WhatIf, Error> {
    let (target, genres) = models.load(version)?;
    let mut what_if = WhatIf {
        drawn: 0,
        restricted: 0,
        censored: 0,
        unknown_model: 0,
        used: 0,
        fidelity: 0.0,
        reward: Reward::NextInteraction,
        naive: None,
        diagnostics: diagnose(&[], options.clip),
        estimates: Vec::new(),
    };
    let mut drawn = collect(lake_dir, from_ms, to_ms, &options, &mut what_if).await?;
    drawn.sort_by(|a, b| (a.list.time_ms, &a.list.request_id).cmp(&(b.list.time_ms, &b.list.request_id)));
    if drawn.iter().any(|drawn| drawn.clicked.contains(&true)) {
        what_if.reward = Reward::Click;
    }

    let past = Past::load(lake_dir, to_ms).await?;
    let mut loggers: BTreeMap<Arc<str>, Option<Rescorer>> = BTreeMap::new();
    let mut target = Rescorer::new(target, &genres, &past)?;
    let mut policies: BTreeMap<(usize, usize), RankPolicy> = BTreeMap::new();
    let mut rescored = Vec::new();
    let mut faithful = 0_u64;
    for drawn in &drawn {
        let Some(logger) = &drawn.list.model_version else {
            what_if.unknown_model += 1;
            continue;
        };
        let logger = loggers.entry(Arc::clone(logger)).or_insert_with(|| {
            let (model, genres) = models.load(logger).ok()?;
            Rescorer::new(model, &genres, &past).ok()
        });
        let Some(logger) = logger else {
            what_if.unknown_model += 1;
            continue;
        };
        let shown: Vec<u32> = drawn.list.items.iter().map(|item| item.movie_id).collect();
        let propensities: Vec<f64> = drawn.list.items.iter().map(|item| item.propensity).collect();
        let pool = options.pool.max(shown.len()).min(drawn.list.candidates as usize);
        let k = shown.len().min(options.k);
        let policy = policies
            .entry((pool, k))
            .or_insert_with(|| RankPolicy::new(pool, options.steepness, k));
        let before = logger.rank(&drawn.list, &past, pool);
        let now = target.rank(&drawn.list, &past, pool);
        faithful += u64::from(policy.is_faithful(&before, &shown, &propensities));
        rescored.push(Rescored {
            drawn,
            logging_places: places(&propensities, pool, options.steepness),
            target_conditionals: policy.conditionals(&now, &shown),
            support: policy.support(&now, &before),
            now,
            shown,
            key: (pool, k),
        });
    }
    what_if.used = rescored.len() as u64;
    what_if.fidelity = faithful as f64 / rescored.len().max(1) as f64;
    let lists = weighed(&rescored, &policies, what_if.reward, options.k);
    what_if.naive = naive(&lists);
    what_if.diagnostics = diagnose(&lists, options.clip);
    what_if.estimates = Estimator::all(options.clip)
        .into_iter()
        .map(|estimator| (estimator, estimate(estimator, &lists, options.floors)))
        .collect();
    Ok(what_if)
}

/// The drawn lists of the period that can be used, with their rewards.
async fn collect(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
    options: &WhatIfOptions,
    counts: &mut WhatIf,
) -> Result<Vec<Drawn>, Error> {
    let mut drawn = Vec::new();
    for_each_chunk(lake_dir, from_ms, to_ms, options.attribution_window_ms, |chunk| {
        let mut at_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, list) in chunk.lists.iter().enumerate() {
            if &*list.policy != DRAWN || &*list.endpoint != "recommend" {
                continue;
            }
            counts.drawn += 1;
            if list.time_ms.saturating_add(options.attribution_window_ms) > options.as_of_ms {
                counts.censored += 1;
            } else if list.is_restricted || list.items.is_empty() || list.is_orphaned() {
                counts.restricted += 1;
            } else {
                at_of.insert(at, drawn.len());
                drawn.push(Drawn {
                    clicked: vec![false; list.items.len()],
                    taken: vec![false; list.items.len()],
                    list: list.clone(),
                });
            }
        }
        for found in &chunk.attributions {
            if let (Some(&at), Some(rank)) = (at_of.get(&found.list), found.rank) {
                drawn[at].taken[rank] = true;
                let is_click = chunk.answers[found.answer].kind == Kind::Click && found.by == By::RequestId;
                drawn[at].clicked[rank] |= is_click;
            }
        }
    })
    .await?;
    Ok(drawn)
}

/// A drawn list put before both models again.
struct Rescored<'a> {
    drawn: &'a Drawn,
    shown: Vec<u32>,
    /// Places in the serving model's ranking, as its logged probabilities tell.
    logging_places: Option<Vec<usize>>,
    target_conditionals: Vec<f64>,
    /// The other model's ranking.
    now: Vec<u32>,
    support: f64,
    key: (usize, usize),
}

impl Rescored<'_> {
    fn reward(&self, at: usize, reward: Reward) -> f64 {
        let earned = match reward {
            Reward::Click => self.drawn.clicked[at],
            Reward::NextInteraction => self.drawn.taken[at],
        };
        f64::from(u8::from(earned))
    }

    fn cluster(&self) -> u64 {
        crate::evaluation::cluster_of(&self.drawn.list)
    }
}

/// The lists as the estimators take them. The reward model is fitted on one half of the users for the other half.
fn weighed(
    rescored: &[Rescored<'_>],
    policies: &BTreeMap<(usize, usize), RankPolicy>,
    reward: Reward,
    k: usize,
) -> Vec<LoggedList> {
    let model_without = |half: u64| {
        RewardModel::fit(
            rescored
                .iter()
                .filter(move |list| list.cluster() % 2 != half)
                .flat_map(move |list| {
                    (0..list.shown.len().min(k)).map(move |at| (at, list.shown[at], list.reward(at, reward)))
                }),
        )
    };
    let models = [model_without(0), model_without(1)];
    rescored
        .iter()
        .filter_map(|list| {
            let policy = policies.get(&list.key)?;
            let model = &models[usize::from(list.cluster() % 2 == 1)];
            let slots = (0..list.shown.len().min(k)).map(|at| Slot {
                logging: list.drawn.list.items[at].propensity,
                target: list.target_conditionals[at],
                marginals: list.logging_places.as_ref().map(|places| {
                    let now = list.now.iter().position(|&movie| movie == list.shown[at]);
                    (
                        policy.marginal(places[at], at),
                        now.map_or(0.0, |place| policy.marginal(place, at)),
                    )
                }),
                reward: list.reward(at, reward),
                predicted: model.predict(at, list.shown[at]),
            });
            Some(LoggedList {
                cluster: list.cluster(),
                slots: slots.collect(),
                direct: policy.expectation(&list.now, |at, movie| model.predict(at, movie)),
                support: list.support,
            })
        })
        .collect()
}
