//! `marquee demo retraining`: a model's whole life on real data, told as it happens.
//!
//! A first model learns from the oldest 70%. The rest streams in while people ask for lists: triggers fire, challengers
//! are trained, compared, and promoted in steps or kept out. A challenger whose weights have the wrong sign is stopped
//! by the gate. A challenger that the gate lets pass loses its clicks online and is rolled back by itself. Through all
//! of it no request may fail.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use marquee_broker::BrokerConfig;
use marquee_ingestor::{Dataset, ReplayConfig, Replayer, Shift};
use marquee_runtime::SystemClock;
use marquee_runtime::bus::{Bus, BusConfig};
use marquee_runtime::supervise::{ServiceError, Stage, Supervisor, stop_signal};
use marquee_schemas::{ALL_TOPICS, ModelEvent, ModelEventKind, ModelVersion, UserId};
use marquee_trainer::{manual_retrain_event, registry, report};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::load::Load;
use crate::cli::{Common, DemoRetrainingArgs, ServiceName};
use crate::commands::model_events;
use crate::config::Config;
use crate::ingest;
use crate::instance::StateDir;
use crate::services;

/// How long an act may wait for the next thing to happen: a training on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
const FIRST_SHARE: f64 = 0.7;

pub(crate) async fn run(common: &Common, args: DemoRetrainingArgs) -> Result<()> {
    let dataset = ingest::load(args.dataset.clone()).await?;
    let folder = tempfile::tempdir().context("making a folder for the demo")?;
    let state = StateDir::new(folder.path())?;
    let mut config = Config::load(common)?;
    services::place(&mut config, &state);
    config.broker.listen.set_port(0);
    config.recommender.listen = "127.0.0.1:0".into();
    config.feature_processor.all_partitions = true;
    config.trainer.rollout.enabled = true;
    config.trainer.rollout.min_stage_ms = 3_000;
    config.trainer.rollout.min_requests = 300;

    let mut supervisor = Supervisor::new(config.shutdown_grace());
    let broker = marquee_broker::start(BrokerConfig {
        listen: config.broker.listen,
        database: state.broker_database(),
    })
    .await?;
    let bus = Bus::new(BusConfig {
        brokers: broker.address().to_string(),
        ..config.kafka.clone()
    });
    let token = supervisor.token(Stage::Foundation);
    supervisor.spawn("broker", Stage::Foundation, async move {
        broker.run(token).await.map_err(ServiceError::from)
    });
    bus.wait_ready(Duration::from_secs(30)).await?;
    bus.ensure_topics(&ALL_TOPICS).await?;
    services::start(&mut supervisor, ServiceName::FeatureProcessor, &config, &bus).await?;
    let address = services::start(&mut supervisor, ServiceName::Recommender, &config, &bus)
        .await?
        .context("the recommender does not listen")?;

    let told = CancellationToken::new();
    let (over, signal) = (told.clone(), stop_signal().context("installing signal handlers")?);
    let ended = supervisor.token(Stage::Edge);
    supervisor.spawn_job("story", Stage::Edge, async move {
        let stage = DemoStage {
            bus,
            config,
            dataset,
            url: format!("http://{address}"),
            begun: Instant::now(),
            ended,
        };
        let outcome = stage.play(args.events_per_s).await;
        told.cancel();
        outcome.map_err(|error| format!("{error:#}").into())
    });
    let end = async move {
        tokio::select! {
            () = signal => {}
            () = over.cancelled() => {}
        }
    };
    Ok(supervisor.run(end).await?)
}

/// What the acts share.
struct DemoStage {
    bus: Bus,
    config: Config,
    dataset: Dataset,
    url: String,
    begun: Instant,
    /// Cancelled when everything ends, also by Ctrl-C.
    ended: CancellationToken,
}

/// A trainer that the story starts and stops, to give it other settings.
struct Trainer {
    token: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), marquee_trainer::Error>>,
}

impl Trainer {
    fn start(config: marquee_trainer::Config, bus: &Bus, parent: &CancellationToken) -> Self {
        let token = parent.child_token();
        let service = marquee_trainer::Service::new(config, bus.clone(), Arc::new(SystemClock));
        Self {
            task: tokio::spawn(service.run(token.clone())),
            token,
        }
    }

    async fn stop(self) -> Result<()> {
        self.token.cancel();
        Ok(self.task.await??)
    }
}

