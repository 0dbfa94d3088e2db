//! What became of the served lists.
//!
//! **Which interactions answer a list.** Those of kinds that make history, dislikes excepted, of the list's user, at
//! most the attribution window after it (event time). Each answers one list: the one whose `request_id` it names;
//! else the user's latest list that contains its movie (last touch); else the user's latest list, which thereby
//! missed. A repeated `event_id` of a user, and a repeated act on the same movie of the same list, count once. A list younger
//! than the window may still be answered: it is *censored*, that is counted and left out.
//!
//! **What is measured.** Among the lists that were answered at all: the share with an answered movie among the first k
//! (hit rate), precision, NDCG and reciprocal rank over the first k with the answered movies as relevant, the share
//! answered by the movie at each position, and the time to the first answer. Users need not have seen the list: where
//! nothing reports clicks this says how well the list foretold what they did next, which is why it is called the
//! *next-interaction* hit rate. A click-through rate (clicked items over shown items, over all lists) and the share of
//! lists with a click are given only where clicks name the lists that they answer: whether they do is decided once, for
//! all models together. A model that nobody clicks has a rate of zero then; were it left out instead, its good windows
//! alone would speak for it.
//!
//! **How much is held at once** does not grow with the period or the traffic: lists are looked at an hour and a share of
//! the users at a time, in smaller pieces where memory is short ([`chunk`]); the figures are the same.
//!
//! **Intervals** (95%) treat a user's lists as one cluster, see [`marquee_statistics::cluster`].

mod attribution;
mod chunk;
mod list;
mod load;
mod schedule;
mod tally;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use marquee_statistics::Estimate;

pub(crate) use attribution::By;
pub(crate) use chunk::{Chunk, Pieces, Span, load_chunk};
pub(crate) use list::List;
pub(crate) use load::{between, misshapen, text_at};
pub(crate) use schedule::{Pace, Schedule, Window};
pub(crate) use tally::{Outcome, cluster_of, cluster_of_request, ndcg};

use tally::{Figure, Tally, difference};

use crate::error::Error;
use crate::lake::manifests;
use crate::sql::{ATTEMPTS, SqlError, SqlOptions, is_vanished_file, session};
use crate::table::Table;

/// How an evaluation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationOptions {
    /// Positions that count.
    pub k: usize,
    /// How long after a list an interaction may answer it, ms of event time.
    pub attribution_window_ms: i64,
    /// The moment at which the evaluation is made, ms: lists whose window is not over by then are censored.
    pub as_of_ms: i64,
    /// Whether clicks are known to name lists, though perhaps none does in this period.
    pub clicks_reported: bool,
    /// Memory for the lists and interactions that are looked at together, bytes; what takes more is looked at in several
    /// pieces.
    pub memory_limit_bytes: usize,
}

/// Memory for what is looked at together.
const MEMORY_BYTES: usize = 512 * 1024 * 1024;

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            k: 10,
            attribution_window_ms: 30 * 60 * 1000,
            as_of_ms: i64::MAX,
            clicks_reported: false,
            memory_limit_bytes: MEMORY_BYTES,
        }
    }
}

/// Which of a model's lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slice {
    /// All of them.
    All,
    /// Those that rest on something their user did before.
    Warm,
    /// Those that do not.
    Cold,
    /// Those of one surface.
    Surface(Arc<str>),
    /// Those of one arm of an experiment.
    Arm {
        /// The experiment.
        experiment: Arc<str>,
        /// The arm.
        arm: Arc<str>,
    },
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Warm => f.write_str("warm"),
            Self::Cold => f.write_str("cold"),
            Self::Surface(name) => write!(f, "surface {name}"),
            Self::Arm { experiment, arm } => write!(f, "arm {experiment}/{arm}"),
        }
    }
}

