//! Fitting: replay the stream as serving would have met it, write down what the ranker would have seen, and learn
//! from what was liked next.
//!
//! Training rows are point-in-time: the live state holds only what came strictly before, and the batch generators
//! were fitted on an earlier prefix of the stream, as they are when serving. Prefixes end at multiples of
//! [`FitParams::generator_stride`] interactions, whatever the length of the stream.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::catalogue::{Binding, Catalogue};
use super::context::{Context, Query, ScoreScratch};
use super::features::facts::Facts;
use super::features::row::{ListStats, WIDTH};
use super::generators::Generators;
use super::{ServedModel, ServedParams, check_stream, choose};
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
    /// What meeting an item without liking it is worth beside a like, 0 to below 1: people meet in the same manner
    /// what they will like and what they will not, and there is more to learn from both.
    pub unliked_gain: f32,
    /// Share of the moments with a like that make a training list, drawn at random.
    pub list_share: f64,
}

impl Default for FitParams {
    fn default() -> Self {
        Self {
            candidates: 300,
            window: 45_000,
            warm_up: 5_000,
            generator_stride: 8_000,
            hard_rows: 20,
            sampled_rows: 20,
            unliked_gain: 0.0,
            list_share: 1.0,
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
        )?;
        require(
            (0.0..1.0).contains(&self.unliked_gain),
            "fit.unliked_gain",
            self.unliked_gain,
            "from 0 to below 1",
        )?;
        require(
            self.list_share > 0.0 && self.list_share <= 1.0,
            "fit.list_share",
            self.list_share,
            "within (0, 1]",
        )
    }
}

/// Fits served models on a stream as it grows.
///
/// Training lists are a left fold of the stream: a fit on a longer stream takes over what earlier fits have made and
/// gives the very model that a fit from scratch would give. On a stream that does not continue the last one it begins
/// again.
#[derive(Debug, Clone)]
pub struct Fitter {
    params: ServedParams,
    seed: u64,
    catalogue: Catalogue,
    /// What `live` and `lists` have seen: whole moments only.
    consumed: Vec<Interaction>,
    live: LiveState,
    binding: Binding,
    generators: Generators,
    /// Length of the prefix that `generators` were fitted on.
    fitted_at: usize,
    lists: TrainingLists,
}

impl Fitter {
    /// A fitter that has seen nothing yet.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] for settings out of their domain.
    pub fn new(params: &ServedParams, seed: u64) -> Result<Self, Error> {
        params.check()?;
        let catalogue = Catalogue::default();
        Ok(Self {
            live: LiveState::new(params.live.clone())?,
            params: params.clone(),
            seed,
            consumed: Vec::new(),
            binding: Binding::new(&catalogue, &[], None),
            catalogue,
            generators: Generators::default(),
            fitted_at: 0,
            lists: TrainingLists::new(WIDTH),
        })
    }

    /// Fits a model on `interactions`, which must be ordered by time; `catalogue` describes items
    /// `0..catalogue.len()`.
    ///
    /// # Errors
    /// [`Error::Data`] without interactions, out of time order, with a rating or weight that is not finite, or with
    /// an item beyond the catalogue.
    pub fn fit(&mut self, interactions: &[Interaction], catalogue: &Catalogue) -> Result<ServedModel, Error> {
        check_stream(interactions, catalogue)?;
        self.advance(interactions, catalogue)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let (ranker, verdict) = Ranker::fit(&self.lists, &self.params.ranker, &mut rng)?;
        self.assemble(interactions, catalogue, ranker, verdict)
    }

