//! Predict, reveal, repeat.

use super::contender::{Contenders, ModelName};
use super::result::{CUTOFFS, Case, Heading, rows};
use super::{Dataset, EvaluationOptions, Population, Progress, ResultRow, Segment};
use crate::Error;
use crate::live::{Interaction, LiveState};
use crate::metrics::{expected_rank, hit, reciprocal_rank, single_ndcg};
use crate::served::{Context, Query};

/// Length of the lists that coverage looks at.
const COVERED: usize = 100;

/// Replays a segment in time order. For every positive event all movies of the catalogue that the user has not yet
/// interacted with are ranked from what happened strictly before (events of one time stamp are all predicted before
/// any is revealed), and the expected rank of the event's movie is recorded. Models see what was revealed at each
/// refit.
///
/// # Errors
/// [`Error::Data`] for the train segment; whatever a model's fit refuses.
pub fn prequential(
    dataset: &Dataset,
    options: &EvaluationOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<ResultRow>, Error> {
    if options.segment == Segment::Train {
        return Err(Error::Data("nothing comes before the train segment".into()));
    }
    let events = dataset.interactions();
    let range = dataset.range(options.segment);
    let mut live = LiveState::new(options.params.live.clone())?;
    live.ensure_items(dataset.catalogue().len());
    for event in &events[..range.start] {
        live.observe(event);
    }
    let mut tallies: Vec<Tally> = options
        .models
        .iter()
        .map(|&model| Tally::new(model, dataset.catalogue().len()))
        .collect();
    let fit = |until: usize| {
        Contenders::fit(
            &events[..until],
            dataset.catalogue(),
            &options.models,
            &options.params,
            options.seed,
        )
    };
    let mut contenders = fit(range.start)?;
    let mut fitted_at = range.start;
    let mut is_warm = known_users(&events[..range.start], dataset.user_ids().len());
    let mut position = range.start;
    for moment in events[range.clone()].chunk_by(|a, b| a.time_ms == b.time_ms) {
        if options
            .retrain_every
            .is_some_and(|every| position - fitted_at >= every)
        {
            contenders = fit(position)?;
            is_warm = known_users(&events[..position], dataset.user_ids().len());
            fitted_at = position;
        }
        predict(moment, &mut contenders, &live, &is_warm, &mut tallies);
        for event in moment {
            live.observe(event);
        }
        position += moment.len();
        progress(Progress {
            done: position - range.start,
            total: range.len(),
        });
    }
    let heading = Heading {
        protocol: "prequential",
        segment: options.segment,
        draws: options.bootstrap_draws,
        seed: options.seed,
    };
    Ok(tallies
        .iter()
        .flat_map(|tally| {
            rows(
                heading,
                tally.model,
                &tally.cases,
                tally.coverage(),
                &Population::ALL,
            )
        })
        .collect())
}

struct Tally {
    model: ModelName,
    cases: Vec<Case>,
    shown: Vec<bool>,
    order: Vec<u32>,
}

impl Tally {
    fn new(model: ModelName, items: usize) -> Self {
        Self {
            model,
            cases: Vec::new(),
            shown: vec![false; items],
            order: Vec::new(),
        }
    }

    fn coverage(&self) -> f64 {
        self.shown.iter().filter(|&&shown| shown).count() as f64 / self.shown.len().max(1) as f64
    }

    fn cover(&mut self, scores: &[f32], seen: impl Fn(u32) -> bool) {
        self.order.clear();
        self.order
            .extend((0..scores.len() as u32).filter(|&item| !seen(item)));
        if self.order.len() > COVERED {
            self.order.select_nth_unstable_by(COVERED - 1, |a, b| {
                scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b))
            });
        }
        for &item in self.order.iter().take(COVERED) {
            self.shown[item as usize] = true;
        }
    }
}

fn known_users(events: &[Interaction], users: usize) -> Vec<bool> {
    let mut known = vec![false; users];
    for event in events {
        known[event.user as usize] = true;
    }
    known
}

fn predict(
    moment: &[Interaction],
    contenders: &mut Contenders,
    live: &LiveState,
    is_warm: &[bool],
    tallies: &mut [Tally],
) {
    let mut users: Vec<u32> = moment
        .iter()
        .filter(|event| event.is_like())
        .map(|event| event.user)
        .collect();
    users.sort_unstable();
    users.dedup();
    let binding = contenders.binding().clone();
    for user in users {
        let query = Query {
            binding: &binding,
            live,
            context: Context::of_user(live, user),
            now_ms: moment[0].time_ms,
        };
        let targets: Vec<u32> = moment
            .iter()
            .filter(|event| event.user == user && event.is_like() && !query.context.is_seen(event.item))
            .map(|event| event.item)
            .collect();
        for tally in tallies.iter_mut() {
            let scores = contenders.score(tally.model, &query);
            tally.cover(scores, |item| query.context.is_seen(item));
            for &target in &targets {
                let Some(rank) = expected_rank(scores, target, |item| query.context.is_seen(item)) else {
                    continue;
                };
                tally
                    .cases
                    .push(case(user, rank, is_warm[user as usize], query.context.length > 0));
            }
        }
    }
}

/// With a single target recall equals the hit, and average precision the reciprocal rank inside the cut-off.
fn case(user: u32, rank: f64, warm: bool, has_history: bool) -> Case {
    Case {
        user,
        warm,
        has_history,
        ndcg: CUTOFFS.map(|k| single_ndcg(rank, k)),
        hit: CUTOFFS.map(|k| hit(rank, k)),
        recall: CUTOFFS.map(|k| hit(rank, k)),
        precision: CUTOFFS.map(|k| hit(rank, k) / k as f64),
        average_precision: CUTOFFS.map(|k| hit(rank, k) * reciprocal_rank(rank)),
        reciprocal_rank: reciprocal_rank(rank),
    }
}
