//! Settings of the recommender.

use std::path::PathBuf;
use std::time::Duration;

use marquee_schemas::Limits;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::engine::{Deadlines, EngineSettings, ExploreConfig};
use crate::traffic::ExperimentConfig;

/// Settings; units stand in the names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the HTTP server, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Folder of the request-log spool and of the view's snapshot; created when absent, owned by one recommender at a
    /// time. No key of the configuration: it follows from the state directory, like all folders.
    #[serde(skip)]
    pub state_dir: PathBuf,
    /// Folder of the model registry, for bundles whose own path is not reachable from this process.
    #[serde(skip)]
    pub registry_dir: PathBuf,
    /// How far an event's time may lie ahead of the clock, ms. No key either: it is the feature processor's.
    #[serde(skip)]
    pub max_future_ms: i64,
    /// Entries of a list when the client does not say.
    pub default_k: u32,
    /// The most entries of a list.
    pub max_k: u32,
    /// The most seed movies of a request.
    pub max_seeds: usize,
    /// The most lists of one batch.
    pub max_batch: usize,
    /// The most movies a request may exclude.
    pub max_excluded: usize,
    /// The largest request body; beyond it 413.
    pub max_body_bytes: usize,
    /// Requests worked on at once; beyond it 503 with `Retry-After`. Health, readiness and metrics are exempt.
    pub max_concurrent_requests: usize,
    /// A request that takes longer than this, its body included, is answered 408.
    pub request_timeout_ms: u64,
    /// How long open requests may take to end after a stop was asked for.
    pub drain_timeout_ms: u64,
    /// Catalogues of up to this many movies are scored on the server's own threads (about a millisecond); larger ones
    /// on the blocking pool.
    pub inline_movies: usize,
    /// History entries folded into the live state per write lock: bounds how long a reader waits for the writer.
    pub apply_slice: usize,
    /// Pause between two snapshots of the view in the state directory, from which a restart resumes, s; 0: there are none,
    /// and each start reads everything from the topics.
    pub snapshot_every_s: u64,
    /// How long a ranking by popularity may be reused while new events come in.
    pub popular_ttl_ms: u64,
    /// The share of lists drawn at random, so that other policies can be judged by what they led to.
    pub explore: ExploreConfig,
    /// When a stage is too late to be worth its while.
    pub deadlines: Deadlines,
    /// The experiment under way, if there is one.
    pub experiment: ExperimentConfig,
    /// Share of the lists that a model in its shadow stage makes too, 0 to 1.
    pub shadow_share: f64,
    /// Lists waiting to be made by such a model; beyond it they are skipped and counted.
    pub shadow_queue_len: usize,
    /// SHA-256 of the key of the admin calls, lower-case hex; empty: they are switched off.
    pub admin_key_sha256: String,
    /// While lists queue without a pause, those that have waited longer than this before work on them begins are answered
    /// 503, ms; 0: only `max_concurrent_requests` sheds.
    pub shed_delay_ms: u64,
    /// The same for batches, of which each may take some hundred milliseconds.
    pub shed_batch_delay_ms: u64,
    /// How long an event published on a client's behalf may take to be acknowledged.
    pub publish_timeout_ms: u64,
    /// Request logs waiting to be sent; beyond it they are dropped, counted, and alerted.
    pub log_queue_len: usize,
    /// The most request logs sent to the broker before their acknowledgements are awaited.
    pub log_batch_len: usize,
    /// Request logs not acknowledged for so long go to the disk spool.
    pub log_ack_timeout_ms: u64,
    /// Pause between attempts to drain the spool while the broker is away.
    pub log_retry_ms: u64,
    /// How long the last request logs may take to reach the broker at shutdown; then they are spooled.
    pub log_flush_timeout_ms: u64,
    /// The most bytes of the spool; beyond it request logs are dropped, counted, and alerted.
    pub spool_max_bytes: u64,
    /// Bytes of one spool file; a file is deleted once all of it has been delivered.
    pub spool_segment_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            state_dir: ".marquee/recommender".into(),
            registry_dir: ".marquee/models".into(),
            max_future_ms: Limits::default().max_future_ms,
            default_k: 10,
            max_k: 100,
            max_seeds: 50,
            max_batch: 100,
            max_excluded: 10_000,
            max_body_bytes: 256 * 1024,
            max_concurrent_requests: 512,
            request_timeout_ms: 10_000,
            drain_timeout_ms: 2_000,
            inline_movies: 50_000,
            apply_slice: 32,
            snapshot_every_s: 600,
            popular_ttl_ms: 100,
            explore: ExploreConfig::default(),
            deadlines: Deadlines::default(),
            experiment: ExperimentConfig::default(),
            shadow_share: 0.1,
            shadow_queue_len: 64,
            admin_key_sha256: String::new(),
            shed_delay_ms: 50,
            shed_batch_delay_ms: 1_000,
            publish_timeout_ms: 5_000,
            log_queue_len: 16_384,
            log_batch_len: 512,
            log_ack_timeout_ms: 2_000,
            log_retry_ms: 500,
            log_flush_timeout_ms: 1_500,
            spool_max_bytes: 256 * 1024 * 1024,
            spool_segment_bytes: 4 * 1024 * 1024,
        }
    }
}

