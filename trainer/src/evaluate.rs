//! Judging a served model on held-out interactions: the static protocol, one list per warm user.
//!
//! *Warm* users have a history among the training interactions and at least one new positive among the held-out ones.
//! A user's truth is its held-out positives, without movies it had touched before and without movies that nobody had
//! touched before. The whole catalogue is ranked, without what the user has seen, by the code that serves.

use std::collections::{BTreeMap, BTreeSet};

use marquee_models::live::{Interaction, LiveState};
use marquee_models::metrics::{first_relevant, list_metrics};
use marquee_models::served::{Catalogue, Context, Query, ScoreScratch, ServedModel};
use rayon::prelude::*;

/// Length of the lists whose union is the coverage.
const COVERAGE_K: usize = 100;

/// One warm user: who, and what should be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Dense user index.
    pub user: u32,
    /// Dense item indices, ascending, never empty.
    pub truth: Vec<u32>,
}

/// The cases of a split, by ascending user; `train` and `test` are ordered by time.
#[must_use]
pub fn cases(train: &[Interaction], test: &[Interaction]) -> Vec<Case> {
    let touched: BTreeSet<(u32, u32)> = train.iter().map(|event| (event.user, event.item)).collect();
    let known: BTreeSet<u32> = train.iter().map(|event| event.item).collect();
    let warm: BTreeSet<u32> = train.iter().map(|event| event.user).collect();
    let mut truth: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for event in test.iter().filter(|event| event.is_like()) {
        if warm.contains(&event.user)
            && known.contains(&event.item)
            && !touched.contains(&(event.user, event.item))
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

/// A model's figures over a list of [`Case`]s.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scorecard {
    /// `ndcg@10`, `hr@10`, `recall@20`, `mrr`, `coverage@100`, and `n`, the number of users; without users only `n`.
    pub metrics: BTreeMap<String, f64>,
    /// NDCG@10 of each case, in their order.
    pub ndcg: Vec<f64>,
    /// Scores that were not finite.
    pub unsound: usize,
}

impl Scorecard {
    /// The card of a model that nobody was asked about.
    #[must_use]
    pub fn without_users() -> Self {
        scorecard(&[], &BTreeSet::new())
    }

    /// A metric by name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    /// Number of users.
    #[must_use]
    pub fn users(&self) -> usize {
        self.ndcg.len()
    }

    /// Whether all scores and metrics are finite.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.unsound == 0 && self.metrics.values().all(|value| value.is_finite())
    }
}

struct Judged {
    ndcg: f64,
    hit: f64,
    recall: f64,
    mrr: f64,
    top: Vec<u32>,
    unsound: usize,
}

/// Judges `model` on `cases` with the state that `train` leaves behind. `catalogue` is in the dense order of `train`;
/// the model's own may be an older one. The result does not depend on the number of threads.
///
/// # Errors
/// The model's live settings are out of their domain.
pub fn judge(
    model: &ServedModel,
    catalogue: &Catalogue,
    train: &[Interaction],
    cases: &[Case],
) -> Result<Scorecard, marquee_models::Error> {
    let mut live = LiveState::new(model.params().live.clone())?;
    live.ensure_items(catalogue.len());
    for event in train {
        live.observe(event);
    }
    let binding = model.bind_catalogue(catalogue);
    let now_ms = live.last_event_ms().unwrap_or(0);
    let judged: Vec<Judged> = cases
        .par_iter()
        .map_init(ScoreScratch::new, |scratch, case| {
            let query = Query {
                binding: &binding,
                live: &live,
                context: Context::of_user(&live, case.user),
                now_ms,
            };
            let list = model.recommend(&query, catalogue.len(), |_| false, scratch);
            let ranked: Vec<u32> = list.items.iter().map(|item| item.item).collect();
            let ten = list_metrics(&ranked, &case.truth, 10);
            let twenty = list_metrics(&ranked, &case.truth, 20);
            Judged {
                ndcg: ten.map_or(f64::NAN, |metrics| metrics.ndcg),
                hit: ten.map_or(f64::NAN, |metrics| metrics.hit),
                recall: twenty.map_or(f64::NAN, |metrics| metrics.recall),
                mrr: first_relevant(&ranked, &case.truth),
                unsound: list.items.iter().filter(|item| !item.score.is_finite()).count(),
                top: ranked.into_iter().take(COVERAGE_K).collect(),
            }
        })
        .collect();
    let known: BTreeSet<u32> = train.iter().map(|event| event.item).collect();
    Ok(scorecard(&judged, &known))
}

