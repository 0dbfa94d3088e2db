//! From a snapshot to a model and its figures; no I/O, no clock.
//!
//! # What is held out
//! Without a champion: the newest share of the interactions by event time. With one: of the interactions that lie
//! beyond the champion's own offsets, the newest half, but no more than that share of everything. The challenger is
//! evaluated as fitted on all the rest, so the champion has learned from none of the held-out interactions and the
//! challenger from no more than what precedes them in the log; both get the same state and the same users. Comparing
//! on a plain time split would let a champion shine on what it was fitted with.
//!
//! The model that is published is then fitted, by the same recipe, on everything; its replay goes on where that of the
//! evaluation ended ([`Fitter`]).
//!
//! # Determinism
//! The same snapshot, settings and seed give the same bytes, whatever the number of threads.

mod split;

use std::collections::BTreeMap;

use marquee_models::live::LiveState;
use marquee_models::served::{Context, Query};
use marquee_models::served::{Fitter, ScoreScratch, ServedModel, ServedParams};

use crate::Config;
use crate::bundle::{Bundle, Manifest, Split};
use crate::evaluate::{Exam, ExamConfig, Scorecard};
use crate::gate::{self, Decision, GateConfig};
use crate::snapshot::Snapshot;

pub use split::Holdout;

/// Why a training gave no model. Poison for its retrain event: the same data would fail again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data cannot carry a model yet.
    #[error("not enough data: {what} are {found}, needed are {needed} ({detail})")]
    NotEnoughData {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        needed: usize,
        /// What became of the other records.
        detail: String,
    },
    /// The numerics refused data or hyperparameters.
    #[error(transparent)]
    Model(#[from] marquee_models::Error),
    /// The thread pool cannot be made.
    #[error("starting the training threads: {0}")]
    Threads(String),
    /// Told to stop.
    #[error("told to stop")]
    Cancelled,
}

/// Settings of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// Seed of everything random.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Hyperparameters.
    pub params: ServedParams,
    /// Fewest users.
    pub min_users: usize,
    /// Fewest interactions.
    pub min_interactions: usize,
    /// Largest share held out.
    pub holdout_share: f64,
    /// How models are judged.
    pub exam: ExamConfig,
    /// Whether the threads let everything else go first.
    pub yielding: bool,
    /// What the model must show.
    pub gate: GateConfig,
}

impl From<&Config> for RunSettings {
    fn from(config: &Config) -> Self {
        Self {
            seed: config.seed,
            threads: config.training_threads(),
            params: config.model_within_memory(),
            min_users: config.min_users,
            min_interactions: config.min_interactions,
            holdout_share: config.holdout_share,
            exam: config.exam.clone(),
            yielding: config.yielding,
            gate: config.gate.clone(),
        }
    }
}

impl RunSettings {
    /// The same without a ranker, see [`Config::quick_bootstrap`].
    #[must_use]
    pub fn without_ranker(mut self) -> Self {
        self.params.fit.window = 0;
        self
    }
}

/// A stage of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reading the data.
    Snapshot,
    /// Checking it.
    Validate,
    /// Fitting on what is not held out.
    FitForEvaluation,
    /// Judging challenger, champion and the popularity baseline.
    Evaluate,
    /// Fitting on everything.
    Fit,
    /// Storing and reading back.
    Serialise,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 6] = [
        Self::Snapshot,
        Self::Validate,
        Self::FitForEvaluation,
        Self::Evaluate,
        Self::Fit,
        Self::Serialise,
    ];

    /// Name in logs and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Validate => "validate",
            Self::FitForEvaluation => "fit_for_evaluation",
            Self::Evaluate => "evaluate",
            Self::Fit => "fit",
            Self::Serialise => "serialise",
        }
    }
}

/// Watches a run and may end it between stages.
pub trait Watch: Sync {
    /// A stage begins. `false` ends the run with [`RunError::Cancelled`].
    fn begins(&self, stage: Stage) -> bool;
}

/// A run that nobody watches.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn begins(&self, _stage: Stage) -> bool {
        true
    }
}

/// A fitted, judged model, not stored yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The bytes of [`ServedModel::to_bytes`], read back once and found equal.
    pub model: Vec<u8>,
    /// How the data was divided.
    pub split: Split,
    /// The challenger's figures; the popularity baseline's carry the prefix `popularity_`. All finite.
    pub metrics: BTreeMap<String, f64>,
    /// What the gate says.
    pub decision: Decision,
}

/// Fits, evaluates and decides.
///
/// # Errors
/// [`RunError`] by what is wrong with data or settings.
pub fn train(
    snapshot: &Snapshot,
    champion: Option<&Bundle>,
    settings: &RunSettings,
    watch: &dyn Watch,
) -> Result<Trained, RunError> {
    pool(settings.threads, settings.yielding)?.install(|| train_here(snapshot, champion, settings, watch))
}

/// Fits the model of a manifest again, on the snapshot that its offsets name: the same bytes, by the same code.
///
/// # Errors
/// [`RunError::Model`] if the numerics refuse, [`RunError::Threads`].
pub fn reproduce(snapshot: &Snapshot, manifest: &Manifest, threads: usize) -> Result<Vec<u8>, RunError> {
    pool(threads, false)?.install(|| {
        let holdout = Holdout::again(snapshot, &manifest.split);
        let exam = Exam::new(
            &snapshot.catalogue,
            &holdout.train,
            &holdout.test,
            &ExamConfig::default(),
        );
        let mut fitter = Fitter::new(&manifest.params, manifest.seed)?;
        let judged = fit_for_evaluation(&mut fitter, &exam, snapshot, &holdout)?;
        Ok(fit_on_everything(&mut fitter, judged, snapshot)?.to_bytes()?)
    })
}

