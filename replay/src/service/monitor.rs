//! Every minute: how requests were answered, by model version, and alerts where a limit is passed.

use std::collections::BTreeSet;

use async_trait::async_trait;
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Bus, Clock};
use marquee_schemas::{Alert, SchemaVersion, Severity, online};
use marquee_statistics::Estimate;

use super::rounds::{Round, Subject, Windows, figure};
use crate::config::{Config, MonitoringConfig};
use crate::error::Error;
use crate::evaluation::{Pace, Window};
use crate::lake::Gap;
use crate::operation::operation;
use crate::sql::SqlError;
use crate::table::Table;

/// An alert about a condition that lasts is repeated after this time.
const QUIET_MS: i64 = 10 * 60 * 1000;

/// The rounds of monitoring. Figures and alerts are published before a window is noted as done, under ids by which a
/// repetition is recognised.
pub(super) struct Monitor<'a> {
    config: &'a Config,
    publisher: Publisher,
    windows: Windows<'a>,
    /// Ids of the alerts that were sent; bounded by forgetting all but the present stretch's.
    raised: BTreeSet<String>,
}

impl<'a> Monitor<'a> {
    pub(super) fn new(config: &'a Config, bus: &'a Bus) -> Result<Self, Error> {
        let pace = Pace {
            name: "monitoring",
            every_ms: config.monitoring.every_ms,
            settles_ms: config.monitoring.delay_ms,
        };
        Ok(Self {
            config,
            publisher: bus.publisher("marquee-replay-monitoring")?,
            windows: Windows::open(&config.lake_dir, bus, pace, &[Table::RequestLogs])?,
            raised: BTreeSet::new(),
        })
    }
}

#[async_trait]
impl Round for Monitor<'_> {
    async fn step(&mut self, now_ms: i64) -> Result<(), Error> {
        let Some(window) = self.windows.ready(now_ms).await? else {
            return Ok(());
        };
        let mut outgoing = Vec::new();
        let mut raised = BTreeSet::new();
        for (version, found) in operation(&self.config.lake_dir, window.start_ms, window.end_ms).await? {
            for (name, estimate) in found.figures() {
                let subject = Subject {
                    name,
                    model_version: version.as_deref(),
                    scope: "model",
                    population: "all",
                };
                outgoing.push(Outgoing::of(&figure(subject, estimate, window)));
                let Some(alert) = alert(&self.config.monitoring, subject, estimate, window, now_ms) else {
                    continue;
                };
                if !self.raised.contains(&alert.alert_id) {
                    tracing::error!(condition = alert.condition, message = alert.message, "alert");
                    outgoing.push(Outgoing::of(&alert));
                }
                raised.insert(alert.alert_id);
            }
        }
        self.publisher.publish_all(&outgoing).await?;
        self.windows.done(window)?;
        let stretch = format!("/{}", window.start_ms / QUIET_MS);
        self.raised.retain(|id| id.ends_with(&stretch));
        self.raised.append(&mut raised);
        Ok(())
    }

    async fn failed(&mut self, now_ms: i64, cause: &SqlError) -> Result<(), Error> {
        self.windows.failed(&self.publisher, now_ms, cause).await
    }
}

/// The alert that a figure calls for: on enough requests the whole interval lies beyond the limit.
fn alert(
    config: &MonitoringConfig,
    subject: Subject<'_>,
    estimate: Estimate,
    window: Window,
    now_ms: i64,
) -> Option<Alert> {
    let (condition, limit) = match subject.name {
        online::LATENCY_P95_MS => ("latency_p95_high", config.max_latency_p95_ms),
        online::ERROR_RATE => ("error_rate_high", config.max_error_rate),
        online::FALLBACK_RATE => ("fallback_rate_high", config.max_fallback_rate),
        _ => return None,
    };
    let (lo, _) = estimate.interval?;
    if estimate.n < config.min_requests || lo <= limit {
        return None;
    }
    let version = subject.model_version.unwrap_or("none");
    Some(Alert {
        schema_version: SchemaVersion,
        alert_id: format!("replay/{condition}/{version}/{}", window.start_ms / QUIET_MS),
        severity: Severity::Warning,
        source: "replay".into(),
        condition: condition.into(),
        message: format!(
            "{} of {version} is {:.4} on {} requests, above {limit}",
            subject.name, estimate.value, estimate.n
        ),
        numbers: [
            ("value".to_owned(), estimate.value),
            ("at_least".to_owned(), lo),
            ("limit".to_owned(), limit),
            ("requests".to_owned(), estimate.n as f64),
        ]
        .into(),
        at_ms: now_ms,
    })
}

/// The alert about records that the broker deleted before they were read: rows are missing for good.
pub(super) fn lost_records(table: Table, partition: i32, gap: Gap, clock: &dyn Clock) -> Alert {
    Alert {
        schema_version: SchemaVersion,
        alert_id: format!("replay/records_lost/{table}/{partition}/{}", gap.from),
        severity: Severity::Critical,
        source: "replay".into(),
        condition: "records_lost".into(),
        message: format!(
            "{} records of {}/{partition} were deleted by the broker before they reached the lake",
            gap.to - gap.from,
            table.topic()
        ),
        numbers: [
            ("from_offset".to_owned(), gap.from as f64),
            ("to_offset".to_owned(), gap.to as f64),
        ]
        .into(),
        at_ms: clock.now_ms(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        start_ms: 3 * QUIET_MS,
        end_ms: 3 * QUIET_MS + 60_000,
    };

    fn raised(name: &str, value: f64, lo: f64, n: u64) -> Option<String> {
        let subject = Subject {
            name,
            model_version: Some("v000002"),
            scope: "model",
            population: "all",
        };
        let estimate = Estimate {
            value,
            interval: Some((lo, 1.0_f64.max(value))),
            n,
        };
        alert(&MonitoringConfig::default(), subject, estimate, WINDOW, 9).map(|alert| alert.alert_id)
    }

    #[test]
    fn an_alert_needs_enough_requests_and_no_doubt_and_is_the_same_within_its_stretch() {
        assert_eq!(
            raised(online::ERROR_RATE, 0.2, 0.1, 500).as_deref(),
            Some("replay/error_rate_high/v000002/3")
        );
        assert_eq!(raised(online::ERROR_RATE, 0.2, 0.1, 5), None);
        assert_eq!(raised(online::ERROR_RATE, 0.2, 0.001, 500), None);
        assert!(raised(online::LATENCY_P95_MS, 900.0, 800.0, 500).is_some());
        assert!(raised(online::FALLBACK_RATE, 0.99, 0.97, 500).is_some());
        assert_eq!(raised(online::CTR, 0.99, 0.97, 500), None);
    }
}
