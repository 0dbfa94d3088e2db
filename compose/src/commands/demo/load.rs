//! People who ask for lists and click on some, and the figures that follow.
//!
//! A list is clicked with a fixed probability, whoever asks and whatever it holds, so that two models differ online
//! exactly where the story says so: the clicks on a version that is *spoilt* are mostly suppressed. Every two seconds
//! the click-through rate and the 95th percentile of latency go to `quality-metrics`, by the version that served; in
//! production the replay service measures over minutes what this measures over seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{ModelVersion, QualityMetric, SchemaVersion, UserId, online};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Probability that somebody clicks on a list. The same for everybody: a share of the users is a few dozen people here, and
/// what they have in common must not look like a difference between models.
const CLICKS: f64 = 0.6;
/// What of it is left for a spoilt version.
const SPOILT: f64 = 0.2;
const PEOPLE_AT_ONCE: u64 = 4;
const PAUSE: Duration = Duration::from_millis(15);
const WINDOW: Duration = Duration::from_secs(2);

/// What became of the requests, over the whole story.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
    /// Requests by the version that answered.
    pub(super) by_version: BTreeMap<String, u64>,
}

/// One version in the present window.
#[derive(Debug, Default)]
struct Arm {
    clicks: u64,
    /// One per list.
    latency_us: Vec<u64>,
}

#[derive(Debug, Default)]
struct State {
    totals: Totals,
    window: BTreeMap<String, Arm>,
    spoilt: Option<String>,
}

/// A load under way; it ends with its token.
#[derive(Debug, Clone)]
pub(super) struct Load(Arc<Mutex<State>>);

impl Load {
    /// Starts asking `url` on behalf of these users.
    pub(super) fn start(
        url: String,
        users: Vec<UserId>,
        publisher: Publisher,
        seed: u64,
        token: &CancellationToken,
    ) -> Self {
        let load = Self(Arc::default());
        let users = Arc::new(users);
        for person in 0..PEOPLE_AT_ONCE {
            let (load, url, users, token) = (load.clone(), url.clone(), Arc::clone(&users), token.clone());
            let rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(person));
            tokio::task::spawn_blocking(move || load.ask_on(&url, &users, rng, &token));
        }
        let (load_of_reporter, token) = (load.clone(), token.clone());
        tokio::spawn(async move { load_of_reporter.report(&publisher, &token).await });
        load
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on most clicks on this version's lists are suppressed.
    pub(super) fn spoil(&self, version: &ModelVersion) {
        self.with(|state| state.spoilt = Some(version.0.clone()));
    }

    pub(super) fn totals(&self) -> Totals {
        self.with(|state| state.totals.clone())
    }

    fn ask_on(&self, url: &str, users: &[UserId], mut rng: ChaCha8Rng, token: &CancellationToken) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .into();
        while !token.is_cancelled() && !users.is_empty() {
            let user = users[rng.random_range(0..users.len())];
            let begun = Instant::now();
            let answer = ask(&agent, url, user);
            let latency_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            // A request that the end of the story cut off has not failed.
            if answer.is_err() && token.is_cancelled() {
                return;
            }
            let luck = rng.random::<f64>();
            self.with(|state| state.note(answer, latency_us, luck));
            std::thread::sleep(PAUSE);
        }
    }

    async fn report(&self, publisher: &Publisher, token: &CancellationToken) {
        let mut from_ms = SystemClock.now_ms();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(WINDOW) => {}
            }
            let to_ms = SystemClock.now_ms();
            let window = self.with(|state| std::mem::take(&mut state.window));
            let figures: Vec<Outgoing> = window
                .iter()
                .flat_map(|(version, arm)| arm.figures(version, from_ms, to_ms))
                .map(|figure| Outgoing::of(&figure))
                .collect();
            if let Err(error) = publisher.publish_all(&figures).await {
                tracing::warn!(%error, "the figures of a window are lost");
            }
            from_ms = to_ms;
        }
    }
}

/// The version that answered.
fn ask(agent: &ureq::Agent, url: &str, user: UserId) -> Result<String> {
    let mut response = agent
        .post(format!("{url}/recommend"))
        .header("content-type", "application/json")
        .send(format!("{{\"user_id\":{user},\"k\":10}}"))?;
    let answer: Value = serde_json::from_str(&response.body_mut().read_to_string()?)?;
    Ok(answer["model_version"].as_str().unwrap_or("none").to_owned())
}

impl State {
    fn note(&mut self, answer: Result<String>, latency_us: u64, luck: f64) {
        self.totals.requests += 1;
        let version = match answer {
            Ok(version) => version,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "a request failed");
                self.totals.failed += 1;
                self.totals.first_failure.get_or_insert(error);
                return;
            }
        };
        let spoilt = self.spoilt.as_deref() == Some(version.as_str());
        *self.totals.by_version.entry(version.clone()).or_default() += 1;
        let chance = CLICKS * if spoilt { SPOILT } else { 1.0 };
        let arm = self.window.entry(version).or_default();
        arm.clicks += u64::from(luck < chance);
        arm.latency_us.push(latency_us);
    }
}

impl Arm {
    fn figures(&self, version: &str, from_ms: i64, to_ms: i64) -> Vec<QualityMetric> {
        let n = self.latency_us.len() as u64;
        let mut sorted = self.latency_us.clone();
        sorted.sort_unstable();
        let p95_us = sorted.get(sorted.len() * 95 / 100).copied().unwrap_or(0);
        let figure = |name: &str, value: f64| QualityMetric {
            schema_version: SchemaVersion,
            metric_id: format!("demo/{name}/{version}/{from_ms}/{to_ms}"),
            name: name.to_owned(),
            scope: "model".to_owned(),
            population: "all".to_owned(),
            model_version: Some(ModelVersion(version.to_owned())),
            value,
            lo: None,
            hi: None,
            n,
            window_start_ms: from_ms,
            window_end_ms: to_ms,
        };
        vec![
            figure(online::CTR, self.clicks as f64 / n.max(1) as f64),
            figure(online::LATENCY_P95_MS, p95_us as f64 / 1_000.0),
        ]
    }
}
