//! What the acts of a story share: the product in one process, a trainer to start and stop, and its events as they
//! come.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use marquee_ingestor::{Dataset, ReplayConfig, Replayer, Shift};
use marquee_runtime::bus::Bus;
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{ModelEvent, ModelEventKind, ModelVersion, UserId};
use marquee_trainer::{registry, report};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::commands::model_events;
use crate::config::Config;

/// How long an act may wait for the next thing to happen: a training on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What the acts share.
pub(super) struct DemoStage {
    pub(super) bus: Bus,
    pub(super) config: Config,
    pub(super) dataset: Dataset,
    pub(super) url: String,
    pub(super) begun: Instant,
    /// Cancelled when everything ends, also by Ctrl-C.
    pub(super) ended: CancellationToken,
}

/// A trainer that the story starts and stops, to give it other settings.
pub(super) struct Trainer {
    token: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), marquee_trainer::Error>>,
}

impl Trainer {
    pub(super) fn start(config: marquee_trainer::Config, bus: &Bus, parent: &CancellationToken) -> Self {
        let token = parent.child_token();
        let service = marquee_trainer::Service::new(config, bus.clone(), Arc::new(SystemClock));
        Self {
            task: tokio::spawn(service.run(token.clone())),
            token,
        }
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.token.cancel();
        Ok(self.task.await??)
    }
}

/// The trainer's events from now on.
pub(super) struct Events(mpsc::Receiver<ModelEvent>);

