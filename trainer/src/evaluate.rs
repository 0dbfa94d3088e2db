//! Judging served models on held-out interactions, by the code that serves, in two ways at once.
//!
//! *Static, over rolling cutoffs.* The held-out interactions are cut into folds of equal length. At the start of each
//! fold every *warm* user (one with a history by then) gets one list of the whole catalogue without what it has
//! touched; its truth are its positives in the fold, new to it, among movies that somebody had touched by then.
//!
//! *Prequential, over the newest positives.* Each is predicted from what happened strictly before it: the expected
//! rank of its movie among all that its user has not touched, for warm and cold users alike. Then it is revealed.
//!
//! The models stay as they were fitted; the live state moves on with what was revealed, as it does in service. All
//! models of an [`Exam`] meet the same users, events and states.

mod scorecard;

use std::collections::{BTreeMap, BTreeSet};

use marquee_models::live::{Interaction, LiveState};
use marquee_models::metrics::{
    expected_rank, first_relevant, hit, list_metrics, reciprocal_rank, single_ndcg,
};
use marquee_models::served::{Binding, Catalogue, Context, Query, ScoreScratch, ServedModel};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use scorecard::{Figures, METRICS, Panel, Protocol, Scorecard, UserFigures};
use scorecard::{PanelBuilder, STREAM_METRICS};

use crate::Error;

/// Length of the lists whose union is the coverage.
const COVERAGE_K: usize = 100;

/// Settings of an exam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExamConfig {
    /// Cutoffs of the static protocol; each costs one list per warm user.
    pub folds: usize,
    /// Most lists per cutoff; of more warm users an even share is asked.
    pub lists_per_fold: usize,
    /// Newest held-out positives that are predicted one by one; each costs one list.
    pub stream_positives: usize,
}

impl Default for ExamConfig {
    fn default() -> Self {
        Self {
            folds: 3,
            lists_per_fold: 1_500,
            stream_positives: 4_000,
        }
    }
}

impl ExamConfig {
    /// # Errors
    /// [`Error::Config`] naming the first setting outside its domain.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key, detail: &str| {
            Err(Error::Config {
                key,
                detail: detail.to_owned(),
            })
        };
        if !(1..=100).contains(&self.folds) {
            return refuse("exam.folds", "must lie between 1 and 100");
        }
        if self.lists_per_fold == 0 {
            return refuse("exam.lists_per_fold", "must be at least 1");
        }
        Ok(())
    }
}

/// One warm user at one cutoff: who, and what should be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Dense user index.
    pub user: u32,
    /// Dense item indices, ascending, never empty.
    pub truth: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Fold<'a> {
    events: &'a [Interaction],
    cases: Vec<Case>,
}

/// What all models are asked.
#[derive(Debug, Clone)]
pub struct Exam<'a> {
    catalogue: &'a Catalogue,
    train: &'a [Interaction],
    folds: Vec<Fold<'a>>,
    /// Held-out events before this one are revealed without being predicted.
    stream_from: usize,
    /// Items touched by anybody, held out or not.
    known: BTreeSet<u32>,
}

impl<'a> Exam<'a> {
    /// The questions of a split; `train` and `test` are ordered by time.
    #[must_use]
    pub fn new(
        catalogue: &'a Catalogue,
        train: &'a [Interaction],
        test: &'a [Interaction],
        config: &ExamConfig,
    ) -> Self {
        let mut seen = Seen::default();
        train.iter().for_each(|event| seen.add(event));
        let folds = divide(test, config.folds)
            .map(|events| {
                let cases = some_of(cases(&seen, events), config.lists_per_fold);
                events.iter().for_each(|event| seen.add(event));
                Fold { events, cases }
            })
            .collect();
        let likes = test.iter().filter(|event| event.is_like()).count();
        let passed_over = likes.saturating_sub(config.stream_positives);
        let stream_from = test
            .iter()
            .enumerate()
            .filter(|(_, event)| event.is_like())
            .nth(passed_over)
            .map_or(test.len(), |(index, _)| index);
        Self {
            catalogue,
            train,
            folds,
            // Events of one moment are predicted together or not at all.
            stream_from: test.get(stream_from).map_or(test.len(), |first| {
                test.partition_point(|event| event.time_ms < first.time_ms)
            }),
            known: seen.items,
        }
    }

