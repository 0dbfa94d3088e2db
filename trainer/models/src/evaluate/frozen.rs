//! The static protocol: fit once, rank once per warm user.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::contender::{Contender, ModelName};
use super::result::{Case, Heading, RatingCase, rows};
use super::{Dataset, EvaluationOptions, Meter, Population, Progress, ResultRow, Segment};
use crate::Error;
use crate::live::{Interaction, LiveState};
use crate::metrics::coverage;
use crate::served::{Context, Query};

/// Fits on everything before the segment and ranks the catalogue, without what each user had seen, for every *warm*
/// user: one with an earlier interaction and at least one new positive in the segment among movies that had one too.
/// Coverage is over those known movies. Rating errors are over the warm users' ratings of the segment. Models are judged
/// in parallel; the result does not depend on the number of threads.
///
/// # Errors
/// [`Error::Data`] for the train segment; whatever a model's fit refuses.
pub fn static_eval(
    dataset: &Dataset,
    options: &EvaluationOptions,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<ResultRow>, Error> {
    let task = Task::new(dataset, options)?;
    let meter = Meter::new(task.truths.len() * options.models.len(), progress);
    let results: Result<Vec<_>, Error> = options
        .models
        .par_iter()
        .map(|&model| task.judge(model, &meter))
        .collect();
    Ok(results?.concat())
}

/// What all models are asked.
struct Task<'a> {
    dataset: &'a Dataset,
    options: &'a EvaluationOptions,
    before: &'a [Interaction],
    segment: &'a [Interaction],
    live: LiveState,
    /// By item: whether anybody had touched it.
    known: Vec<bool>,
    /// By warm user: new positives, ascending.
    truths: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Task<'a> {
    fn new(dataset: &'a Dataset, options: &'a EvaluationOptions) -> Result<Self, Error> {
        if options.segment == Segment::Train {
            return Err(Error::Data("nothing comes before the train segment".into()));
        }
        let range = dataset.range(options.segment);
        let before = &dataset.interactions()[..range.start];
        let segment = &dataset.interactions()[range];
        let items = dataset.catalogue().len();
        let mut live = LiveState::new(options.params.live.clone())?;
        live.ensure_items(items);
        let mut known = vec![false; items];
        for event in before {
            live.observe(event);
            known[event.item as usize] = true;
        }
        let mut truths: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for event in segment
            .iter()
            .filter(|event| event.is_like() && known[event.item as usize])
        {
            if !live.history(event.user).is_empty() && !live.is_seen(event.user, event.item) {
                truths.entry(event.user).or_default().push(event.item);
            }
        }
        for truth in truths.values_mut() {
            truth.sort_unstable();
            truth.dedup();
        }
        Ok(Self {
            dataset,
            options,
            before,
            segment,
            live,
            known,
            truths,
        })
    }

    fn judge(&self, model: ModelName, meter: &Meter<'_>) -> Result<Vec<ResultRow>, Error> {
        let options = self.options;
        let mut contender = Contender::new(model, &options.params, options.seed)?;
        contender.fit(self.before, self.dataset.catalogue())?;
        let binding = contender.binding();
        let query = |user| Query {
            binding: &binding,
            live: &self.live,
            context: Context::of_user(&self.live, user),
            now_ms: self.live.last_event_ms().unwrap_or(0),
        };
        let mut cases = Vec::new();
        let mut tops: Vec<Vec<u32>> = Vec::new();
        for (&user, truth) in &self.truths {
            let query = query(user);
            let scores = contender.score(&query);
            let mut ranked: Vec<u32> = (0..scores.len() as u32)
                .filter(|&item| self.known[item as usize] && !query.context.is_seen(item))
                .collect();
            ranked.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
            cases.extend(Case::of_list(user, &ranked, truth));
            ranked.truncate(100);
            tops.push(ranked);
            meter.add(1);
        }
        let ratings: Vec<RatingCase> = self
            .segment
            .iter()
            .filter(|event| self.truths.contains_key(&event.user))
            .filter_map(|event| {
                Some(RatingCase {
                    warm: true,
                    has_history: true,
                    predicted: contender.stars(&query(event.user), event.item)?,
                    given: f64::from(event.rating?),
                })
            })
            .collect();
        let (items, known) = (
            self.known.len(),
            self.known.iter().filter(|&&known| known).count(),
        );
        let share = coverage(tops.iter().map(Vec::as_slice), items) * items as f64 / known.max(1) as f64;
        let heading = Heading {
            protocol: "static",
            segment: options.segment,
            draws: options.bootstrap_draws,
            seed: options.seed,
        };
        Ok(rows(heading, model, &cases, &ratings, share, &[Population::Warm]))
    }
}