/// The outcome of one slice of one model's lists.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceEvaluation {
    /// The model; `None` for lists served before the first one.
    pub model_version: Option<String>,
    /// Which of its lists.
    pub slice: Slice,
    /// Lists that count.
    pub lists: u64,
    /// Lists too young to count.
    pub censored: u64,
    /// Lists that count and were answered.
    pub answered: u64,
    /// Users with lists that count (each anonymous list is one).
    pub users: u64,
    /// Share of the answered lists with an answered movie among the first k.
    pub hit_rate: Option<Estimate>,
    /// Mean share of the first k that were answered, over the answered lists.
    pub precision: Option<Estimate>,
    /// Mean NDCG over the first k of the answered lists.
    pub ndcg: Option<Estimate>,
    /// Mean reciprocal rank of the first answered movie within the first k, over the answered lists.
    pub mrr: Option<Estimate>,
    /// Clicked items over shown items; `None` where no model's clicks name lists.
    pub ctr: Option<Estimate>,
    /// Share of all lists with a click on them; `None` where no model's clicks name lists.
    pub clicked_lists: Option<Estimate>,
    /// Seconds from the list to its first answer, geometric mean.
    pub seconds_to_answer: Option<Estimate>,
    /// Distinct movies among the first k of all lists.
    pub distinct_movies: u64,
    /// The same over the catalogue's size; a count, so without an interval.
    pub coverage: Option<f64>,
    /// Share of the answered lists answered by the movie at each position, from the top.
    pub by_position: Vec<Estimate>,
}

/// One model against another over the same period.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelComparison {
    /// The first model.
    pub from: String,
    /// The second model.
    pub to: String,
    /// The second's figure less the first's, by the figure's name.
    pub differences: Vec<(&'static str, Estimate)>,
}

/// The outcome of all lists of a period.
#[derive(Debug, Clone)]
pub struct Evaluation {
    tallies: BTreeMap<(Option<Arc<str>>, Slice), Tally>,
    catalogue: u64,
    clicks_known: bool,
}

impl Evaluation {
    /// Whether clicks name the lists that they answer: one did, of whatever model, or it was known before.
    #[must_use]
    pub fn reports_clicks(&self) -> bool {
        self.clicks_known || self.tallies.values().any(|tally| tally.clicks > 0)
    }

    /// Every slice of every model, in order.
    #[must_use]
    pub fn slices(&self) -> Vec<SliceEvaluation> {
        let reported = self.reports_clicks();
        self.tallies
            .iter()
            .map(|((version, slice), tally)| SliceEvaluation {
                model_version: version.as_deref().map(str::to_owned),
                slice: slice.clone(),
                lists: tally.lists,
                censored: tally.censored,
                answered: tally.answered,
                users: tally.users(),
                hit_rate: tally.hit_rate(),
                precision: tally.precision(),
                ndcg: tally.ndcg(),
                mrr: tally.mrr(),
                ctr: tally.ctr().filter(|_| reported),
                clicked_lists: tally.clicked_lists().filter(|_| reported),
                seconds_to_answer: tally.seconds_to_answer(),
                distinct_movies: tally.distinct_movies(),
                coverage: (self.catalogue > 0)
                    .then(|| tally.distinct_movies() as f64 / self.catalogue as f64),
                by_position: tally.by_position(),
            })
            .collect()
    }

    /// How much better `to` did than `from`. They served different requests, and perhaps at different times: this is
    /// what was observed, not what the model caused; that takes an experiment. `None` if one of them served nothing.
    #[must_use]
    pub fn compare(&self, from: &str, to: &str) -> Option<ModelComparison> {
        let of = |version: &str| self.tallies.get(&(Some(version.into()), Slice::All));
        let (a, b) = (of(from)?, of(to)?);
        let figures = [
            ("hit rate", Figure::HitRate),
            ("ndcg", Figure::Ndcg),
            ("mrr", Figure::Mrr),
            ("ctr", Figure::Ctr),
        ];
        let reported = self.reports_clicks();
        Some(ModelComparison {
            from: from.to_owned(),
            to: to.to_owned(),
            differences: figures
                .into_iter()
                .filter(|(_, figure)| reported || !matches!(figure, Figure::Ctr))
                .filter_map(|(name, figure)| Some((name, difference(a, b, figure)?)))
                .collect(),
        })
    }

    fn add(&mut self, chunk: &Chunk, options: &EvaluationOptions) {
        let mut outcomes: Vec<Outcome> = vec![Outcome::default(); chunk.lists.len()];
        for found in &chunk.attributions {
            outcomes[found.list].add(&chunk.answers[found.answer], found);
        }
        for (at, list) in chunk.lists.iter().enumerate() {
            if &*list.endpoint != "recommend" {
                continue;
            }
            let is_young = list.time_ms.saturating_add(options.attribution_window_ms) > options.as_of_ms;
            for slice in slices_of(list) {
                let tally = self
                    .tallies
                    .entry((list.model_version.clone(), slice))
                    .or_default();
                if is_young {
                    tally.censor();
                } else {
                    tally.add(list, &outcomes[at], options.k);
                }
            }
        }
    }
}

