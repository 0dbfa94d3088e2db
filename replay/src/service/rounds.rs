//! Work on one window of time after the other, each once it can no longer change and lies wholly in the lake.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Bus, Clock};
use marquee_schemas::{Alert, ModelVersion, QualityMetric, SchemaVersion, Severity};
use marquee_statistics::Estimate;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::evaluation::{Pace, Schedule, Window};
use crate::lake::manifests;
use crate::sql::SqlError;
use crate::table::Table;

const POLL: Duration = Duration::from_secs(1);

/// How long to leave a round alone that failed.
const PAUSE: Duration = Duration::from_secs(60);

/// How often a window is tried before it is passed over: those after it must not wait for ever.
const ATTEMPTS: u32 = 10;

/// Next offset by table and partition.
type Positions = BTreeMap<(Table, i32), i64>;

/// Something that is done window by window.
#[async_trait]
pub(super) trait Round: Send {
    /// Does the next window, if one is due and complete.
    async fn step(&mut self, now_ms: i64) -> Result<(), Error>;

    /// Hears that the window of the last step failed.
    async fn failed(&mut self, now_ms: i64, cause: &SqlError) -> Result<(), Error>;
}

async fn turn(round: &mut impl Round, now_ms: i64) -> Result<(), Error> {
    let outcome = round.step(now_ms).await;
    if let Err(Error::Sql(cause)) = &outcome {
        round.failed(now_ms, cause).await?;
    }
    outcome
}

/// Does rounds until `token` is cancelled.
pub(super) async fn run(
    mut round: impl Round,
    clock: &Arc<dyn Clock>,
    token: &CancellationToken,
) -> Result<(), Error> {
    let mut wait = POLL;
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        wait = POLL;
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            outcome = turn(&mut round, clock.now_ms()) => match outcome {
                Ok(()) => {}
                Err(Error::Bus(error)) if error.is_transient() => {
                    tracing::warn!(%error, "the evaluation is postponed");
                }
                // It can be made up for; what must not stop for it is the sink.
                Err(Error::Sql(error)) => {
                    tracing::error!(%error, "the evaluation failed and will be tried again");
                    wait = PAUSE;
                }
                Err(error) => return Err(error),
            },
        }
    }
}

/// The windows of one kind of round.
pub(super) struct Windows<'a> {
    lake_dir: &'a Path,
    bus: &'a Bus,
    schedule: Schedule,
    tables: &'static [Table],
    /// A window that is over, and how far the lake must have come to hold all of it.
    awaited: Option<(Window, Positions)>,
    failures: Failures,
}

/// How often the present window has failed.
#[derive(Debug, Default)]
struct Failures {
    window: Option<Window>,
    count: u32,
}

impl Failures {
    fn begin(&mut self, window: Window) {
        if self.window != Some(window) {
            *self = Self {
                window: Some(window),
                count: 0,
            };
        }
    }

    /// The window, once it has failed often enough to be passed over.
    fn add(&mut self) -> Option<Window> {
        self.count += 1;
        self.window.filter(|_| self.count >= ATTEMPTS)
    }
}

impl<'a> Windows<'a> {
    /// Windows over `tables`, from where an earlier run of the same name stopped.
    pub(super) fn open(
        lake_dir: &'a Path,
        bus: &'a Bus,
        pace: Pace,
        tables: &'static [Table],
    ) -> Result<Self, Error> {
        Ok(Self {
            lake_dir,
            bus,
            schedule: Schedule::open(lake_dir, pace)?,
            tables,
            awaited: None,
            failures: Failures::default(),
        })
    }

    /// The next window, if one is over and the lake holds all of it.
    pub(super) async fn ready(&mut self, now_ms: i64) -> Result<Option<Window>, Error> {
        let Some(window) = self.schedule.due(now_ms)? else {
            return Ok(None);
        };
        let ends = match self.awaited.take() {
            Some((awaited, ends)) if awaited == window => ends,
            _ => self.ends().await?,
        };
        if self.holds(&ends)? {
            self.failures.begin(window);
            return Ok(Some(window));
        }
        self.awaited = Some((window, ends));
        Ok(None)
    }

    /// See [`Schedule::clicks_reported`].
    pub(super) fn clicks_reported(&self) -> bool {
        self.schedule.clicks_reported()
    }

