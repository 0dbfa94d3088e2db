//! Simulated users who ask for lists and answer them by a taste that is known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use marquee_ingestor::Error as IngestError;
use marquee_ingestor::simulator::{Scenario, Simulator};
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::Kind;
use tokio_util::sync::CancellationToken;

use crate::commands::simulate::ask;

/// What the lists of one model led to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) lists: u64,
    clicked: u64,
    /// Clicks that the simulated tastes make one expect: the truth behind what was drawn.
    expected: f64,
}

impl Outcome {
    /// Expected clicks per list.
    pub(super) fn truth(&self) -> f64 {
        self.expected / self.lists.max(1) as f64
    }

    /// Share of the lists with a click.
    pub(super) fn clicked(&self) -> f64 {
        self.clicked as f64 / self.lists.max(1) as f64
    }
}

#[derive(Debug)]
struct State {
    simulator: Simulator,
    /// By the model that served, since they were last taken.
    outcomes: BTreeMap<String, Outcome>,
    failed: u64,
}

/// Visitors who come until their token is cancelled.
#[derive(Debug, Clone)]
pub(super) struct Visitors(Arc<Mutex<State>>);

impl Visitors {
    /// They come at `sessions_per_s`, ask `url` for lists of `k`, and what they do is published.
    pub(super) fn start(
        url: String,
        simulator: Simulator,
        publisher: Publisher,
        (sessions_per_s, k): (f64, u32),
        token: CancellationToken,
    ) -> Self {
        let visitors = Self(Arc::new(Mutex::new(State {
            simulator,
            outcomes: BTreeMap::new(),
            failed: 0,
        })));
        let coming = visitors.clone();
        tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(20)))
                .build()
                .into();
            let pause = Duration::from_secs_f64(1.0 / sessions_per_s.clamp(0.1, 1e4));
            let mut due = Instant::now();
            while !token.is_cancelled() {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // Whoever comes late does not make the next ones come at once.
                due = (due + pause).max(Instant::now());
                if let Err(error) = coming.visit(&agent, &url, &publisher, k)
                    && !token.is_cancelled()
                {
                    tracing::warn!(error = format!("{error:#}"), "a visit failed");
                    coming.with(|state| state.failed += 1);
                }
            }
        });
        visitors
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn visit(&self, agent: &ureq::Agent, url: &str, publisher: &Publisher, k: u32) -> Result<()> {
        let session = self.with(|state| state.simulator.next_session());
        for _ in 0..session.lists {
            let served = ask(agent, url, &session, k)?;
            let acts = self.with(|state| {
                let movies = served.movies();
                let expected = state.simulator.expected_clicks(&session, &movies);
                let acts =
                    state
                        .simulator
                        .answer(&session, &served.request_id, &movies, SystemClock.now_ms());
                let version = served.model_version.clone().unwrap_or_default();
                let outcome = state.outcomes.entry(version).or_default();
                outcome.lists += 1;
                outcome.expected += expected;
                outcome.clicked += u64::from(acts.iter().any(|act| act.kind == Kind::Click));
                acts
            });
            for act in &acts {
                // In order and without waiting: the publisher's queue is bounded and refuses what is too much.
                drop(publisher.try_send(&Outgoing::of(act))?);
            }
        }
        Ok(())
    }

    /// From now on their taste is another one.
    pub(super) fn change(&self, scenario: Scenario) -> Result<(), IngestError> {
        self.with(|state| state.simulator.change(scenario))
    }

    /// What the lists led to since this was last asked, by model.
    pub(super) fn take_outcomes(&self) -> BTreeMap<String, Outcome> {
        self.with(|state| std::mem::take(&mut state.outcomes))
    }

    /// Visits that failed.
    pub(super) fn failed(&self) -> u64 {
        self.with(|state| state.failed)
    }
}