impl DemoStage {
    /// Listens to the trainer.
    pub(super) async fn listen(&self) -> Result<Events> {
        let from = model_events::ends(&self.bus).await?;
        let (sender, events) = mpsc::channel(1_024);
        let (bus, ended) = (self.bus.clone(), self.ended.clone());
        tokio::spawn(async move {
            let watching = model_events::watch(&bus, from, move |event| match sender.blocking_send(event) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            });
            tokio::select! {
                () = ended.cancelled() => {}
                outcome = watching => {
                    if let Err(error) = outcome {
                        tracing::error!(error = format!("{error:#}"), "the model events are lost");
                    }
                }
            }
        });
        Ok(Events(events))
    }

    pub(super) fn say(&self, text: &str) {
        println!("{:>7.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// Publishes these ratings. They carry the times at which they happened, all moved so that the newest of the data set
    /// is of now: a fast time-lapse, as the services see it.
    pub(super) async fn replay(&self, range: Range<usize>, events_per_s: f64) -> Result<()> {
        let last_ms = self.dataset.ratings.last().map_or(0, |last| last.timestamp_ms);
        let replayer = Replayer::new(
            self.bus.publisher("marquee-demo-traffic")?,
            Arc::new(SystemClock),
            ReplayConfig {
                shift: Shift::ByMs(started_ms(self.begun) - last_ms),
                ..ReplayConfig::default()
            },
        );
        if range.start == 0 {
            replayer.publish_catalogue(&self.dataset).await?;
        }
        let speed = if events_per_s.is_finite() {
            format!("{events_per_s}/s")
        } else {
            "max".to_owned()
        };
        let speed = speed.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let end = range.end;
        let reached = replayer
            .run(&self.dataset, range, speed, |_| {}, &self.ended)
            .await?;
        if reached < end {
            bail!("told to stop");
        }
        Ok(())
    }

    /// Whose events stream in.
    pub(super) fn users(&self, from: usize) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.dataset.ratings[from..]
            .iter()
            .map(|rating| rating.user_id)
            .collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Waits until the recommender serves this version; gives the time that took.
    pub(super) async fn wait_served(&self, version: &ModelVersion) -> Result<Duration> {
        let since = Instant::now();
        loop {
            let url = format!("{}/health", self.url);
            let answer = tokio::task::spawn_blocking(move || -> Result<Value> {
                let mut response = ureq::get(&url).call()?;
                Ok(serde_json::from_str(&response.body_mut().read_to_string()?)?)
            });
            if answer.await??["model_version"] == version.0.as_str() {
                return Ok(since.elapsed());
            }
            if self.ended.is_cancelled() {
                bail!("told to stop");
            }
            if since.elapsed() > PATIENCE {
                bail!("{version} is not served");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The gate's verdict on the model that this retrain event asked for, or on the next one of all.
    pub(super) async fn wait_for_verdict(
        &self,
        events: &mut Events,
        event_id: Option<&str>,
    ) -> Result<ModelEvent> {
        let verdict = self
            .wait_for(events, "the gate's verdict", |event| {
                let ours = event_id.is_none_or(|id| {
                    event.retrain_event_id.as_deref() == Some(id)
                        || event.joined_retrain_event_ids.iter().any(|joined| joined == id)
                });
                let decided = matches!(
                    event.kind,
                    ModelEventKind::Promoted
                        | ModelEventKind::Rejected
                        | ModelEventKind::RolloutStep
                        | ModelEventKind::Failed
                );
                (ours && decided).then(|| event.clone())
            })
            .await?;
        if verdict.kind == ModelEventKind::Failed {
            bail!("the training failed: {}", verdict.reason);
        }
        println!("\n{}", self.explain(&verdict.version)?);
        Ok(verdict)
    }

    /// The end of this version's rollout, and the shares that it served on the way.
    pub(super) async fn wait_for_end_of_rollout(
        &self,
        events: &mut Events,
        version: &ModelVersion,
    ) -> Result<(ModelEvent, Vec<f64>)> {
        let mut shares = vec![0.0];
        let end = self
            .wait_for(events, "the end of the rollout", |event| {
                if event.version == *version {
                    shares.extend(event.rollout_share());
                }
                let promoted = event.kind == ModelEventKind::Promoted && event.version == *version;
                let ended =
                    event.kind == ModelEventKind::RolledBack && event.previous.as_ref() == Some(version);
                (promoted || ended).then(|| event.clone())
            })
            .await?;
        Ok((end, shares))
    }

    /// Tells every event until one answers.
    pub(super) async fn wait_for<T>(
        &self,
        events: &mut Events,
        what: &str,
        mut enough: impl FnMut(&ModelEvent) -> Option<T>,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = tokio::select! {
                () = self.ended.cancelled() => bail!("told to stop"),
                event = tokio::time::timeout_at(deadline, events.0.recv()) => event,
            };
            let event = event
                .with_context(|| format!("waiting for {what}"))?
                .context("the model events ended")?;
            self.tell(&event);
            if let Some(answer) = enough(&event) {
                return Ok(answer);
            }
        }
    }

    fn tell(&self, event: &ModelEvent) {
        let version = &event.version;
        let text = match event.kind {
            ModelEventKind::TrainingStage => {
                let number = |name: &str| event.numbers.get(name).copied().unwrap_or(0.0);
                format!(
                    "  {version} {} after {:.1} s, peak memory {:.0} MiB",
                    event.reason,
                    number("elapsed_ms") / 1_000.0,
                    number("peak_memory_bytes") / 1_048_576.0
                )
            }
            ModelEventKind::RolloutStep => format!(
                "{version} serves {:.0}% of the users: {}",
                event.rollout_share().unwrap_or(0.0) * 100.0,
                event.reason
            ),
            ModelEventKind::Promoted => format!("{version} is the champion: {}", event.reason),
            ModelEventKind::Rejected => format!("{version} is kept out: {}", event.reason),
            ModelEventKind::RolledBack => format!("{version} serves everybody again: {}", event.reason),
            ModelEventKind::Trained => format!("{version} is trained, asked for by {}", event.reason),
            ModelEventKind::Failed => format!("{version} failed: {}", event.reason),
            ModelEventKind::CommandRefused => format!("a command was refused: {}", event.reason),
        };
        self.say(&text);
    }

    /// The gate's reasons and the table of old and new figures.
    fn explain(&self, version: &ModelVersion) -> Result<String> {
        let entry = registry::show(&self.config.trainer.registry_dir, &version.0)?;
        Ok(report::explain(&entry).markdown())
    }
}

/// The wall clock when the story began.
fn started_ms(begun: Instant) -> i64 {
    SystemClock.now_ms() - i64::try_from(begun.elapsed().as_millis()).unwrap_or(0)
}