impl Config {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first such key.
    pub fn check(&self) -> Result<(), Error> {
        let positive = [
            ("default_k", u64::from(self.default_k)),
            ("max_batch", self.max_batch as u64),
            ("max_body_bytes", self.max_body_bytes as u64),
            ("publish_timeout_ms", self.publish_timeout_ms),
            ("max_concurrent_requests", self.max_concurrent_requests as u64),
            ("request_timeout_ms", self.request_timeout_ms),
            ("apply_slice", self.apply_slice as u64),
            ("log_queue_len", self.log_queue_len as u64),
            ("log_batch_len", self.log_batch_len as u64),
            ("log_ack_timeout_ms", self.log_ack_timeout_ms),
            ("log_retry_ms", self.log_retry_ms),
            ("spool_segment_bytes", self.spool_segment_bytes),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Config(format!(
                "recommender.{key} must be greater than zero"
            )));
        }
        if self.max_k < self.default_k {
            return Err(Error::Config(format!(
                "recommender.max_k ({}) is below recommender.default_k ({})",
                self.max_k, self.default_k
            )));
        }
        let hex = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
        let key = &self.admin_key_sha256;
        if !(key.is_empty() || (key.len() == 64 && key.bytes().all(hex))) {
            return Err(Error::Config(
                "recommender.admin_key_sha256 must be 64 lower-case hex digits or empty".into(),
            ));
        }
        self.explore.check()?;
        self.experiment.check()?;
        if !(0.0..=1.0).contains(&self.shadow_share) {
            return Err(Error::Config(
                "recommender.shadow_share must be between 0 and 1".into(),
            ));
        }
        if self.max_concurrent_requests > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(Error::Config(
                "recommender.max_concurrent_requests is too large".into(),
            ));
        }
        Ok(())
    }

    pub(crate) fn engine(&self) -> EngineSettings {
        EngineSettings {
            popular_ttl_ms: self.popular_ttl_ms,
            explore: self.explore,
            deadlines: self.deadlines,
        }
    }

    pub(crate) fn publish_timeout(&self) -> Duration {
        Duration::from_millis(self.publish_timeout_ms)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        Config::default().check().unwrap();
        let config = Config {
            log_queue_len: 0,
            ..Config::default()
        };
        assert!(config.check().unwrap_err().to_string().contains("log_queue_len"));
        let config = Config {
            max_k: 5,
            ..Config::default()
        };
        assert!(config.check().unwrap_err().to_string().contains("max_k"));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let refused = serde_json::from_str::<Config>(r#"{"max_kk": 3}"#).unwrap_err();
        assert!(refused.to_string().contains("max_kk"));
    }
}