impl DemoStage {
    async fn play(&self, events_per_s: f64) -> Result<()> {
        let from = model_events::ends(&self.bus).await?;
        let (sender, mut events) = mpsc::channel(1_024);
        let watcher = tokio::spawn({
            let bus = self.bus.clone();
            async move {
                model_events::watch(&bus, from, move |event| match sender.blocking_send(event) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                })
                .await
            }
        });

        let first = self.dataset.split_at(FIRST_SHARE);
        self.say(&format!("act 1: {}", self.dataset.summary()));
        self.say(&format!(
            "the oldest {first} of {} ratings are history",
            self.dataset.ratings.len()
        ));
        self.replay(0..first, f64::INFINITY).await?;
        let trainer = Trainer::start(self.config.trainer.clone(), &self.bus, &self.ended);
        self.wait_for(&mut events, "the first model", |event| {
            (event.kind == ModelEventKind::Promoted).then(|| event.version.clone())
        })
        .await?;
        self.explain("champion")?;

        self.say("act 2: the rest streams in, people ask for lists");
        let load_token = self.ended.child_token();
        let load = Load::start(
            self.url.clone(),
            self.users(first),
            self.bus.publisher("marquee-demo-load")?,
            self.config.seed,
            &load_token,
        );
        self.replay(first..self.dataset.ratings.len(), events_per_s)
            .await?;
        self.say("all events are published");
        // Whatever the triggers asked for is trained and rolled out or kept out; then a last one is asked for.
        let last = manual_retrain_event("the demo wants a model of all the data", &SystemClock);
        self.bus.publisher("marquee-demo")?.publish(&last).await?;
        let judged = self.wait_for_verdict(&mut events, &last.event_id).await?;
        self.explain(&judged.version.0)?;
        if judged.kind == ModelEventKind::RolloutStep {
            self.wait_for_end_of_rollout(&mut events, &judged.version).await?;
        }
        self.compare()?;
        trainer.stop().await?;

        self.say("act 3: a challenger whose weights have the wrong sign meets the gate");
        let mut damaged = self.config.trainer.clone();
        damaged
            .model
            .blend
            .weights
            .values_mut()
            .for_each(|weight| *weight = -*weight);
        damaged.model.fit.window = 0;
        let trainer = Trainer::start(damaged, &self.bus, &self.ended);
        // Something new must have happened, or there is nothing to compare on.
        self.repeat_last(0.1).await?;
        let ask = manual_retrain_event("a damaged recipe, on purpose", &SystemClock);
        self.bus.publisher("marquee-demo")?.publish(&ask).await?;
        let verdict = self.wait_for_verdict(&mut events, &ask.event_id).await?;
        self.explain(&verdict.version.0)?;
        ensure!(
            verdict.kind == ModelEventKind::Rejected,
            "the damaged challenger was not stopped by the gate"
        );
        trainer.stop().await?;

        self.say("act 4: a challenger that the gate lets pass, and nobody clicks on");
        let mut open = self.config.trainer.clone();
        open.gate.min_relative_gain = -0.9;
        open.gate.max_secondary_loss = 1.0;
        open.gate.floors.clear();
        open.model.fit.window = 0;
        let trainer = Trainer::start(open, &self.bus, &self.ended);
        let ask = manual_retrain_event(
            "a recipe that looks good offline, the gate held open",
            &SystemClock,
        );
        self.bus.publisher("marquee-demo")?.publish(&ask).await?;
        let verdict = self.wait_for_verdict(&mut events, &ask.event_id).await?;
        ensure!(
            verdict.kind == ModelEventKind::RolloutStep,
            "the open gate kept the challenger out: {}",
            verdict.reason
        );
        load.spoil(&verdict.version);
        let end = self
            .wait_for_end_of_rollout(&mut events, &verdict.version)
            .await?;
        ensure!(
            end.kind == ModelEventKind::RolledBack,
            "the challenger that nobody clicks on was not rolled back"
        );
        self.explain(&verdict.version.0)?;
        trainer.stop().await?;

