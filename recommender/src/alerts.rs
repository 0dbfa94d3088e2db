//! Conditions a person should look at: logged, counted, and published to the `alerts` topic, each at most once a
//! minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use marquee_runtime::Clock;
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_schemas::{Alert, SchemaVersion, Severity};

/// A repeated condition stays silent for so long.
const QUIET_MS: i64 = 60_000;

/// Raises alerts; never blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Alerts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    publisher: Option<Publisher>,
    clock: Arc<dyn Clock>,
    /// Condition → when last raised and how often it occurred, silent repetitions included.
    raised: Mutex<BTreeMap<String, (i64, u64)>>,
}

impl Alerts {
    /// Alerts sent through `publisher`; without one they are only logged and counted.
    #[must_use]
    pub fn new(publisher: Option<Publisher>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            publisher,
            clock,
            raised: Mutex::default(),
        }))
    }

    /// Raises `condition` unless it was raised within the last minute; `subject` tells apart what it is about and is
    /// part of the alert's identity.
    pub fn raise(
        &self,
        severity: Severity,
        condition: &str,
        subject: &str,
        message: String,
        numbers: &[(&str, f64)],
    ) {
        let now = self.0.clock.now_ms();
        let key = if subject.is_empty() {
            condition.to_owned()
        } else {
            format!("{condition}/{subject}")
        };
        {
            let mut raised = self.0.raised.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = raised.entry(key.clone()).or_insert((i64::MIN, 0));
            entry.1 += 1;
            if entry.0 != i64::MIN && now.saturating_sub(entry.0) < QUIET_MS {
                return;
            }
            entry.0 = now;
        }
        tracing::error!(condition, %message, "alert");
        let Some(publisher) = &self.0.publisher else {
            return;
        };
        let alert = Alert {
            schema_version: SchemaVersion,
            alert_id: format!("recommender/{key}/{}", now / QUIET_MS),
            severity,
            source: "recommender".into(),
            condition: condition.into(),
            message,
            numbers: numbers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value))
                .collect(),
            at_ms: now,
        };
        // Nobody waits for the acknowledgement: the log line above is the record if the broker is away for good.
        if let Err(error) = publisher.try_send(&Outgoing::of(&alert)) {
            tracing::warn!(%error, "an alert could not be sent");
        }
    }

    /// How often each condition occurred, silent repetitions included.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (key, (_, count)) in self
            .0
            .raised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let condition = key.split('/').next().unwrap_or_default().to_owned();
            *counts.entry(condition).or_default() += count;
        }
        counts
    }
}
