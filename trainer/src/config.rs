//! Settings of the trainer.

use std::path::PathBuf;

use marquee_models::served::ServedParams;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::evaluate::ExamConfig;
use crate::evaluation::EvaluationConfig;
use crate::gate::GateConfig;
use crate::mlflow::MlflowConfig;
use crate::rollout::RolloutConfig;

/// What a dense model takes per pair of its items while it is fitted: two matrices in double precision, one in single.
const BYTES_PER_PAIR: u64 = 20;

/// Settings of the trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where models and their state lie; shared with recommenders, which only read it. Not a key of the configuration:
    /// it follows from the state directory, like all folders.
    #[serde(skip)]
    pub registry_dir: PathBuf,
    /// Where records read before are kept, so that only the new tail is read again; may be deleted at any time.
    #[serde(skip)]
    pub cache_dir: PathBuf,
    /// Seed of everything random in fitting and in the bootstrap; the configuration has one seed for all services.
    #[serde(skip)]
    pub seed: u64,
    /// Threads of a training; 0 leaves one core free for serving.
    pub threads: usize,
    /// Memory that a dense item-item model may take while it is fitted, MiB. They are fitted one after the other, each on
    /// all threads; where the catalogue is too large for it, only the most popular items take part.
    pub dense_memory_mib: u64,
    /// Whether training threads let everything else on the machine go first (a lower scheduling priority), so that a
    /// training in the process that serves costs latency nothing. It then takes as long as the idle time lasts.
    pub yielding: bool,
    /// Hyperparameters.
    pub model: ServedParams,
    /// Whether the very first model goes without its ranker: the point-in-time replay that a ranker learns from takes
    /// most of a training's time, and until there is a model everybody gets popularity. The next training, with
    /// all of the recipe, must then prove better like any other.
    pub quick_bootstrap: bool,
    /// Fewest users with a history that a training set must have.
    pub min_users: usize,
    /// Fewest interactions that a training set must have.
    pub min_interactions: usize,
    /// Share of the interactions, the newest ones, held out for evaluation.
    pub holdout_share: f64,
    /// How models are judged.
    pub exam: ExamConfig,
    /// What a new model must show.
    pub gate: GateConfig,
    /// How a model that passed the gate comes into service.
    pub rollout: RolloutConfig,
    /// The scheduled evaluation of the champion.
    pub evaluation: EvaluationConfig,
    /// The mirror in MLflow.
    pub mlflow: MlflowConfig,
    /// Where `GET /metrics` tells Prometheus how trainings go, for example `127.0.0.1:9102`; empty for nowhere.
    pub metrics_listen: String,
    /// Where each new champion is exported to (see [`crate::export`]); empty for nowhere.
    #[serde(skip)]
    pub exports_dir: PathBuf,
    /// Newest exports that are kept.
    pub keep_exports: usize,
    /// Models whose bundles are kept, besides champion and previous; older ones lose their files, not their entries.
    pub keep_versions: usize,
    /// Starts of one run after which it is given up as failed: a run that kills its process must not do so for ever.
    pub max_attempts: u32,
    /// Revision of the code, written into manifests.
    pub code_revision: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registry_dir: ".marquee/registry".into(),
            cache_dir: ".marquee/trainer-cache".into(),
            seed: 42,
            threads: 0,
            dense_memory_mib: 1_024,
            yielding: true,
            model: ServedParams::default(),
            quick_bootstrap: true,
            min_users: 20,
            min_interactions: 500,
            holdout_share: 0.15,
            exam: ExamConfig::default(),
            gate: GateConfig::default(),
            rollout: RolloutConfig::default(),
            evaluation: EvaluationConfig::default(),
            mlflow: MlflowConfig::default(),
            metrics_listen: String::new(),
            exports_dir: PathBuf::new(),
            keep_exports: 3,
            keep_versions: 10,
            max_attempts: 10,
            code_revision: option_env!("MARQUEE_REVISION")
                .unwrap_or(concat!("marquee ", env!("CARGO_PKG_VERSION")))
                .into(),
        }
    }
}

impl Config {
    /// Refuses settings outside their domain.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first one.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key, detail: &str| {
            Err(Error::Config {
                key,
                detail: detail.to_owned(),
            })
        };
        if !(self.holdout_share > 0.0 && self.holdout_share < 0.9) {
            return refuse("holdout_share", "must lie between 0 and 0.9");
        }
        if self.max_attempts == 0 {
            return refuse("max_attempts", "must be at least 1");
        }
        if self.dense_memory_mib == 0 {
            return refuse("dense_memory_mib", "must be at least 1");
        }
        if self.registry_dir.as_os_str().is_empty() {
            return refuse("registry_dir", "must not be empty");
        }
        self.exam.check()?;
        self.evaluation.check()?;
        self.gate.check()?;
        self.rollout.check()?;
        self.mlflow.check()?;
        self.model.check().map_err(|error| Error::Config {
            key: "model",
            detail: error.to_string(),
        })
    }

    /// The hyperparameters, with as many items in dense models as their memory allows.
    #[must_use]
    pub fn model_within_memory(&self) -> ServedParams {
        let pairs = (self.dense_memory_mib << 20) / BYTES_PER_PAIR;
        let mut model = self.model.clone();
        model.generators.max_items = model.generators.max_items.min((pairs.isqrt() as usize).max(1));
        model
    }

    /// Threads of a training on this machine.
    #[must_use]
    pub fn training_threads(&self) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        cores.saturating_sub(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_their_own_check_and_unknown_keys_do_not() {
        Config::default().check().unwrap();
        let wrong = serde_json::from_str::<Config>(r#"{"min_user": 3}"#).unwrap_err();
        assert!(wrong.to_string().contains("min_user"), "{wrong}");
    }

    #[test]
    fn dense_models_know_as_many_items_as_fit_into_their_memory() {
        let items = |dense_memory_mib| {
            let config = Config {
                dense_memory_mib,
                ..Config::default()
            };
            config.model_within_memory().generators.max_items
        };
        // 20 bytes for each pair of 229 items are just above one MiB.
        assert_eq!(items(1), 228);
        assert_eq!(items(100_000), Config::default().model.generators.max_items);
    }

    #[test]
    fn settings_outside_their_domain_are_refused_by_name() {
        let config = Config {
            holdout_share: f64::NAN,
            ..Config::default()
        };
        assert!(config.check().unwrap_err().to_string().contains("holdout_share"));
    }
}