    /// Whether there is anything to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let events: usize = self.folds.iter().map(|fold| fold.events.len()).sum();
        self.stream_from >= events && self.folds.iter().all(|fold| fold.cases.is_empty())
    }

    /// Judges `model`, whose own catalogue may be an older one. The result does not depend on the number of threads.
    ///
    /// # Errors
    /// The model's live settings are out of their domain.
    pub fn judge(&self, model: &ServedModel) -> Result<Scorecard, marquee_models::Error> {
        let mut live = self.state(model)?;
        let binding = model.bind_catalogue(self.catalogue);
        let mut fixed = PanelBuilder::default();
        let mut stream = PanelBuilder::default();
        let mut shown: BTreeSet<u32> = BTreeSet::new();
        let mut unsound = 0;
        let mut position = 0;
        let mut scratch = ScoreScratch::new();
        for fold in &self.folds {
            for answer in self.answer(model, &binding, &live, &fold.cases) {
                fixed.add(answer.user, &answer.figures);
                unsound += answer.unsound;
                shown.extend(answer.top);
            }
            for moment in fold.events.chunk_by(|a, b| a.time_ms == b.time_ms) {
                if position >= self.stream_from {
                    unsound += predict(moment, model, &binding, &live, &mut scratch, &mut stream);
                }
                moment.iter().for_each(|event| {
                    live.observe(event);
                });
                position += moment.len();
            }
        }
        let coverage = self.coverage(&shown);
        Ok(Scorecard {
            fixed: fixed.finish(Some(coverage)),
            stream: stream.finish(None),
            unsound,
        })
    }

    /// Judges popularity among what was revealed (likes per movie, the same order for everyone) by the static
    /// protocol: the floor that any model must beat.
    #[must_use]
    pub fn judge_popularity(&self) -> Scorecard {
        let mut likes = vec![0_u32; self.catalogue.len()];
        let mut seen = Seen::default();
        let reveal = |events: &[Interaction], likes: &mut Vec<u32>, seen: &mut Seen| {
            for event in events {
                seen.add(event);
                if let Some(count) = likes.get_mut(event.item as usize).filter(|_| event.is_like()) {
                    *count += 1;
                }
            }
        };
        reveal(self.train, &mut likes, &mut seen);
        let mut fixed = PanelBuilder::default();
        let mut shown = BTreeSet::new();
        for fold in &self.folds {
            let mut order: Vec<u32> = (0..likes.len() as u32).collect();
            order.sort_by_key(|&item| (std::cmp::Reverse(likes[item as usize]), item));
            for case in &fold.cases {
                let ranked: Vec<u32> = order
                    .iter()
                    .copied()
                    .filter(|&item| !seen.touched.contains(&(case.user, item)))
                    .collect();
                fixed.add(case.user, &figures_of_list(&ranked, &case.truth));
                shown.extend(ranked.into_iter().take(COVERAGE_K));
            }
            reveal(fold.events, &mut likes, &mut seen);
        }
        Scorecard {
            fixed: fixed.finish(Some(self.coverage(&shown))),
            stream: Panel::default(),
            unsound: 0,
        }
    }

    fn state(&self, model: &ServedModel) -> Result<LiveState, marquee_models::Error> {
        let mut live = LiveState::new(model.params().live.clone())?;
        live.ensure_items(self.catalogue.len());
        for event in self.train {
            live.observe(event);
        }
        Ok(live)
    }

    fn answer(
        &self,
        model: &ServedModel,
        binding: &Binding,
        live: &LiveState,
        cases: &[Case],
    ) -> Vec<Answer> {
        let now_ms = live.last_event_ms().unwrap_or(0);
        cases
            .par_iter()
            .map_init(ScoreScratch::new, |scratch, case| {
                let query = Query {
                    binding,
                    live,
                    context: Context::of_user(live, case.user),
                    now_ms,
                };
                let list = model.recommend(&query, self.catalogue.len(), |_| false, scratch);
                let ranked: Vec<u32> = list.items.iter().map(|item| item.item).collect();
                Answer {
                    user: case.user,
                    figures: figures_of_list(&ranked, &case.truth),
                    unsound: list.items.iter().filter(|item| !item.score.is_finite()).count(),
                    top: ranked.into_iter().take(COVERAGE_K).collect(),
                }
            })
            .collect()
    }

    fn coverage(&self, shown: &BTreeSet<u32>) -> f64 {
        shown.intersection(&self.known).count() as f64 / self.known.len().max(1) as f64
    }
}

