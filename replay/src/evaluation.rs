//! What became of the served lists: the next-interaction hit rate and NDCG of each model.
//!
//! **Which interactions answer a list.** Those of kinds that make history, dislikes excepted, of the list's user, at
//! most the attribution window after it (event time). Each answers one list: the one whose `request_id` it names;
//! else the user's latest list that contains its movie (last touch); else the user's latest list, which thereby
//! missed. A repeated `event_id` and a repeated movie count once.
//!
//! **What is measured.** Among the lists that were answered at all, the share with at least one of the answered
//! movies among the first k (hit rate), and NDCG over the first k with the answered movies as relevant. Users need
//! not have seen the list: where nothing reports clicks this says how well the list foretold what they did next,
//! which is why it is called the *next-interaction* hit rate and not a click-through rate.
//!
//! **Intervals** (95%) treat a user's lists as one cluster: linearised ratio estimator for the variance (Cochran,
//! *Sampling Techniques*, 3rd ed., section 6.3), then Wilson's score interval on the effective sample size for the
//! hit rate, and the normal interval for NDCG.

mod attribution;
mod estimate;
mod load;
mod schedule;

use std::collections::BTreeMap;
use std::path::Path;

pub use estimate::Estimate;
pub(crate) use schedule::{Schedule, Window};

use attribution::{Answer, List, attribute, ndcg};
use estimate::{mean, proportion};

use crate::error::Error;
use crate::sql::{ATTEMPTS, SqlOptions, is_vanished_file, session};

/// How an evaluation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationOptions {
    /// Positions that count.
    pub k: usize,
    /// How long after a list an interaction may answer it, ms of event time.
    pub attribution_window_ms: i64,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            k: 10,
            attribution_window_ms: 30 * 60 * 1000,
        }
    }
}

/// The outcome of one model's lists.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEvaluation {
    /// The model; `None` for lists served before the first one.
    pub model_version: Option<String>,
    /// Lists served in the period.
    pub lists: u64,
    /// Those among them that an interaction answered.
    pub answered: u64,
    /// Users who got lists.
    pub users: u64,
    /// Share of the answered lists with an answered movie among the first k; `None` without an answered list.
    pub hit_rate: Option<Estimate>,
    /// Mean NDCG over the first k of the answered lists.
    pub ndcg: Option<Estimate>,
}

/// What is needed to evaluate the lists of a period, from one snapshot of the lake.
async fn load_period(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
    window_ms: i64,
) -> Result<(Vec<List>, Vec<Answer>), Error> {
    let context = session(lake_dir, &SqlOptions::default()).await?;
    // Lists outside the period compete for the interactions at its edges.
    let from_list = from_ms.saturating_sub(window_ms);
    let to = to_ms.saturating_add(window_ms);
    let lists = load::lists(&context, from_list, to).await?;
    let from_answer = from_ms.saturating_sub(attribution::SKEW_MS);
    let answers = load::answers(&context, from_answer, to).await?;
    Ok((lists, answers))
}

/// Evaluates the lists that `POST /recommend` served from `from_ms` (inclusive) to `to_ms` (exclusive), by model
/// version. Lists younger than the attribution window may still be answered later; whoever asks about the very
/// present leaves them out by the choice of `to_ms`.
///
/// # Errors
/// [`Error::Sql`] if the lake cannot be read.
pub async fn evaluate(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
    options: EvaluationOptions,
) -> Result<Vec<ModelEvaluation>, Error> {
    let window = options.attribution_window_ms.max(0);
    let mut attempt = 1;
    let (lists, answers) = loop {
        match load_period(lake_dir, from_ms, to_ms, window).await {
            Err(error) if attempt < ATTEMPTS && is_vanished_file(&error.to_string()) => attempt += 1,
            outcome => break outcome?,
        }
    };
    let answered = attribute(&lists, &answers, window);

    #[derive(Default)]
    struct Group {
        lists: u64,
        answered: u64,
        /// User → (hits, sum of NDCG, answered lists).
        users: BTreeMap<u64, (f64, f64, f64)>,
    }
    let mut groups: BTreeMap<Option<&str>, Group> = BTreeMap::new();
    for (list, movies) in lists.iter().zip(&answered) {
        if !(from_ms..to_ms).contains(&list.time_ms) {
            continue;
        }
        let group = groups.entry(list.model_version.as_deref()).or_default();
        group.lists += 1;
        let user = group.users.entry(list.user_id).or_default();
        if movies.is_empty() {
            continue;
        }
        group.answered += 1;
        let first: Vec<u32> = list.movies.iter().copied().take(options.k).collect();
        let hit = first.iter().any(|movie| movies.contains(movie));
        user.0 += f64::from(u8::from(hit));
        user.1 += ndcg(&first, movies, options.k);
        user.2 += 1.0;
    }
    Ok(groups
        .into_iter()
        .map(|(version, group)| {
            let answered = || group.users.values().filter(|user| user.2 > 0.0);
            ModelEvaluation {
                model_version: version.map(str::to_owned),
                lists: group.lists,
                answered: group.answered,
                users: group.users.len() as u64,
                hit_rate: proportion(answered().map(|user| (user.0, user.2))),
                ndcg: mean(answered().map(|user| (user.1, user.2))),
            }
        })
        .collect())
}
