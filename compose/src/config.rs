//! One configuration for all services: built-in defaults < `--config` file < `MARQUEE_` environment < flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use marquee_runtime::bus::{Bus, BusConfig};
use serde::{Deserialize, Serialize};

use crate::cli::Common;
use crate::instance::StateDir;

/// Everything that can be set. Each section belongs to one service and is documented there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) kafka: BusConfig,
    pub(crate) broker: BrokerSection,
    pub(crate) feature_processor: marquee_feature_processor::Config,
    pub(crate) trainer: marquee_trainer::Config,
    pub(crate) recommender: marquee_recommender::Config,
    pub(crate) replay: marquee_replay::Config,
    /// Where models lie: `s3://bucket/prefix` for an S3-compatible store, whose credentials, region and endpoint come from
    /// the usual `AWS_` variables; empty for the state directory.
    pub(crate) model_store: String,
    /// How long all services together may take to end.
    pub(crate) shutdown_grace_ms: u64,
    /// Makes request ids, exploration and training repeatable.
    pub(crate) seed: u64,
}

/// The embedded broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BrokerSection {
    /// Where it listens; port 0 chooses a free one.
    pub(crate) listen: SocketAddr,
}

impl Default for BrokerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kafka: BusConfig::default(),
            broker: BrokerSection::default(),
            feature_processor: Default::default(),
            trainer: Default::default(),
            recommender: Default::default(),
            replay: Default::default(),
            model_store: String::new(),
            shutdown_grace_ms: 4_500,
            seed: 42,
        }
    }
}

impl Config {
    /// The configuration in force for these flags.
    pub(crate) fn load(common: &Common) -> Result<Self> {
        let mut config: Self = marquee_runtime::config::load(
            &Self::default(),
            common.config.as_deref(),
            &serde_json::Map::new(),
        )?;
        if let Some(brokers) = &common.brokers {
            config.kafka.brokers.clone_from(brokers);
        }
        config.kafka.options.extend(common.kafka_options.iter().cloned());
        config.kafka.check()?;
        Ok(config)
    }

    /// Whether brokers are named: by flag, or by a setting other than the default. Else `up` starts its own.
    pub(crate) fn names_brokers(&self, common: &Common) -> bool {
        common.brokers.is_some() || self.kafka.brokers != BusConfig::default().brokers
    }

    /// Where the registry lies.
    pub(crate) fn registry(&self, state: &StateDir) -> PathBuf {
        if self.model_store.is_empty() {
            state.models()
        } else {
            PathBuf::from(&self.model_store)
        }
    }

    /// What two services are told that does not go together.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let both = self.trainer.rollout.enabled && !self.recommender.experiment.name.is_empty();
        both.then_some(
            "while recommender.experiment runs, the challenger of a rollout answers nobody: trainer.rollout will find no \
             evidence and give each challenger up after trainer.rollout.max_stage_ms",
        )
    }

    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).context("writing the configuration as TOML")
    }

    pub(crate) fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }

    /// The bus that tools talk to: `--brokers`, else that of the instance running on the state directory, else the
    /// configured one.
    pub(crate) fn bus_of_running_instance(mut self, common: &Common) -> Result<Bus> {
        if common.brokers.is_none()
            && let Some(instance) = StateDir::new(&common.state_dir)?.running()
        {
            self.kafka.brokers = instance.brokers;
        }
        Ok(Bus::new(self.kafka))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_beside_an_experiment_is_a_contradiction() {
        let mut config = Config::default();
        assert_eq!(config.contradiction(), None);
        config.trainer.rollout.enabled = true;
        assert_eq!(config.contradiction(), None);
        config.recommender.experiment.name = "variety".into();
        assert!(config.contradiction().unwrap().contains("max_stage_ms"));
    }

    #[test]
    fn the_printed_defaults_load_as_a_file_and_an_unknown_key_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("marquee.toml");
        let defaults = Config::default().to_toml().unwrap();
        std::fs::write(&file, &defaults).unwrap();
        let flags = serde_json::Map::new();
        let loaded: Config = marquee_runtime::config::load(&Config::default(), Some(&file), &flags).unwrap();
        assert_eq!(loaded.to_toml().unwrap(), defaults);

        std::fs::write(&file, "[recommender]\nfrobnicate = 3\n").unwrap();
        let error = marquee_runtime::config::load(&Config::default(), Some(&file), &flags).unwrap_err();
        assert!(error.to_string().contains("frobnicate"), "{error}");
    }
}