/// Popularity among `train`, the floor that any model must beat: likes per item, the same list for everyone.
#[must_use]
pub fn judge_popularity(items: usize, train: &[Interaction], cases: &[Case]) -> Scorecard {
    let mut likes = vec![0_u32; items];
    let mut seen: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for event in train {
        if let Some(count) = likes.get_mut(event.item as usize).filter(|_| event.is_like()) {
            *count += 1;
        }
        seen.entry(event.user).or_default().insert(event.item);
    }
    let mut order: Vec<u32> = (0..items as u32).collect();
    order.sort_by_key(|&item| (std::cmp::Reverse(likes[item as usize]), item));
    let nothing = BTreeSet::new();
    let judged: Vec<Judged> = cases
        .iter()
        .map(|case| {
            let own = seen.get(&case.user).unwrap_or(&nothing);
            let ranked: Vec<u32> = order.iter().copied().filter(|item| !own.contains(item)).collect();
            let ten = list_metrics(&ranked, &case.truth, 10);
            Judged {
                ndcg: ten.map_or(f64::NAN, |metrics| metrics.ndcg),
                hit: ten.map_or(f64::NAN, |metrics| metrics.hit),
                recall: list_metrics(&ranked, &case.truth, 20).map_or(f64::NAN, |metrics| metrics.recall),
                mrr: first_relevant(&ranked, &case.truth),
                unsound: 0,
                top: ranked.into_iter().take(COVERAGE_K).collect(),
            }
        })
        .collect();
    let known: BTreeSet<u32> = train.iter().map(|event| event.item).collect();
    scorecard(&judged, &known)
}

/// Sums in case order: a parallel sum would depend on the threads.
fn scorecard(judged: &[Judged], known: &BTreeSet<u32>) -> Scorecard {
    let mut metrics = BTreeMap::from([("n".to_owned(), judged.len() as f64)]);
    if !judged.is_empty() {
        let n = judged.len() as f64;
        let mean = |value: fn(&Judged) -> f64| judged.iter().map(value).sum::<f64>() / n;
        metrics.insert("ndcg@10".into(), mean(|user| user.ndcg));
        metrics.insert("hr@10".into(), mean(|user| user.hit));
        metrics.insert("recall@20".into(), mean(|user| user.recall));
        metrics.insert("mrr".into(), mean(|user| user.mrr));
        let shown: BTreeSet<u32> = judged.iter().flat_map(|user| &user.top).copied().collect();
        let known_shown = shown.intersection(known).count() as f64;
        metrics.insert("coverage@100".into(), known_shown / known.len().max(1) as f64);
    }
    Scorecard {
        metrics,
        ndcg: judged.iter().map(|user| user.ndcg).collect(),
        unsound: judged.iter().map(|user| user.unsound).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: u32, item: u32, stars: f32, time_ms: i64) -> Interaction {
        Interaction {
            user,
            item,
            rating: Some(stars),
            weight: 1.0,
            time_ms,
        }
    }

    #[test]
    fn truth_holds_new_positives_of_warm_users_among_known_items() {
        let train = [event(0, 0, 5.0, 1), event(1, 1, 5.0, 2), event(1, 2, 2.0, 3)];
        let test = [
            event(0, 1, 4.0, 4), // counts
            event(0, 2, 3.5, 5), // not a positive
            event(0, 0, 5.0, 6), // touched before
            event(0, 9, 5.0, 7), // unknown item
            event(7, 1, 5.0, 8), // cold user
        ];
        assert_eq!(
            cases(&train, &test),
            [Case {
                user: 0,
                truth: vec![1]
            }]
        );
    }

    #[test]
    fn popularity_ranks_by_likes_and_skips_what_the_user_has_seen() {
        let train = [
            event(0, 0, 5.0, 1),
            event(1, 0, 5.0, 1),
            event(1, 1, 5.0, 2),
            event(2, 2, 1.0, 2),
        ];
        let cases = [Case {
            user: 0,
            truth: vec![1],
        }];
        let card = judge_popularity(3, &train, &cases);
        assert_eq!(card.metric("ndcg@10"), Some(1.0));
        assert_eq!(card.metric("mrr"), Some(1.0));
        assert_eq!(card.metric("n"), Some(1.0));
        assert_eq!(card.metric("coverage@100"), Some(2.0 / 3.0));
    }

    #[test]
    fn without_cases_there_is_only_their_number() {
        let card = judge_popularity(3, &[], &[]);
        assert_eq!(card.metrics, BTreeMap::from([("n".to_owned(), 0.0)]));
        assert!(card.is_sound());
    }
}