    /// As [`Self::fit`], with what an earlier fit by the same recipe found out about the ranker: whether it wins, and with
    /// how many trees. That saves the half of the boosting that only finds this out.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn fit_as_judged(
        &mut self,
        interactions: &[Interaction],
        catalogue: &Catalogue,
        verdict: Option<Verdict>,
    ) -> Result<ServedModel, Error> {
        let Some(verdict) = verdict else {
            return self.fit(interactions, catalogue);
        };
        check_stream(interactions, catalogue)?;
        self.advance(interactions, catalogue)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let ranker = Ranker::fit_as_judged(&self.lists, &self.params.ranker, verdict, &mut rng)?;
        self.assemble(interactions, catalogue, ranker, Some(verdict))
    }

    fn assemble(
        &self,
        interactions: &[Interaction],
        catalogue: &Catalogue,
        ranker: Option<Ranker>,
        verdict: Option<Verdict>,
    ) -> Result<ServedModel, Error> {
        Ok(ServedModel {
            ranker,
            verdict,
            params: self.params.clone(),
            seed: self.seed,
            catalogue: catalogue.clone(),
            generators: Generators::fit(interactions, catalogue.len(), &self.params.generators)?,
            trained_on: interactions.len() as u64,
            trained_until_ms: interactions.last().map_or(0, |event| event.time_ms),
        })
    }

    /// Makes the training lists of `interactions`. The last moment makes none: the stream may end in its middle.
    fn advance(&mut self, interactions: &[Interaction], catalogue: &Catalogue) -> Result<(), Error> {
        let fit = self.params.fit.clone();
        let begin = interactions.len().saturating_sub(fit.window).max(fit.warm_up);
        let last_ms = interactions.last().map_or(0, |event| event.time_ms);
        let end = interactions.partition_point(|event| event.time_ms < last_ms);
        if begin >= end {
            self.lists = TrainingLists::new(WIDTH);
            return Ok(());
        }
        if self.catalogue != *catalogue || !interactions[..end].starts_with(&self.consumed) {
            let catalogue = catalogue.clone();
            *self = Self {
                binding: Binding::new(&catalogue, &catalogue.external_ids(), Some(&catalogue)),
                catalogue,
                ..Self::new(&self.params, self.seed)?
            };
            self.live.ensure_items(self.catalogue.len());
        }
        let mut position = self.consumed.len();
        while position < end {
            let bound = if position < begin {
                begin
            } else {
                let (due, next) = prefix_at(position, fit.generator_stride);
                if due > self.fitted_at {
                    let (prefix, items) = (&interactions[..due], self.catalogue.len());
                    self.generators = Generators::fit(prefix, items, &self.params.generators)?;
                    self.fitted_at = due;
                }
                next
            };
            let until = moment_from(&interactions[..end], bound);
            self.walk(&interactions[position..until], position, position >= begin);
            position = until;
        }
        self.consumed
            .extend_from_slice(&interactions[self.consumed.len()..end]);
        self.lists.forget_before(begin);
        Ok(())
    }

    /// Lets the live state meet `stretch`, whole moments from `position` on, and makes their training lists if wanted.
    /// Threads divide the lists, not the stream: each has the state to itself.
    fn walk(&mut self, stretch: &[Interaction], position: usize, making: bool) {
        let threads = if making {
            rayon::current_num_threads().max(1)
        } else {
            1
        };
        let mut copies: Vec<LiveState> = (1..threads).map(|_| self.live.clone()).collect();
        let (params, seed) = (&self.params, self.seed);
        let (generators, binding) = (&self.generators, &self.binding);
        let states: Vec<&mut LiveState> = std::iter::once(&mut self.live).chain(&mut copies).collect();
        let parts: Vec<TrainingLists> = states
            .into_par_iter()
            .enumerate()
            .map(|(thread, live)| {
                let mut lists = TrainingLists::new(WIDTH);
                let mut maker = ListMaker::new(params, seed, (thread, threads));
                let mut position = position;
                for moment in stretch.chunk_by(|a, b| a.time_ms == b.time_ms) {
                    if making {
                        maker.add(moment, position, generators, binding, live, &mut lists);
                    }
                    for event in moment {
                        live.observe(event);
                    }
                    position += moment.len();
                }
                lists
            })
            .collect();
        self.lists.append(&parts);
    }
}

/// At `position` of a stream: the length of the prefix that the generators are to be fitted on, and where the next one
/// begins. The stride doubles with the stream, so that a fit is due for some new interactions in a hundred, not for ever
/// fewer.
fn prefix_at(position: usize, stride: usize) -> (usize, usize) {
    /// Strides in a stream from which on they are doubled.
    const MOST: usize = 16;
    let mut stride = stride;
    while position / stride >= MOST {
        stride *= 2;
    }
    let due = position / stride * stride;
    (due, due + stride)
}

/// The first index not before `bound` at which a moment begins, or the end.
fn moment_from(stream: &[Interaction], bound: usize) -> usize {
    let Some(first) = stream.get(bound) else {
        return stream.len();
    };
    let begins = bound == 0 || stream[bound - 1].time_ms != first.time_ms;
    if begins {
        bound
    } else {
        stream.partition_point(|event| event.time_ms <= first.time_ms)
    }
}

/// Turns one moment into training lists, one per person who liked something new; of those each maker makes its share.
struct ListMaker<'a> {
    params: &'a ServedParams,
    seed: u64,
    /// Which of how many makers this is.
    share: (usize, usize),
    /// Lists met, own or not.
    met: usize,
    scratch: ScoreScratch,
    stats: ListStats,
    row: Vec<f32>,
}

