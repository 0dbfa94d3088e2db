//! Fitting: replay the stream as serving would have met it, write down what the ranker would have seen, and learn
//! from what was liked next.
//!
//! Training rows are point-in-time: the live state holds only what came strictly before, and the batch generators
//! were fitted on an earlier prefix of the stream, as they are when serving. Prefixes end at multiples of
//! [`FitParams::generator_stride`] interactions, whatever the length of the stream.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::catalogue::{Binding, Catalogue};
use super::context::{Context, Query, ScoreScratch};
use super::features::row::{ListStats, WIDTH};
use super::generators::Generators;
use super::{ServedParams, blend, features};
use crate::Error;
use crate::checked::require;
use crate::live::{Interaction, LiveState};
use crate::ranker::{Ranker, TrainingLists, Verdict};

/// Unchecked settings of how the ranker's training lists are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FitParams {
    /// Candidates that the ranker orders.
    pub candidates: usize,
    /// Newest interactions from which training lists are made.
    pub window: usize,
    /// Oldest interactions that only warm the state up.
    pub warm_up: usize,
    /// Interactions between two fits of the batch generators during the replay.
    pub generator_stride: usize,
    /// Best candidates of the blend that always enter a training list.
    pub hard_rows: usize,
    /// Further candidates sampled into it.
    pub sampled_rows: usize,
}

impl Default for FitParams {
    fn default() -> Self {
        Self {
            candidates: 300,
            window: 45_000,
            warm_up: 5_000,
            generator_stride: 8_000,
            hard_rows: 25,
            sampled_rows: 25,
        }
    }
}

impl FitParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        require(
            self.candidates > 0,
            "fit.candidates",
            self.candidates,
            "at least one",
        )?;
        require(
            self.generator_stride > 0,
            "fit.generator_stride",
            self.generator_stride,
            "at least one",
        )?;
        require(
            self.hard_rows + self.sampled_rows > 0,
            "fit.hard_rows",
            self.hard_rows,
            "greater than zero together with fit.sampled_rows",
        )
    }
}

/// Learns a ranker from the stream, if it beats the blend.
pub(super) fn fit_ranker(
    interactions: &[Interaction],
    catalogue: &Catalogue,
    params: &ServedParams,
    seed: u64,
) -> Result<(Option<Ranker>, Option<Verdict>), Error> {
    let lists = training_lists(interactions, catalogue, params, seed)?;
    Ranker::fit(&lists, &params.ranker, &mut ChaCha8Rng::seed_from_u64(seed))
}

pub(crate) fn training_lists(
    interactions: &[Interaction],
    catalogue: &Catalogue,
    params: &ServedParams,
    seed: u64,
) -> Result<TrainingLists, Error> {
    let fit = &params.fit;
    let begin = interactions.len().saturating_sub(fit.window).max(fit.warm_up);
    let mut lists = TrainingLists::new(WIDTH);
    if begin >= interactions.len() {
        return Ok(lists);
    }
    let mut live = LiveState::new(params.live.clone())?;
    live.ensure_items(catalogue.len());
    let binding = Binding::new(catalogue, &catalogue.external_ids(), Some(catalogue));
    let mut generators = Generators::default();
    let mut fitted_at = 0;
    let mut maker = ListMaker::new(params, ChaCha8Rng::seed_from_u64(seed ^ 0x6c69_7374));
    let mut position = 0;
    for moment in interactions.chunk_by(|a, b| a.time_ms == b.time_ms) {
        if position >= begin {
            let due = position / fit.generator_stride * fit.generator_stride;
            if due > fitted_at {
                generators = Generators::fit(&interactions[..due], catalogue.len(), params)?;
                fitted_at = due;
            }
            maker.add(moment, &generators, &binding, &live, &mut lists);
        }
        for event in moment {
            live.observe(event);
        }
        position += moment.len();
    }
    Ok(lists)
}

/// Turns one moment into training lists, one per person who liked something new.
struct ListMaker<'a> {
    params: &'a ServedParams,
    rng: ChaCha8Rng,
    scratch: ScoreScratch,
    stats: ListStats,
    row: Vec<f32>,
}

impl<'a> ListMaker<'a> {
    fn new(params: &'a ServedParams, rng: ChaCha8Rng) -> Self {
        Self {
            params,
            rng,
            scratch: ScoreScratch::new(),
            stats: ListStats::default(),
            row: vec![0.0; WIDTH],
        }
    }

    fn add(
        &mut self,
        moment: &[Interaction],
        generators: &Generators,
        binding: &Binding,
        live: &LiveState,
        lists: &mut TrainingLists,
    ) {
        let mut users: Vec<u32> = moment
            .iter()
            .filter(|event| event.is_like())
            .map(|event| event.user)
            .collect();
        users.sort_unstable();
        users.dedup();
        for user in users {
            let query = Query {
                binding,
                live,
                context: Context::of_user(live, user),
                now_ms: moment[0].time_ms,
            };
            let mut targets: Vec<u32> = moment
                .iter()
                .filter(|event| event.user == user && event.is_like() && !query.context.is_seen(event.item))
                .map(|event| event.item)
                .collect();
            targets.sort_unstable();
            targets.dedup();
            if !targets.is_empty() {
                self.add_list(user, &targets, generators, &query, lists);
            }
        }
    }

    fn add_list(
        &mut self,
        user: u32,
        targets: &[u32],
        generators: &Generators,
        query: &Query<'_>,
        lists: &mut TrainingLists,
    ) {
        let fit = &self.params.fit;
        features::compute(generators, query, &mut self.scratch);
        blend::blend(&self.params.blend, 0..features::COLUMNS, query, &mut self.scratch);
        self.scratch
            .select(fit.candidates, |item| query.context.is_seen(item));
        self.stats
            .measure(query, &self.scratch.columns, &self.scratch.scores);
        let order = std::mem::take(&mut self.scratch.order);
        let found = targets.iter().filter(|target| order.contains(target)).count();
        if found > 0 {
            let rest = order.len().saturating_sub(fit.hard_rows);
            let share = (fit.sampled_rows as f32 / rest.max(1) as f32).min(1.0);
            for (rank, &item) in order.iter().enumerate() {
                let liked = targets.binary_search(&item).is_ok();
                let hard = liked || rank < fit.hard_rows;
                if !hard && self.rng.random::<f32>() >= share {
                    continue;
                }
                self.stats.row(&self.scratch, item as usize, rank, &mut self.row);
                let weight = if hard { 1.0 } else { 1.0 / share };
                lists.push_row(&self.row, self.scratch.scores[item as usize], liked, weight);
            }
            lists.end_list(user, (targets.len() - found) as u32);
        }
        self.scratch.order = order;
    }
}
