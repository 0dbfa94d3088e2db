//! Publishes a data set as if it happened now, or as fast as the broker takes it.
//!
//! At least once: a replay that was cut off goes on at the last acknowledged position, and events behind it that had
//! arrived already are recognised by their id downstream. Whoever runs a replay keeps the position.

mod pace;
mod speed;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use marquee_runtime::bus::Outgoing;
use marquee_runtime::{BusError, Clock};
use marquee_schemas::Interaction;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Acknowledgement, Dataset, Error, Sink};

use pace::Pace;
pub use speed::Speed;

const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long a cancelled replay waits for what is on its way.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// How event times are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shift {
    /// Not at all: events carry the data set's own times.
    #[default]
    None,
    /// By so many milliseconds.
    ByMs(i64),
    /// So that the data set's last rating has the time at which the replayer was made.
    EndNow,
    /// Each event gets the time at which it is sent, as if it happened just then.
    AsSent,
}

/// Settings of a replayer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// Records on their way at most; at the limit the replay waits for the oldest.
    pub max_in_flight_records: usize,
    /// How event times are moved. The event id is that of the unmoved rating.
    pub shift: Shift,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            max_in_flight_records: 8_192,
            shift: Shift::None,
        }
    }
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Everything below it has been acknowledged: where to resume.
    pub position: usize,
    /// Where this run ends.
    pub end: usize,
    /// Acknowledged events per second since the run began.
    pub events_per_s: f64,
    /// Data-set time of the last acknowledged event, ms, unmoved.
    pub event_time_ms: Option<i64>,
}

/// Publishes data sets.
#[derive(Clone)]
pub struct Replayer {
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    made_ms: i64,
    config: ReplayConfig,
}

impl std::fmt::Debug for Replayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Replayer {
    /// A replayer that publishes to `sink`, usually a [`marquee_runtime::bus::Publisher`].
    #[must_use]
    pub fn new(sink: impl Sink, clock: Arc<dyn Clock>, config: ReplayConfig) -> Self {
        Self {
            sink: Arc::new(sink),
            made_ms: clock.now_ms(),
            clock,
            config,
        }
    }

