//! The static protocol: fit once, rank once per warm user.

use std::collections::BTreeMap;

use super::contender::Contenders;
use super::result::{CUTOFFS, Case, Heading, rows};
use super::{Dataset, EvaluationOptions, Population, Progress, ResultRow, Segment};
use crate::Error;
use crate::live::LiveState;
use crate::metrics::{coverage, first_relevant, list_metrics};
use crate::served::{Context, Query};

/// Fits on everything before the segment and ranks the catalogue, without what each user had seen, for every *warm*
/// user: one with an earlier interaction and at least one new positive in the segment among movies that had one too.
/// Coverage is over those known movies.
///
/// # Errors
/// [`Error::Data`] for the train segment; whatever a model's fit refuses.
pub fn static_eval(
    dataset: &Dataset,
    options: &EvaluationOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<ResultRow>, Error> {
    if options.segment == Segment::Train {
        return Err(Error::Data("nothing comes before the train segment".into()));
    }
    let range = dataset.range(options.segment);
    let (before, segment) = (
        &dataset.interactions()[..range.start],
        &dataset.interactions()[range],
    );
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
    let mut contenders = Contenders::fit(
        before,
        dataset.catalogue(),
        &options.models,
        &options.params,
        options.seed,
    )?;
    let binding = contenders.binding().clone();
    let now_ms = live.last_event_ms().unwrap_or(0);
    let heading = Heading {
        protocol: "static",
        segment: options.segment,
        draws: options.bootstrap_draws,
        seed: options.seed,
    };
    let total = truths.len() * options.models.len();
    let known_items = known.iter().filter(|&&known| known).count();
    let mut done = 0;
    let mut results = Vec::new();
    for &model in &options.models {
        let mut cases = Vec::new();
        let mut tops: Vec<Vec<u32>> = Vec::new();
        for (&user, truth) in &truths {
            let query = Query {
                binding: &binding,
                live: &live,
                context: Context::of_user(&live, user),
                now_ms,
            };
            let scores = contenders.score(model, &query);
            let mut ranked: Vec<u32> = (0..items as u32)
                .filter(|&item| known[item as usize] && !query.context.is_seen(item))
                .collect();
            ranked.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
            if let Some(case) = case(user, &ranked, truth) {
                cases.push(case);
            }
            ranked.truncate(100);
            tops.push(ranked);
            done += 1;
            progress(Progress { done, total });
        }
        let share =
            coverage(tops.iter().map(Vec::as_slice), items) * items as f64 / known_items.max(1) as f64;
        results.extend(rows(heading, model, &cases, share, &[Population::Warm]));
    }
    Ok(results)
}

fn case(user: u32, ranked: &[u32], truth: &[u32]) -> Option<Case> {
    let [a, b, c] = CUTOFFS.map(|k| list_metrics(ranked, truth, k));
    let all = [a?, b?, c?];
    Some(Case {
        user,
        warm: true,
        has_history: true,
        ndcg: all.map(|metrics| metrics.ndcg),
        hit: all.map(|metrics| metrics.hit),
        recall: all.map(|metrics| metrics.recall),
        precision: all.map(|metrics| metrics.precision),
        average_precision: all.map(|metrics| metrics.average_precision),
        reciprocal_rank: first_relevant(ranked, truth),
    })
}
