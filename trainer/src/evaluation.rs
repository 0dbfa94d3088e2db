//! The evaluation job: how good the champion is on what has happened since it was trained.
//!
//! On schedule, or by hand, the champion is judged by the static protocol with one cutoff (see [`crate::evaluate`]):
//! it has learned from everything below its offsets, and its users' newer interactions are the truth. Only users who
//! completed *onboarding* count: those with at least [`EvaluationConfig::onboarding_interactions`] interactions before,
//! and of more than [`EvaluationConfig::max_users`] an even share.
//! The figures go to `quality-metrics`, to a history beside the registry, and from there to MLflow's experiment
//! `evaluation_runs`. Without anybody to ask about, the job says so and ends well.

use std::collections::BTreeMap;
use std::path::Path;

use marquee_models::live::Interaction;
use marquee_runtime::BusError;
use marquee_schemas::{ModelVersion, QualityMetric, SchemaVersion, Topic};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::evaluate::{Exam, ExamConfig};
use crate::registry::{RegistryError, store_at};
use crate::snapshot::{Snapshot, SnapshotReader, bounds_of};

/// One line per evaluation, oldest first.
const HISTORY: &str = "evaluations.jsonl";

/// When the job runs, and about whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// How often, ms; 0 for never.
    pub every_ms: u64,
    /// Interactions after which a user has completed onboarding.
    pub onboarding_interactions: usize,
    /// Fewest users whose figures mean something.
    pub min_users: usize,
    /// Most users who are asked about, each for one list of the whole catalogue; of more an even share.
    pub max_users: usize,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            every_ms: 60 * 60 * 1000,
            onboarding_interactions: 5,
            min_users: 5,
            max_users: 2_000,
        }
    }
}

impl EvaluationConfig {
    /// # Errors
    /// [`crate::Error::Config`] if nobody could ever be asked about.
    pub fn check(&self) -> Result<(), crate::Error> {
        if self.max_users < self.min_users.max(1) {
            return Err(crate::Error::Config {
                key: "evaluation.max_users",
                detail: "must be at least 1 and not less than evaluation.min_users".to_owned(),
            });
        }
        Ok(())
    }
}

/// What one evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// The champion of the time.
    pub version: ModelVersion,
    /// When, ms.
    pub at_ms: i64,
    /// Event time of the first and of the last fresh interaction, ms.
    pub window_ms: (i64, i64),
    /// `test_mrr`, `precision_at_10`, `recall_at_10`, `ndcg_at_10`, `hr_at_10`, `num_users`, `num_ratings`,
    /// `avg_ratings_per_user`.
    pub metrics: BTreeMap<String, f64>,
}

/// What came of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The figures.
    Measured(EvaluationRecord),
    /// Nobody, or too few, to ask about; why.
    NoData(String),
}

impl EvaluationRecord {
    /// Identifies it: a version is not evaluated twice in a millisecond.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.version, self.at_ms)
    }

    /// The figures as records of `quality-metrics`; `n` are the users.
    #[must_use]
    pub fn figures(&self) -> Vec<QualityMetric> {
        let users = self.metrics.get("num_users").copied().unwrap_or(0.0);
        self.metrics
            .iter()
            .map(|(name, &value)| QualityMetric {
                schema_version: SchemaVersion,
                metric_id: format!("evaluation/{name}/{}", self.id()),
                name: name.clone(),
                scope: "evaluation".to_owned(),
                population: "onboarded".to_owned(),
                model_version: Some(self.version.clone()),
                value,
                lo: None,
                hi: None,
                n: users as u64,
                window_start_ms: self.window_ms.0,
                window_end_ms: self.window_ms.1 + 1,
            })
            .collect()
    }
}

/// Reads what is fresh and judges the bundle by it. Blocks.
///
/// # Errors
/// [`crate::Error::Bus`] if the log cannot be read, [`crate::Error::Run`] if the model refuses.
pub fn evaluate(
    bundle: &Bundle,
    reader: &SnapshotReader,
    config: &EvaluationConfig,
    now_ms: i64,
    stop: impl Fn() -> bool,
) -> Result<Outcome, crate::Error> {
    let offsets = reader.pin(&[])?;
    let snapshot = match reader.read(&offsets, stop) {
        Ok(snapshot) => snapshot,
        Err(BusError::Handler(_)) => return Err(crate::Error::Cancelled),
        Err(error) => return Err(error.into()),
    };
    Ok(measure(bundle, &snapshot, config, now_ms).map_err(crate::run::RunError::Model)?)
}