    /// See [`Schedule::note_clicks`].
    pub(super) fn note_clicks(&mut self) {
        self.schedule.note_clicks();
    }

    /// Notes that what `window` showed has been published.
    pub(super) fn done(&mut self, window: Window) -> Result<(), Error> {
        self.schedule.done(window)
    }

    /// Notes that the present window failed. After several times it is passed over, and an alert says so.
    pub(super) async fn failed(
        &mut self,
        publisher: &Publisher,
        now_ms: i64,
        cause: &SqlError,
    ) -> Result<(), Error> {
        let Some(window) = self.failures.add() else {
            return Ok(());
        };
        let alert = skipped_window(self.schedule.pace().name, window, cause, now_ms);
        tracing::error!(condition = alert.condition, message = alert.message, "alert");
        publisher.publish_all(&[Outgoing::of(&alert)]).await?;
        self.schedule.skip(window)
    }

    async fn ends(&self) -> Result<Positions, Error> {
        let mut ends = Positions::new();
        for &table in self.tables {
            let of_table = self.bus.watermarks(table.topic()).await?.ends();
            ends.extend(
                of_table
                    .into_iter()
                    .map(|(partition, end)| ((table, partition), end)),
            );
        }
        Ok(ends)
    }

    fn holds(&self, ends: &Positions) -> Result<bool, Error> {
        let mut positions = Positions::new();
        for &table in self.tables {
            for manifest in manifests(self.lake_dir, table)? {
                positions.insert((table, manifest.partition), manifest.next_offset);
            }
        }
        Ok(ends
            .iter()
            .all(|(shard, &end)| positions.get(shard).copied().unwrap_or(0) >= end))
    }
}

/// The alert about a window whose figures will be missing.
fn skipped_window(name: &str, window: Window, cause: &SqlError, now_ms: i64) -> Alert {
    Alert {
        schema_version: SchemaVersion,
        alert_id: format!("replay/window_skipped/{name}/{}", window.start_ms),
        severity: Severity::Warning,
        source: "replay".into(),
        condition: "window_skipped".into(),
        message: format!(
            "the {name} of the window from {} to {} ms failed {ATTEMPTS} times and is left out: {cause}",
            window.start_ms, window.end_ms
        ),
        numbers: [
            ("window_start_ms".to_owned(), window.start_ms as f64),
            ("window_end_ms".to_owned(), window.end_ms as f64),
        ]
        .into(),
        at_ms: now_ms,
    }
}

/// What a figure is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    pub(super) model_version: Option<&'a str>,
    pub(super) scope: &'a str,
    pub(super) population: &'a str,
}

/// A figure of one window. Its id follows from what is measured and when, never from the value.
pub(super) fn figure(subject: Subject<'_>, estimate: Estimate, window: Window) -> QualityMetric {
    let Subject {
        name,
        model_version,
        scope,
        population,
    } = subject;
    QualityMetric {
        schema_version: SchemaVersion,
        metric_id: format!(
            "replay/{name}/{}/{scope}/{population}/{}/{}",
            model_version.unwrap_or("none"),
            window.start_ms,
            window.end_ms
        ),
        name: name.to_owned(),
        scope: scope.to_owned(),
        population: population.to_owned(),
        model_version: model_version.map(|version| ModelVersion(version.to_owned())),
        value: estimate.value,
        lo: estimate.interval.map(|interval| interval.0),
        hi: estimate.interval.map(|interval| interval.1),
        n: estimate.n,
        window_start_ms: window.start_ms,
        window_end_ms: window.end_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_passed_over_after_several_failures_and_the_next_one_begins_anew() {
        let window = |start_ms| Window {
            start_ms,
            end_ms: start_ms + 10,
        };
        let mut failures = Failures::default();
        for start in [0, 10] {
            for attempt in 1..=ATTEMPTS {
                // A window that is waited for between two attempts is still the same.
                failures.begin(window(start));
                let given_up = failures.add();
                assert_eq!(given_up, (attempt == ATTEMPTS).then_some(window(start)));
            }
        }
        let alert = skipped_window("evaluation", window(10), &SqlError::Memory("full".into()), 99);
        assert_eq!(alert.alert_id, "replay/window_skipped/evaluation/10");
        assert!(alert.message.contains("full"), "{}", alert.message);
    }
}
