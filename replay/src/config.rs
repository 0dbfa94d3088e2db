//! Settings of the replay service.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sql::SqlOptions;

/// Settings of the replay service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the Parquet lake lies; one service at a time writes to it. No key of the configuration: it
    /// follows from the state directory, like all folders.
    #[serde(skip)]
    pub lake_dir: PathBuf,
    /// When buffered rows become files.
    pub flush: FlushConfig,
    /// When small files are merged.
    pub compaction: CompactionConfig,
    /// How long rows are kept.
    pub retention: RetentionConfig,
    /// The regular evaluation of what was served.
    pub evaluation: EvaluationConfig,
    /// The regular look at how requests were answered.
    pub monitoring: MonitoringConfig,
    /// SQL over HTTP.
    pub http: HttpConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lake_dir: PathBuf::from(".marquee/lake"),
            flush: FlushConfig::default(),
            compaction: CompactionConfig::default(),
            retention: RetentionConfig::default(),
            evaluation: EvaluationConfig::default(),
            monitoring: MonitoringConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

/// When the buffered rows of a partition are written, whichever comes first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlushConfig {
    /// This many rows.
    pub max_rows: usize,
    /// This many bytes of JSON.
    pub max_bytes: usize,
    /// The oldest buffered record has waited this long.
    pub max_age_ms: i64,
    /// A flush whose rows fall on more dates than this writes one file without a date instead of one file per date:
    /// decades of history read at once would otherwise become tens of thousands of files of a few rows.
    pub max_dates: usize,
}

impl Default for FlushConfig {
    fn default() -> Self {
        Self {
            max_rows: 50_000,
            max_bytes: 32 * 1024 * 1024,
            max_age_ms: 5_000,
            max_dates: 16,
        }
    }
}

/// When files of one date and partition are merged into one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactionConfig {
    /// Neighbouring files of similar size that are merged into one; below 2 switches compaction off.
    pub min_files: usize,
    /// Files of this size or larger are left alone.
    pub max_file_bytes: u64,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            min_files: 8,
            max_file_bytes: 32 * 1024 * 1024,
        }
    }
}

/// How long rows are kept, by their event time. Files go as a whole, once their newest row is too old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Days for which `request_logs` and `quality_metrics` are kept, at least 7; 0 keeps them for ever. Interactions,
    /// models and movies are always kept: every model is named by them.
    pub days: u32,
}

/// The shortest retention: a week of lists can always be asked about.
const LEAST_RETENTION_DAYS: u32 = 7;

/// SQL over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Whether `POST /sql` is served.
    pub enabled: bool,
    /// Where; there is no authentication, so anything but a loopback address belongs behind a proxy. Port 0 chooses a
    /// free one.
    pub listen: SocketAddr,
    /// Queries at once; another one is refused with 503.
    pub max_concurrent: usize,
    /// Limits of a query.
    pub limits: SqlOptions,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            max_concurrent: 4,
            limits: SqlOptions {
                memory_limit_bytes: 512 * 1024 * 1024,
                max_result_rows: 100_000,
                max_result_bytes: 64 * 1024 * 1024,
                ..SqlOptions::default()
            },
        }
    }
}

/// The regular evaluation of what was served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Length of an evaluated window, ms of event time; windows are aligned to multiples of it.
    pub every_ms: i64,
    /// How long after a list an interaction may still answer it, ms of event time.
    pub attribution_window_ms: i64,
    /// How long after the last moment an answer can arrive a window is evaluated, ms; must exceed the flush's age.
    pub delay_ms: i64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            every_ms: 10 * 60 * 1000,
            attribution_window_ms: 30 * 60 * 1000,
            delay_ms: 15_000,
        }
    }
}

/// The regular look at how requests were answered. An alert is raised where the whole 95% interval of a figure lies
/// beyond its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitoringConfig {
    /// Whether it happens.
    pub enabled: bool,
    /// Length of a window, ms; windows are aligned to multiples of it.
    pub every_ms: i64,
    /// How long after a window's end its requests may still reach the lake, ms; must exceed the flush's age.
    pub delay_ms: i64,
    /// Fewest requests of a model behind an alert.
    pub min_requests: u64,
    /// Highest 95th percentile of latency without an alert, ms.
    pub max_latency_p95_ms: f64,
    /// Highest share of failed requests without an alert.
    pub max_error_rate: f64,
    /// Highest share of lists that are not personal without an alert; 1 never alerts.
    pub max_fallback_rate: f64,
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            every_ms: 60 * 1000,
            delay_ms: 15_000,
            min_requests: 100,
            max_latency_p95_ms: 100.0,
            max_error_rate: 0.01,
            max_fallback_rate: 0.9,
        }
    }
}

impl Config {
    /// Refuses settings that cannot work together.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            (
                "flush.max_rows",
                i64::try_from(self.flush.max_rows).unwrap_or(i64::MAX),
            ),
            (
                "flush.max_bytes",
                i64::try_from(self.flush.max_bytes).unwrap_or(i64::MAX),
            ),
            ("flush.max_age_ms", self.flush.max_age_ms),
            (
                "flush.max_dates",
                i64::try_from(self.flush.max_dates).unwrap_or(i64::MAX),
            ),
            (
                "http.max_concurrent",
                i64::try_from(self.http.max_concurrent).unwrap_or(i64::MAX),
            ),
            ("evaluation.every_ms", self.evaluation.every_ms),
            ("monitoring.every_ms", self.monitoring.every_ms),
            (
                "evaluation.attribution_window_ms",
                self.evaluation.attribution_window_ms,
            ),
        ];
        for (name, value) in positive {
            if value < 1 {
                return Err(format!("replay.{name} must be at least 1"));
            }
        }
        if self.retention.days != 0 && self.retention.days < LEAST_RETENTION_DAYS {
            return Err(format!(
                "replay.retention.days must be 0 (for ever) or at least {LEAST_RETENTION_DAYS}"
            ));
        }
        let waits = [
            ("evaluation", self.evaluation.enabled, self.evaluation.delay_ms),
            ("monitoring", self.monitoring.enabled, self.monitoring.delay_ms),
        ];
        for (name, enabled, delay_ms) in waits {
            if enabled && delay_ms < self.flush.max_age_ms {
                return Err(format!(
                    "replay.{name}.delay_ms ({delay_ms}) must be at least replay.flush.max_age_ms ({}), or windows \
                     are looked at before their rows are in the lake",
                    self.flush.max_age_ms
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name_and_the_defaults_hold_together() {
        let error = serde_json::from_str::<Config>(r#"{"flush":{"max_row":1}}"#).unwrap_err();
        assert!(error.to_string().contains("max_row"), "{error}");
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn a_retention_of_less_than_a_week_is_refused() {
        let mut config = Config::default();
        config.retention.days = 6;
        assert!(config.check().unwrap_err().contains("retention.days"));
        config.retention.days = 7;
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn an_evaluation_that_would_run_before_the_flush_is_refused() {
        let mut config = Config::default();
        config.evaluation.delay_ms = 1;
        assert!(config.check().unwrap_err().contains("delay_ms"));
    }
}