fn measure(
    bundle: &Bundle,
    snapshot: &Snapshot,
    config: &EvaluationConfig,
    now_ms: i64,
) -> Result<Outcome, marquee_models::Error> {
    let learned = bounds_of(&bundle.manifest.offsets, Topic::Interactions);
    let (mut before, mut fresh): (Vec<Interaction>, Vec<Interaction>) = (Vec::new(), Vec::new());
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for (event, (partition, offset)) in snapshot.interactions.iter().zip(&snapshot.origins) {
        if learned.get(partition).is_some_and(|end| offset < end) {
            *counts.entry(event.user).or_default() += 1;
            before.push(*event);
        } else {
            fresh.push(*event);
        }
    }
    let fresh_total = fresh.len();
    fresh.retain(|event| {
        counts
            .get(&event.user)
            .is_some_and(|&n| n >= config.onboarding_interactions)
    });
    let (Some(first), Some(last)) = (fresh.first().copied(), fresh.last().copied()) else {
        return Ok(Outcome::NoData(format!(
            "of {fresh_total} interactions since {} none is of a user who completed onboarding",
            bundle.manifest.version
        )));
    };
    let exam = Exam::new(
        &snapshot.catalogue,
        &before,
        &fresh,
        &ExamConfig {
            folds: 1,
            lists_per_fold: config.max_users,
            stream_positives: 0,
        },
    );
    let panel = exam.judge(&bundle.model)?.fixed;
    let users = panel.users.len();
    if users < config.min_users.max(1) {
        return Ok(Outcome::NoData(format!(
            "{users} users have new positives since {}, needed are {}",
            bundle.manifest.version, config.min_users
        )));
    }
    let mut metrics = BTreeMap::new();
    for (index, name) in [
        "ndcg_at_10",
        "hr_at_10",
        "test_mrr",
        "precision_at_10",
        "recall_at_10",
    ]
    .into_iter()
    .enumerate()
    {
        if let Some(value) = panel.mean(index) {
            metrics.insert(name.to_owned(), value);
        }
    }
    metrics.insert("num_users".into(), users as f64);
    metrics.insert("num_ratings".into(), fresh.len() as f64);
    let raters: std::collections::BTreeSet<u32> = fresh.iter().map(|event| event.user).collect();
    metrics.insert(
        "avg_ratings_per_user".into(),
        fresh.len() as f64 / raters.len() as f64,
    );
    Ok(Outcome::Measured(EvaluationRecord {
        version: bundle.manifest.version.clone(),
        at_ms: now_ms,
        window_ms: (first.time_ms, last.time_ms),
        metrics,
    }))
}

/// Adds a record to the history beside the registry.
///
/// # Errors
/// [`RegistryError::Io`].
pub fn remember(registry_dir: &Path, record: &EvaluationRecord) -> Result<(), RegistryError> {
    let store = store_at(registry_dir)?;
    let io = |source| RegistryError::Io {
        path: store.describe(HISTORY),
        source,
    };
    let mut lines = store.get(HISTORY).map_err(io)?.unwrap_or_default();
    lines.extend(serde_json::to_vec(record).unwrap_or_default());
    lines.push(b'\n');
    store.put(HISTORY, &lines).map_err(io)
}

/// Every evaluation so far, oldest first. A line that is no record is passed over.
///
/// # Errors
/// [`RegistryError::Io`].
pub fn read_history(registry_dir: &Path) -> Result<Vec<EvaluationRecord>, RegistryError> {
    let store = store_at(registry_dir)?;
    let lines = store.get(HISTORY).map_err(|source| RegistryError::Io {
        path: store.describe(HISTORY),
        source,
    })?;
    Ok(lines
        .unwrap_or_default()
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn fresh_interactions_of_onboarded_users_are_measured_and_are_remembered_beside_what_cannot_be_read() {
        let outcome = measure(
            &testing::bundle(600),
            &testing::snapshot(900),
            &EvaluationConfig::default(),
            9,
        )
        .unwrap();
        let Outcome::Measured(record) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(record.metrics["num_ratings"], 300.0);
        assert_eq!(record.metrics["avg_ratings_per_user"], 10.0);
        for name in ["test_mrr", "precision_at_10", "recall_at_10", "num_users"] {
            assert!(record.metrics[name] >= 0.0, "{name}");
        }
        assert_eq!(record.figures().len(), record.metrics.len());
        let dir = tempfile::tempdir().unwrap();
        remember(dir.path(), &record).unwrap();
        let store = store_at(dir.path()).unwrap();
        let mut lines = store.get(HISTORY).unwrap().unwrap();
        lines.extend_from_slice(b"{\"version\": \"v0\n");
        store.put(HISTORY, &lines).unwrap();
        remember(dir.path(), &record).unwrap();
        assert_eq!(read_history(dir.path()).unwrap(), [record.clone(), record]);
    }

    #[test]
    fn of_more_users_than_may_be_asked_about_an_even_share_is() {
        let of = |max_users| {
            let config = EvaluationConfig {
                max_users,
                ..EvaluationConfig::default()
            };
            config.check().unwrap();
            match measure(&testing::bundle(600), &testing::snapshot(900), &config, 9).unwrap() {
                Outcome::Measured(record) => record.metrics["num_users"],
                Outcome::NoData(why) => panic!("{why}"),
            }
        };
        assert!(of(usize::MAX) > 7.0);
        assert_eq!(of(7), 7.0);
        let nobody = EvaluationConfig {
            max_users: 4,
            ..EvaluationConfig::default()
        };
        assert!(nobody.check().unwrap_err().to_string().contains("max_users"));
    }

    #[test]
    fn without_anybody_to_ask_about_it_says_so() {
        let config = EvaluationConfig::default();
        let nothing_new = measure(&testing::bundle(600), &testing::snapshot(600), &config, 9).unwrap();
        assert!(matches!(&nothing_new, Outcome::NoData(why) if why.contains("of 0 interactions")));
        let strict = EvaluationConfig {
            onboarding_interactions: 1_000,
            ..config
        };
        let nobody = measure(&testing::bundle(600), &testing::snapshot(900), &strict, 9).unwrap();
        assert!(
            matches!(&nobody, Outcome::NoData(why) if why.contains("completed onboarding")),
            "{nobody:?}"
        );
        assert!(read_history(Path::new("/nowhere")).unwrap().is_empty());
    }
}