        load_token.cancel();
        let totals = load.totals();
        self.say(&format!(
            "{} requests, {} failed; answered by {}",
            totals.requests,
            totals.failed,
            totals
                .by_version
                .iter()
                .map(|(version, n)| format!("{version}: {n}"))
                .collect::<Vec<_>>()
                .join(", ")
        ));
        ensure!(totals.failed == 0, "{} requests failed", totals.failed);
        watcher.abort();
        Ok(())
    }

    fn say(&self, text: &str) {
        println!("{:>7.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    async fn replay(&self, range: std::ops::Range<usize>, events_per_s: f64) -> Result<()> {
        let shift = if range.start == 0 {
            let last = self.dataset.ratings.get(range.end.saturating_sub(1));
            Shift::ByMs(last.map_or(0, |last| {
                marquee_runtime::Clock::now_ms(&SystemClock) - last.timestamp_ms
            }))
        } else {
            Shift::AsSent
        };
        let replayer = Replayer::new(
            self.bus.publisher("marquee-demo-traffic")?,
            Arc::new(SystemClock),
            ReplayConfig {
                shift,
                ..ReplayConfig::default()
            },
        );
        replayer.publish_catalogue(&self.dataset).await?;
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

    /// The newest ratings once more, as new events by users far away from the others: fresh evidence for the gate.
    async fn repeat_last(&self, share: f64) -> Result<()> {
        let from = self.dataset.split_at(1.0 - share);
        let offset = self
            .dataset
            .ratings
            .iter()
            .map(|rating| rating.user_id.0)
            .max()
            .unwrap_or(0);
        let repeated: Vec<_> = self.dataset.ratings[from..]
            .iter()
            .map(|rating| marquee_ingestor::Rating {
                user_id: UserId(rating.user_id.0 + offset),
                ..*rating
            })
            .collect();
        let end = repeated.len();
        let again = Dataset::new(
            format!("{}-again", self.dataset.name),
            self.dataset.movies.clone(),
            repeated,
        );
        let replayer = Replayer::new(
            self.bus.publisher("marquee-demo-traffic")?,
            Arc::new(SystemClock),
            ReplayConfig {
                shift: Shift::AsSent,
                ..ReplayConfig::default()
            },
        );
        let speed = "2000/s".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        replayer.run(&again, 0..end, speed, |_| {}, &self.ended).await?;
        Ok(())
    }

    /// Whose events stream in.
    fn users(&self, from: usize) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.dataset.ratings[from..]
            .iter()
            .map(|rating| rating.user_id)
            .collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    async fn wait_for_verdict(
        &self,
        events: &mut mpsc::Receiver<ModelEvent>,
        event_id: &str,
    ) -> Result<ModelEvent> {
        let id = event_id.to_owned();
        let verdict = self
            .wait_for(events, "the gate's verdict", move |event| {
                let ours = event.retrain_event_id.as_deref() == Some(id.as_str())
                    || event.joined_retrain_event_ids.contains(&id);
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
        ensure!(
            verdict.kind != ModelEventKind::Failed,
            "the training failed: {}",
            verdict.reason
        );
        Ok(verdict)
    }

    async fn wait_for_end_of_rollout(
        &self,
        events: &mut mpsc::Receiver<ModelEvent>,
        version: &ModelVersion,
    ) -> Result<ModelEvent> {
        let version = version.clone();
        self.wait_for(events, "the end of the rollout", move |event| {
            let promoted = event.kind == ModelEventKind::Promoted && event.version == version;
            let ended = event.kind == ModelEventKind::RolledBack && event.previous.as_ref() == Some(&version);
            (promoted || ended).then(|| event.clone())
        })
        .await
    }

    /// Tells every event until one answers.
    async fn wait_for<T>(
        &self,
        events: &mut mpsc::Receiver<ModelEvent>,
        what: &str,
        enough: impl Fn(&ModelEvent) -> Option<T>,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = tokio::select! {
                () = self.ended.cancelled() => bail!("told to stop"),
                event = tokio::time::timeout_at(deadline, events.recv()) => event,
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

    fn registry_dir(&self) -> &Path {
        &self.config.trainer.registry_dir
    }

    fn explain(&self, version: &str) -> Result<()> {
        let entry = registry::show(self.registry_dir(), version)?;
        println!("\n{}", report::explain(&entry).markdown());
        Ok(())
    }

    /// The table of the last two champions: old, new, change.
    fn compare(&self) -> Result<()> {
        let reader = registry::open_read_only(self.registry_dir())?;
        let names: Vec<&ModelVersion> = [reader.previous(), reader.champion()]
            .into_iter()
            .flatten()
            .collect();
        let entries: BTreeMap<_, _> = reader
            .list()
            .iter()
            .map(|entry| (&entry.version, entry))
            .collect();
        let chosen: Vec<_> = names
            .iter()
            .filter_map(|name| entries.get(name).copied())
            .collect();
        println!("\n{}", report::compare(&chosen).markdown());
        Ok(())
    }
}
