//! Predict, reveal, repeat.

use rayon::prelude::*;

use super::contender::{Contender, ModelName};
use super::result::{Case, Heading, RatingCase, rows};
use super::{Dataset, EvaluationOptions, Meter, Population, Progress, ResultRow, Segment};
use crate::Error;
use crate::live::{Interaction, LiveState};
use crate::metrics::expected_rank;
use crate::served::{Binding, Context, Query};

/// Length of the lists that coverage looks at.
const COVERED: usize = 100;

/// Replays a segment in time order. For every positive event all movies of the catalogue that the user has not yet
/// interacted with are ranked from what happened strictly before (events of one time stamp are all predicted before
/// any is revealed), and the expected rank of the event's movie is recorded. Models see what was revealed at each
/// refit. A model that predicts stars does so for every rating of the segment. Models replay in parallel, each with a
/// state of its own; the result does not depend on the number of threads.
///
/// # Errors
/// [`Error::Data`] for the train segment; whatever a model's fit refuses.
pub fn prequential(
    dataset: &Dataset,
    options: &EvaluationOptions,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<ResultRow>, Error> {
    if options.segment == Segment::Train {
        return Err(Error::Data("nothing comes before the train segment".into()));
    }
    let meter = Meter::new(
        dataset.range(options.segment).len() * options.models.len(),
        progress,
    );
    let results: Result<Vec<_>, Error> = options
        .models
        .par_iter()
        .map(|&model| replay(dataset, options, model, &meter))
        .collect();
    Ok(results?.concat())
}

fn replay(
    dataset: &Dataset,
    options: &EvaluationOptions,
    model: ModelName,
    meter: &Meter<'_>,
) -> Result<Vec<ResultRow>, Error> {
    let (events, catalogue) = (dataset.interactions(), dataset.catalogue());
    let range = dataset.range(options.segment);
    let mut live = LiveState::new(options.params.live.clone())?;
    live.ensure_items(catalogue.len());
    for event in &events[..range.start] {
        live.observe(event);
    }
    let mut contender = Contender::new(model, &options.params, options.seed)?;
    let mut tally = Tally::new(catalogue.len());
    let mut fitted_at = None;
    let mut position = range.start;
    for moment in events[range].chunk_by(|a, b| a.time_ms == b.time_ms) {
        let due =
            fitted_at.is_none_or(|at| options.retrain_every.is_some_and(|every| position - at >= every));
        if due {
            contender.fit(&events[..position], catalogue)?;
            tally.binding = Some(contender.binding());
            tally.is_warm = known_users(&events[..position], dataset.user_ids().len());
            fitted_at = Some(position);
        }
        tally.predict(moment, &mut contender, &live);
        for event in moment {
            live.observe(event);
        }
        position += moment.len();
        meter.add(moment.len());
    }
    let heading = Heading {
        protocol: "prequential",
        segment: options.segment,
        draws: options.bootstrap_draws,
        seed: options.seed,
    };
    let coverage = tally.coverage();
    Ok(rows(
        heading,
        model,
        &tally.cases,
        &tally.ratings,
        coverage,
        &Population::ALL,
    ))
}

/// What has been recorded of one model.
struct Tally {
    cases: Vec<Case>,
    ratings: Vec<RatingCase>,
    /// By item: whether it was in anybody's list.
    shown: Vec<bool>,
    /// By user: whether the latest fit knew them.
    is_warm: Vec<bool>,
    binding: Option<Binding>,
    order: Vec<u32>,
}

impl Tally {
    fn new(items: usize) -> Self {
        Self {
            cases: Vec::new(),
            ratings: Vec::new(),
            shown: vec![false; items],
            is_warm: Vec::new(),
            binding: None,
            order: Vec::new(),
        }
    }

    /// Records what is foretold of a moment.
    fn predict(&mut self, moment: &[Interaction], contender: &mut Contender, live: &LiveState) {
        let Some(binding) = self.binding.take() else {
            return;
        };
        let mut users: Vec<u32> = moment.iter().map(|event| event.user).collect();
        users.sort_unstable();
        users.dedup();
        for user in users {
            let query = Query {
                binding: &binding,
                live,
                context: Context::of_user(live, user),
                now_ms: moment[0].time_ms,
            };
            let of_user = || moment.iter().filter(|event| event.user == user);
            let (warm, has_history) = (self.is_warm[user as usize], query.context.length > 0);
            self.ratings.extend(of_user().filter_map(|event| {
                Some(RatingCase {
                    warm,
                    has_history,
                    predicted: contender.stars(&query, event.item)?,
                    given: f64::from(event.rating?),
                })
            }));
            let targets: Vec<u32> = of_user()
                .filter(|event| event.is_like() && !query.context.is_seen(event.item))
                .map(|event| event.item)
                .collect();
            if targets.is_empty() {
                continue;
            }
            let scores = contender.score(&query);
            self.cover(scores, |item| query.context.is_seen(item));
            self.cases.extend(targets.into_iter().filter_map(|target| {
                let rank = expected_rank(scores, target, |item| query.context.is_seen(item))?;
                Some(Case::of_event(user, rank, warm, has_history))
            }));
        }
        self.binding = Some(binding);
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