impl<'a> ListMaker<'a> {
    fn new(params: &'a ServedParams, seed: u64, share: (usize, usize)) -> Self {
        Self {
            params,
            seed,
            share,
            met: 0,
            scratch: ScoreScratch::new(),
            stats: ListStats::default(),
            row: vec![0.0; WIDTH],
        }
    }

    fn add(
        &mut self,
        moment: &[Interaction],
        position: usize,
        generators: &Generators,
        binding: &Binding,
        live: &LiveState,
        lists: &mut TrainingLists,
    ) {
        let mut users: Vec<u32> = moment
            .iter()
            .filter(|event| self.gain(event) > 0.0)
            .map(|event| event.user)
            .collect();
        users.sort_unstable();
        users.dedup();
        for user in users {
            // Drawn by place, not in passing, so that a list does not depend on where the fold began.
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0x6c69_7374);
            rng.set_stream((position as u64) << 32 | u64::from(user));
            if rng.random::<f64>() >= self.params.fit.list_share {
                continue;
            }
            let query = Query {
                binding,
                live,
                context: Context::of_user(live, user),
                now_ms: moment[0].time_ms,
            };
            let mut targets: Vec<(u32, f32)> = moment
                .iter()
                .filter(|event| event.user == user && !query.context.is_seen(event.item))
                .map(|event| (event.item, self.gain(event)))
                .filter(|&(_, gain)| gain > 0.0)
                .collect();
            // Of one item met twice, the better.
            targets.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
            targets.dedup_by_key(|&mut (item, _)| item);
            if targets.is_empty() {
                continue;
            }
            let (own, makers) = self.share;
            let mine = self.met % makers == own;
            self.met += 1;
            if mine {
                self.add_list((user, position), &targets, generators, &query, &mut rng, lists);
            }
        }
    }

    fn gain(&self, event: &Interaction) -> f32 {
        if event.is_like() {
            1.0
        } else if event.weight > 0.0 {
            self.params.fit.unliked_gain
        } else {
            0.0
        }
    }

    fn add_list(
        &mut self,
        (user, position): (u32, usize),
        targets: &[(u32, f32)],
        generators: &Generators,
        query: &Query<'_>,
        rng: &mut ChaCha8Rng,
        lists: &mut TrainingLists,
    ) {
        let fit = &self.params.fit;
        choose(
            (generators, &self.params.blend),
            query,
            fit.candidates,
            |scratch| scratch.select_unseen(fit.candidates, &query.context),
            &mut self.scratch,
        );
        self.stats.measure(query, &self.scratch);
        let facts = Facts::new(query);
        let order = std::mem::take(&mut self.scratch.order);
        let is_found = |&&(item, _): &&(u32, f32)| order.contains(&item);
        if targets.iter().any(|target| is_found(&target)) {
            let missed = targets
                .iter()
                .filter(|target| target.1 >= 1.0 && !is_found(target))
                .count();
            let rest = order.len().saturating_sub(fit.hard_rows);
            let share = (fit.sampled_rows as f32 / rest.max(1) as f32).min(1.0);
            for (rank, &item) in order.iter().enumerate() {
                let target = targets.binary_search_by_key(&item, |&(item, _)| item);
                let gain = target.map_or(0.0, |place| targets[place].1);
                let hard = gain > 0.0 || rank < fit.hard_rows;
                if !hard && rng.random::<f32>() >= share {
                    continue;
                }
                self.stats.row(&self.scratch, &facts, item, rank, &mut self.row);
                let weight = if hard { 1.0 } else { 1.0 / share };
                let score = self.scratch.scores[self.scratch.place(item)];
                lists.push_row(&self.row, score, gain, weight);
            }
            lists.end_list(user, position, missed as u32);
        }
        self.scratch.order = order;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_are_due_at_multiples_of_a_stride_that_doubles_with_the_stream() {
        assert_eq!(prefix_at(0, 10), (0, 10));
        assert_eq!(prefix_at(159, 10), (150, 160));
        assert_eq!(prefix_at(160, 10), (160, 180));
        assert_eq!(prefix_at(319, 10), (300, 320));
        assert_eq!(prefix_at(1000, 10), (960, 1040));
    }

    #[test]
    fn a_stretch_ends_where_a_moment_begins() {
        let stream = [1, 1, 2, 2, 2, 3].map(|time_ms| Interaction {
            user: 0,
            item: 0,
            rating: None,
            weight: 1.0,
            time_ms,
        });
        let from: Vec<usize> = (0..8).map(|bound| moment_from(&stream, bound)).collect();
        assert_eq!(from, [0, 2, 2, 5, 5, 5, 6, 6]);
    }
}