struct Answer {
    user: u32,
    figures: Figures,
    top: Vec<u32>,
    unsound: usize,
}

/// Who touched what so far.
#[derive(Debug, Default)]
struct Seen {
    touched: BTreeSet<(u32, u32)>,
    items: BTreeSet<u32>,
    users: BTreeSet<u32>,
}

impl Seen {
    fn add(&mut self, event: &Interaction) {
        self.touched.insert((event.user, event.item));
        self.items.insert(event.item);
        self.users.insert(event.user);
    }
}

/// `events` in up to `folds` runs of nearly equal length; events of one moment are never torn apart.
fn divide(events: &[Interaction], folds: usize) -> impl Iterator<Item = &[Interaction]> {
    let mut bounds: Vec<usize> = (0..=folds)
        .map(|fold| {
            let at = events.len() * fold / folds.max(1);
            events.get(at).map_or(events.len(), |first| {
                events.partition_point(|event| event.time_ms < first.time_ms)
            })
        })
        .collect();
    bounds.dedup();
    let runs: Vec<_> = bounds.windows(2).map(|pair| &events[pair[0]..pair[1]]).collect();
    runs.into_iter()
}

fn cases(seen: &Seen, events: &[Interaction]) -> Vec<Case> {
    let mut truth: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.is_like()) {
        if seen.users.contains(&event.user)
            && seen.items.contains(&event.item)
            && !seen.touched.contains(&(event.user, event.item))
        {
            truth.entry(event.user).or_default().insert(event.item);
        }
    }
    truth
        .into_iter()
        .map(|(user, items)| Case {
            user,
            truth: items.into_iter().collect(),
        })
        .collect()
}

/// At most `most` of the cases, evenly spread over the users.
fn some_of(cases: Vec<Case>, most: usize) -> Vec<Case> {
    let (count, kept) = (cases.len(), cases.len().min(most));
    let mut next = 0;
    cases
        .into_iter()
        .enumerate()
        .filter(|(index, _)| {
            let chosen = next < kept && *index == next * count / kept;
            next += usize::from(chosen);
            chosen
        })
        .map(|(_, case)| case)
        .collect()
}

/// Figures of one list against a truth that is not empty, in the order of [`METRICS`].
fn figures_of_list(ranked: &[u32], truth: &[u32]) -> Figures {
    let (Some(ten), Some(twenty)) = (list_metrics(ranked, truth, 10), list_metrics(ranked, truth, 20)) else {
        return [f64::NAN; METRICS.len()];
    };
    [
        ten.ndcg,
        ten.hit,
        first_relevant(ranked, truth),
        ten.precision,
        ten.recall,
        twenty.recall,
        ten.average_precision,
    ]
}

/// Predicts the positives of one moment; gives the number of scores that are not finite.
fn predict(
    moment: &[Interaction],
    model: &ServedModel,
    binding: &Binding,
    live: &LiveState,
    scratch: &mut ScoreScratch,
    panel: &mut PanelBuilder,
) -> usize {
    let mut likers: Vec<u32> = moment
        .iter()
        .filter(|event| event.is_like())
        .map(|event| event.user)
        .collect();
    likers.sort_unstable();
    likers.dedup();
    let mut unsound = 0;
    for user in likers {
        let query = Query {
            binding,
            live,
            context: Context::of_user(live, user),
            // A late event must not turn the clock back.
            now_ms: live
                .last_event_ms()
                .map_or(moment[0].time_ms, |last| last.max(moment[0].time_ms)),
        };
        let targets: BTreeSet<u32> = moment
            .iter()
            .filter(|event| event.user == user && event.is_like() && !query.context.is_seen(event.item))
            .map(|event| event.item)
            .collect();
        if targets.is_empty() {
            continue;
        }
        let scores = model.score_all(&query, scratch);
        unsound += scores.iter().filter(|score| !score.is_finite()).count();
        for target in targets {
            // A score that is no number has no rank: it counts as a miss, and as unsound above.
            let rank = expected_rank(scores, target, |item| query.context.is_seen(item));
            let rank = rank.unwrap_or(scores.len() as f64);
            let mut figures = [0.0; METRICS.len()];
            figures[..STREAM_METRICS].copy_from_slice(&[
                single_ndcg(rank, 10),
                hit(rank, 10),
                reciprocal_rank(rank),
            ]);
            panel.add(user, &figures);
        }
    }
    unsound
}

#[cfg(test)]
mod tests;