    /// Publishes every movie and returns their number once the broker has them all. Repeating it changes nothing:
    /// the topic is compacted.
    ///
    /// # Errors
    /// [`Error::Bus`].
    pub async fn publish_catalogue(&self, dataset: &Dataset) -> Result<usize, Error> {
        let window = self.config.max_in_flight_records.max(1);
        for movies in dataset.movies.chunks(window) {
            let mut sent = Vec::with_capacity(movies.len());
            for movie in movies {
                let record = Outgoing::of(movie);
                loop {
                    match self.sink.try_send(&record) {
                        Ok(acknowledgement) => break sent.push(acknowledgement),
                        Err(BusError::QueueFull) => tokio::time::sleep(Duration::from_millis(2)).await,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            for outcome in join_all(sent).await {
                outcome?;
            }
        }
        tracing::debug!(movies = dataset.movies.len(), dataset = %dataset.name, "catalogue published");
        Ok(dataset.movies.len())
    }

    /// Publishes the ratings at the positions `range` in event-time order, and returns the position reached: the
    /// range's end, or an earlier one if `token` was cancelled. Everything below it has been acknowledged.
    ///
    /// `on_progress` is called about ten times a second and once at the end, also before an error; what it was told
    /// last is where to resume. Transient failures are mended by sending again from the first event that did not
    /// arrive, with growing pauses, until it works or `token` is cancelled.
    ///
    /// # Errors
    /// [`Error::Bus`] for what no repetition mends.
    pub async fn run(
        &self,
        dataset: &Dataset,
        range: Range<usize>,
        speed: Speed,
        mut on_progress: impl FnMut(Progress) + Send,
        token: &CancellationToken,
    ) -> Result<usize, Error> {
        let end = range.end.min(dataset.ratings.len());
        let mut run = Run {
            replayer: self,
            dataset,
            start: range.start.min(end),
            acknowledged: range.start.min(end),
            end,
            began: Instant::now(),
            reported: None,
            in_flight: VecDeque::new(),
        };
        let outcome = run.drive(speed, &mut on_progress, token).await;
        on_progress(run.progress());
        outcome.map(|()| run.acknowledged)
    }

    /// The time to publish an event with.
    fn moved(&self, dataset: &Dataset, timestamp_ms: i64) -> i64 {
        let moved = match self.config.shift {
            Shift::None => timestamp_ms,
            Shift::ByMs(ms) => timestamp_ms.saturating_add(ms),
            Shift::EndNow => {
                let last_ms = dataset
                    .ratings
                    .last()
                    .map_or(timestamp_ms, |last| last.timestamp_ms);
                self.made_ms.saturating_sub(last_ms.saturating_sub(timestamp_ms))
            }
            Shift::AsSent => self.clock.now_ms(),
        };
        moved.max(Interaction::MIN_TIMESTAMP_MS)
    }
}

/// One run: the window of sent and not yet acknowledged events is `acknowledged..acknowledged + in_flight.len()`.
struct Run<'a> {
    replayer: &'a Replayer,
    dataset: &'a Dataset,
    start: usize,
    acknowledged: usize,
    end: usize,
    began: Instant,
    reported: Option<Instant>,
    in_flight: VecDeque<Acknowledgement>,
}

impl Run<'_> {
    async fn drive(
        &mut self,
        speed: Speed,
        on_progress: &mut (impl FnMut(Progress) + Send),
        token: &CancellationToken,
    ) -> Result<(), Error> {
        let first_ms = self.dataset.ratings.get(self.start).map_or(0, |r| r.timestamp_ms);
        let pace = Pace::new(speed, self.began, self.start, first_ms);
        let window = self.replayer.config.max_in_flight_records.max(1);
        let mut backoff = FIRST_BACKOFF;
        while self.acknowledged < self.end {
            let before = self.acknowledged;
            let failure = match self.step(&pace, window, token).await {
                Ok(Step::Cancelled) => return self.drain().await,
                Ok(Step::On) => None,
                Err(error) if error.is_transient() => Some(error),
                Err(error) => return Err(error.into()),
            };
            if self.acknowledged > before {
                backoff = FIRST_BACKOFF;
            }
            if let Some(error) = failure {
                tracing::warn!(%error, position = self.acknowledged, "sending failed, going back to it");
                // What is still on its way may arrive or not; it is sent again either way.
                self.in_flight.clear();
                tokio::select! {
                    biased;
                    () = token.cancelled() => return Ok(()),
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
            }
            if self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                self.reported = Some(Instant::now());
                on_progress(self.progress());
            }
        }
        Ok(())
    }

    /// Sends what is due and has room, then waits for whatever comes first.
    async fn step(
        &mut self,
        pace: &Pace,
        window: usize,
        token: &CancellationToken,
    ) -> Result<Step, BusError> {
        let mut due = None;
        let mut full = false;
        let now = Instant::now();
        while self.in_flight.len() < window {
            let next = self.acknowledged + self.in_flight.len();
            let Some(rating) = self.dataset.ratings[..self.end].get(next) else {
                break;
            };
            let at = pace.due(next, rating.timestamp_ms);
            if at > now {
                due = Some(at);
                break;
            }
            match self.send(next) {
                Ok(()) => {}
                Err(BusError::QueueFull) => {
                    full = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if full && self.in_flight.is_empty() {
            // Others fill the queue; nothing of ours tells when there is room.
            due = Some(now + Duration::from_millis(2));
        }
        let wake = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let oldest = async {
            match self.in_flight.front_mut() {
                Some(acknowledgement) => acknowledgement.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancellation first, so that a fast broker cannot keep a stopped replay going.
            () = token.cancelled() => return Ok(Step::Cancelled),
            outcome = oldest => {
                self.in_flight.pop_front();
                outcome?;
                self.acknowledged += 1;
            }
            () = wake => {}
        }
        self.collect()?;
        Ok(Step::On)
    }

    /// Takes every acknowledgement that is already there.
    fn collect(&mut self) -> Result<(), BusError> {
        use futures::FutureExt;
        while let Some(front) = self.in_flight.front_mut() {
            let Some(outcome) = front.now_or_never() else {
                return Ok(());
            };
            self.in_flight.pop_front();
            outcome?;
            self.acknowledged += 1;
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + LAST_ACKNOWLEDGEMENTS;
        while let Some(acknowledgement) = self.in_flight.pop_front() {
            match tokio::time::timeout_at(deadline, acknowledgement).await {
                Ok(Ok(())) => self.acknowledged += 1,
                // The rest is sent again by the next run.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        self.in_flight.clear();
        Ok(())
    }

    fn send(&mut self, position: usize) -> Result<(), BusError> {
        // Within bounds: the caller has just looked at this rating.
        let Some(event) = self.dataset.interaction(position) else {
            return Ok(());
        };
        let event = Interaction {
            timestamp: self.replayer.moved(self.dataset, event.timestamp),
            ..event
        };
        let acknowledgement = self.replayer.sink.try_send(&Outgoing::of(&event))?;
        self.in_flight.push_back(acknowledgement);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn progress(&self) -> Progress {
        let done = self.acknowledged - self.start;
        let seconds = self.began.elapsed().as_secs_f64();
        Progress {
            position: self.acknowledged,
            end: self.end,
            events_per_s: if seconds > 0.0 { done as f64 / seconds } else { 0.0 },
            event_time_ms: (done > 0)
                .then(|| self.dataset.ratings.get(self.acknowledged - 1))
                .flatten()
                .map(|rating| rating.timestamp_ms),
        }
    }
}

enum Step {
    On,
    Cancelled,
}