fn slices_of(list: &List) -> impl Iterator<Item = Slice> {
    let warmth = if list.is_cold() { Slice::Cold } else { Slice::Warm };
    let arm = list.experiment.clone().zip(list.arm.clone());
    [Slice::All, warmth]
        .into_iter()
        .chain(list.surface.clone().map(Slice::Surface))
        .chain(arm.map(|(experiment, arm)| Slice::Arm { experiment, arm }))
}

/// The event times of each file with lists.
fn spans(lake_dir: &Path) -> Result<Vec<Span>, Error> {
    Ok(manifests(lake_dir, Table::RequestLogs)?
        .iter()
        .flat_map(|manifest| &manifest.files)
        .filter_map(|file| {
            Some(Span {
                first_ms: file.min_ms?,
                last_ms: file.max_ms?,
                rows: file.rows,
            })
        })
        .collect())
}

/// Does something with the lake's tables, anew if a file it was about to read has been merged away meanwhile.
pub(crate) async fn with_session<T, F>(
    lake_dir: &Path,
    work: impl Fn(SessionContext) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, datafusion::common::DataFusionError>>,
{
    with_session_within(lake_dir, SqlOptions::default().memory_limit_bytes, work).await
}

/// The same within so much memory.
async fn with_session_within<T, F>(
    lake_dir: &Path,
    memory_limit_bytes: usize,
    work: impl Fn(SessionContext) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, datafusion::common::DataFusionError>>,
{
    let options = SqlOptions {
        memory_limit_bytes,
        ..SqlOptions::default()
    };
    let mut attempt = 1;
    loop {
        let context = session(lake_dir, &options).await?;
        match work(context).await {
            Err(error) if attempt < ATTEMPTS && is_vanished_file(&error.to_string()) => attempt += 1,
            outcome => return outcome.map_err(|error| Error::Sql(SqlError::of_run(&error))),
        }
    }
}

/// Runs over the lists from `from_ms` (inclusive) to `to_ms` (exclusive) with what answered them, an hour or an
/// attribution window at a time, and of that as much as the memory holds.
pub(crate) async fn for_each_chunk(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
    window_ms: i64,
    with: impl FnMut(Chunk),
) -> Result<(), Error> {
    for_each_chunk_within(lake_dir, from_ms, to_ms, window_ms, MEMORY_BYTES, with).await
}

async fn for_each_chunk_within(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
    window_ms: i64,
    memory_limit_bytes: usize,
    mut with: impl FnMut(Chunk),
) -> Result<(), Error> {
    let mut pieces = Pieces::of(from_ms, to_ms, window_ms, &spans(lake_dir)?);
    while let Some(piece) = pieces.next() {
        let load = |context| async move { load_chunk(&context, piece, window_ms).await };
        match with_session_within(lake_dir, memory_limit_bytes, load).await {
            Ok(chunk) => with(chunk),
            Err(Error::Sql(SqlError::Memory(reason))) => {
                if !pieces.divide(piece) {
                    return Err(Error::Sql(SqlError::Memory(reason)));
                }
                tracing::debug!(?piece, "more than its memory holds, in smaller pieces");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Evaluates the lists that `POST /recommend` served from `from_ms` (inclusive) to `to_ms` (exclusive), by model
/// version and slice.
///
/// # Errors
/// [`Error::Sql`] if the lake cannot be read.
pub async fn evaluate(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
    options: EvaluationOptions,
) -> Result<Evaluation, Error> {
    let mut evaluation = Evaluation {
        tallies: BTreeMap::new(),
        catalogue: manifests(lake_dir, Table::Movies)?
            .iter()
            .flat_map(|manifest| &manifest.files)
            .map(|file| file.rows)
            .sum(),
        clicks_known: options.clicks_reported,
    };
    let window = options.attribution_window_ms.max(0);
    let memory = options.memory_limit_bytes;
    for_each_chunk_within(lake_dir, from_ms, to_ms, window, memory, |chunk| {
        evaluation.add(&chunk, &options)
    })
    .await?;
    Ok(evaluation)
}

#[cfg(test)]
pub(crate) use list::testing;

#[cfg(test)]
mod tests;