pub(crate) fn pool(threads: usize, yielding: bool) -> Result<rayon::ThreadPool, RunError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|index| format!("training-{index}"))
        .start_handler(move |_| {
            if yielding {
                marquee_runtime::priority::yield_to_others();
            }
        })
        .build()
        .map_err(|error| RunError::Threads(error.to_string()))
}

/// The model to be judged; a model that nobody can be asked about need not be fitted.
fn fit_for_evaluation(
    fitter: &mut Fitter,
    exam: &Exam<'_>,
    snapshot: &Snapshot,
    holdout: &Holdout,
) -> Result<Option<ServedModel>, RunError> {
    if exam.is_empty() || holdout.train.is_empty() {
        return Ok(None);
    }
    Ok(Some(fitter.fit(&holdout.train, &snapshot.catalogue)?))
}

/// The model to be published: the ranker's lists go on where the evaluation's end, and its verdict stands.
fn fit_on_everything(
    fitter: &mut Fitter,
    judged: Option<ServedModel>,
    snapshot: &Snapshot,
) -> Result<ServedModel, RunError> {
    let verdict = judged.and_then(|model| model.verdict());
    Ok(fitter.fit_as_judged(&snapshot.interactions, &snapshot.catalogue, verdict)?)
}

fn train_here(
    snapshot: &Snapshot,
    champion: Option<&Bundle>,
    settings: &RunSettings,
    watch: &dyn Watch,
) -> Result<Trained, RunError> {
    let begin = |stage| {
        if watch.begins(stage) {
            Ok(())
        } else {
            Err(RunError::Cancelled)
        }
    };
    begin(Stage::Validate)?;
    validate(snapshot, settings)?;
    let learned = champion.map(|champion| champion.manifest.offsets.as_slice());
    let holdout = Holdout::of(snapshot, learned, settings.holdout_share);
    let exam = Exam::new(&snapshot.catalogue, &holdout.train, &holdout.test, &settings.exam);

    begin(Stage::FitForEvaluation)?;
    let mut fitter = Fitter::new(&settings.params, settings.seed)?;
    let challenger = fit_for_evaluation(&mut fitter, &exam, snapshot, &holdout)?;

    begin(Stage::Evaluate)?;
    let card = |model: Option<&ServedModel>| match model {
        Some(model) if challenger.is_some() => exam.judge(model),
        _ => Ok(Scorecard::default()),
    };
    let (own, theirs) = rayon::join(
        || card(challenger.as_ref()),
        || champion.map(|bundle| card(Some(&bundle.model))).transpose(),
    );
    let (mut own, theirs) = (own?, theirs?);
    let baseline = exam.judge_popularity();

    begin(Stage::Fit)?;
    let model = fit_on_everything(&mut fitter, challenger, snapshot)?;

    begin(Stage::Serialise)?;
    let bytes = model.to_bytes()?;
    let read_back = ServedModel::from_bytes(&bytes)?;
    if read_back != model {
        return Err(RunError::Model(marquee_models::Error::Stored(
            "the model is not the same after storing".into(),
        )));
    }
    // The one that will serve must be sound too, not only its twin in the evaluation.
    own.unsound += unsound_scores(&read_back, snapshot)?;

    let decision = gate::decide(&own, theirs.as_ref(), &settings.gate, settings.seed);
    let mut metrics = own.metrics();
    for (name, value) in baseline.fixed_metrics() {
        metrics.insert(format!("popularity_{name}"), value);
    }
    metrics.retain(|_, value| value.is_finite());
    Ok(Trained {
        model: bytes,
        split: holdout.split,
        metrics,
        decision,
    })
}

fn validate(snapshot: &Snapshot, settings: &RunSettings) -> Result<(), RunError> {
    let enough = |what, found: usize, needed: usize| {
        if found >= needed.max(1) {
            return Ok(());
        }
        let counts = &snapshot.counts;
        Err(RunError::NotEnoughData {
            what,
            found,
            needed: needed.max(1),
            detail: format!(
                "of {} records {} were invalid, {} duplicates, {} without a signal, {} about unknown movies, \
                 {} erasures, {} erased",
                counts.records,
                counts.invalid,
                counts.duplicates,
                counts.without_signal,
                counts.unknown_movies,
                counts.erasures,
                counts.erased
            ),
        })
    };
    enough("movies", snapshot.movies.len(), 1)?;
    enough(
        "interactions",
        snapshot.interactions.len(),
        settings.min_interactions,
    )?;
    enough("users", snapshot.users.len(), settings.min_users)
}

/// Users whose lists are computed to see whether the final model gives finite scores.
const PROBES: usize = 16;

/// Scores that are not finite among the lists of some users, spread over all of them, and of somebody unknown.
fn unsound_scores(model: &ServedModel, snapshot: &Snapshot) -> Result<usize, RunError> {
    let mut live = LiveState::new(model.params().live.clone())?;
    live.ensure_items(snapshot.catalogue.len());
    for event in &snapshot.interactions {
        live.observe(event);
    }
    let binding = model.bind_catalogue(&snapshot.catalogue);
    let mut scratch = ScoreScratch::new();
    let users = snapshot.users.len() as u32;
    let step = (snapshot.users.len() / PROBES).max(1);
    let mut unsound = 0;
    for user in (0..=users).step_by(step).chain([users]) {
        let query = Query {
            binding: &binding,
            live: &live,
            context: Context::of_user(&live, user),
            now_ms: snapshot.until_ms(),
        };
        let scores = model.score_all(&query, &mut scratch);
        unsound += scores.iter().filter(|score| !score.is_finite()).count();
    }
    Ok(unsound)
}

#[cfg(test)]
mod tests;
