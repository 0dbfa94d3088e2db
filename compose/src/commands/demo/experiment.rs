//! `marquee demo experiment`: evidence from the log moves models, in a world whose truth is known.
//!
//! Simulated users with tastes fitted from real data ask for lists and click by those tastes.
//! 1. A first model shows everybody what is new.
//! 2. Variant B, the full recipe, is rolled out. The gate is held open: what users do is to decide. Replay evaluates the
//!    logged lists window by window and publishes the figures; on them the rollout advances to everybody, and a
//!    sequential test of the logged arms names the winner. The simulator tells whether it is the true one.
//! 3. Tastes turn: one genre falls out of favour, another comes into it. Clicks fall, replay's figures say so, the
//!    trigger asks for a model, and clicks recover.
//!
//! The day's report, with all of this in its picture, is left behind.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use marquee_ingestor::Dataset;
use marquee_ingestor::simulator::{Scenario, Simulator, SimulatorConfig};
use marquee_replay::{EvaluationOptions, ExperimentOptions, daily, experiment};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{
    ModelEventKind, ModelVersion, QualityMetric, Record, RetrainEvent, Trigger, decode, online,
};
use marquee_trainer::manual_retrain_event;

use super::perform::perform;
use super::stage::{DemoStage, Events, Trainer};
use super::visitors::Visitors;
use crate::cli::{Common, DemoExperimentArgs, ServiceName};
use crate::commands::report;
use crate::config::Config;
use crate::ingest;
use crate::instance::StateDir;

/// Movies that each simulated user rated before the story begins, at most.
const PAST: usize = 40;
/// Entries of a list.
const K: u32 = 5;
/// Length of an evaluated window, ms: minutes in production, seconds here.
const WINDOW_MS: i64 = 5_000;
/// How long after a list its answers may come, ms; at [`PAUSE_MS`] between acts nobody takes longer.
const ANSWERS_MS: i64 = 1_000;
const PAUSE_MS: i64 = 20;
/// Windows of the champion before tastes turn, and after the last model came.
const CALM: usize = 4;
/// How long a figure may take.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

pub(crate) async fn run(common: &Common, args: DemoExperimentArgs) -> Result<()> {
    let real = ingest::load(args.dataset.clone()).await?;
    let world = SimulatorConfig {
        users: args.users,
        pause_ms: PAUSE_MS,
        ..SimulatorConfig::default()
    };
    let made = tokio::task::spawn_blocking(move || -> Result<(Simulator, Dataset)> {
        let mut simulator = Simulator::fit(&real, world)?;
        let mut ratings = simulator.past(&real, PAST);
        ratings.extend_from_slice(&real.ratings);
        let name = format!("{} and the pasts of simulated users", real.name);
        Ok((simulator, Dataset::new(name, real.movies, ratings)))
    });
    let (simulator, dataset) = made.await??;
    let history = dataset.ratings.len() as u64;
    let reports = match &args.out {
        Some(folder) => folder.clone(),
        None => StateDir::new(&common.state_dir)?.reports(),
    };
    perform(
        common,
        dataset,
        &[ServiceName::Replay],
        |config| adjust(config, history),
        move |stage| async move {
            let story = Story { stage, args, reports };
            story.play(simulator).await
        },
    )
    .await
}

/// Seconds instead of hours, and no other reason for a training than what the story is about.
fn adjust(config: &mut Config, history: u64) {
    let replay = &mut config.replay;
    replay.flush.max_age_ms = 1_000;
    replay.evaluation.every_ms = WINDOW_MS;
    replay.evaluation.attribution_window_ms = ANSWERS_MS;
    replay.evaluation.delay_ms = 1_500;
    replay.monitoring.every_ms = WINDOW_MS;
    replay.monitoring.delay_ms = 1_500;
    let triggers = &mut config.feature_processor.triggers;
    triggers.bootstrap_min_interactions = history;
    triggers.volume_interactions = u64::MAX / 2;
    triggers.interaction_growth = 1e6;
    triggers.user_growth = 1e6;
    triggers.metric_drops.clear();
    triggers.metric_floors.clear();
    let rollout = &mut config.trainer.rollout;
    rollout.enabled = true;
    rollout.min_stage_ms = 3_000;
    rollout.min_requests = 300;
    // A tenth of some thousand users says less than a tenth of everybody does in production.
    rollout.max_relative_loss = 0.25;
    // The first model only looks things up; the second one thinks.
    rollout.max_latency_growth = 100.0;
    config.trainer.gate.min_relative_gain = -0.9;
    config.trainer.gate.max_secondary_loss = 1.0;
    config.trainer.gate.floors.clear();
}

struct Story {
    stage: DemoStage,
    args: DemoExperimentArgs,
    reports: PathBuf,
}

impl Story {
    async fn play(&self, simulator: Simulator) -> Result<()> {
        let stage = &self.stage;
        let mut events = stage.listen().await?;
        stage.say(&format!("act 1: {}", stage.dataset.summary()));
        let first = self.newest_first(&mut events).await?;
        let visitors = Visitors::start(
            stage.url.clone(),
            simulator,
            stage.bus.publisher("marquee-demo-visitors")?,
            (self.args.sessions_per_s, K),
            stage.ended.child_token(),
        );
        self.figures_of(&first, SystemClock.now_ms(), 2).await?;

        stage.say("act 2: variant B, the full recipe, under everybody's eyes");
        let trainer = Trainer::start(stage.config.trainer.clone(), &stage.bus, &stage.ended);
        let second = self.variant(&mut events, &first, &visitors).await?;

        stage.say(&format!(
            "act 3: {} falls out of favour, {} comes into it",
            self.args.from_genre, self.args.to_genre
        ));
        self.turn(&mut events, &second, &visitors).await?;
        trainer.stop().await?;
        let failed = visitors.failed();
        self.report().await?;
        ensure!(failed == 0, "{failed} visits failed");
        Ok(())
    }

    /// A model that knows when movies came out, and nothing else. (Popularity is no weak opponent here: with five entries
    /// a list, and clicks that follow from stars, the best-liked movies are hard to beat.)
    async fn newest_first(&self, events: &mut Events) -> Result<ModelVersion> {
        let stage = &self.stage;
        stage
            .replay(0..stage.dataset.ratings.len(), f64::INFINITY)
            .await?;
        let mut recipe = stage.config.trainer.clone();
        recipe.model.blend.weights = [("year".to_owned(), 1.0)].into();
        recipe.model.fit.window = 0;
        let trainer = Trainer::start(recipe, &stage.bus, &stage.ended);
        let promoted = |event: &marquee_schemas::ModelEvent| {
            (event.kind == ModelEventKind::Promoted).then(|| event.version.clone())
        };
        let version = stage.wait_for(events, "the first model", promoted).await?;
        trainer.stop().await?;
        Ok(version)
    }

    /// Rolls the full recipe out, and looks at the evidence by itself.
    async fn variant(
        &self,
        events: &mut Events,
        first: &ModelVersion,
        visitors: &Visitors,
    ) -> Result<ModelVersion> {
        let stage = &self.stage;
        let ask = manual_retrain_event("variant B: the full recipe", &SystemClock);
        stage.bus.publisher("marquee-demo")?.publish(&ask).await?;
        let verdict = stage.wait_for_verdict(events, Some(&ask.event_id)).await?;
        ensure!(
            verdict.kind == ModelEventKind::RolloutStep,
            "the open gate kept variant B out: {}",
            verdict.reason
        );
        let version = verdict.version;
        visitors.take_outcomes();
        let mut half_ms = None;
        let end = stage
            .wait_for(events, "the end of the rollout", |event| {
                if event.version == version && event.rollout_share() == Some(0.5) {
                    half_ms = Some(event.at_ms);
                }
                let over = matches!(event.kind, ModelEventKind::Promoted | ModelEventKind::RolledBack);
                over.then(|| event.clone())
            })
            .await?;
        let outcomes = visitors.take_outcomes();
        let of = |version: &ModelVersion| outcomes.get(&version.0).copied().unwrap_or_default();
        let (a, b) = (of(first), of(&version));
        stage.say(&format!(
            "the truth while both served: {first} {:.4} expected clicks a list ({} lists, {:.4} of them clicked), \
             {version} {:.4} ({} lists, {:.4} clicked)",
            a.truth(),
            a.lists,
            a.clicked(),
            b.truth(),
            b.lists,
            b.clicked(),
        ));
        ensure!(b.truth() > a.truth(), "variant B is not better in this world");
        ensure!(
            end.kind == ModelEventKind::Promoted && end.version == version,
            "variant B was not promoted: {}",
            end.reason
        );
        let half_ms = half_ms.context("there was no step at one half")?;
        self.detect(&version, half_ms, end.at_ms).await?;
        Ok(version)
    }

    /// What the logged arms say by themselves, while each had one half.
    async fn detect(&self, version: &ModelVersion, from_ms: i64, to_ms: i64) -> Result<()> {
        let options = ExperimentOptions {
            experiment: format!("rollout/{version}"),
            control: "champion".into(),
            shares: BTreeMap::from([("champion".into(), 0.5), ("challenger".into(), 0.5)]),
            alpha: 0.05,
            effect: 0.02,
            least_users: 50,
            k: 10,
            attribution_window_ms: ANSWERS_MS,
            as_of_ms: SystemClock.now_ms(),
        };
        let found = experiment(&self.stage.config.replay.lake_dir, from_ms, to_ms, &options).await?;
        for arm in &found.arms {
            let told = match (arm.comparison, arm.look) {
                (Some(comparison), Some(look)) => format!(
                    ", {:+.4} ({:+.4} to {:+.4} at all looks), p = {:.4}",
                    comparison.difference, look.interval.0, look.interval.1, look.p
                ),
                _ => String::new(),
            };
            self.stage.say(&format!(
                "the log: {} of {} users, {:.4} of the lists clicked{told}",
                arm.arm,
                arm.users,
                arm.value.unwrap_or(0.0)
            ));
        }
        let winner = found.winner().map(|arm| arm.arm.as_str());
        ensure!(
            winner == Some("challenger"),
            "the logged arms do not name variant B the winner, but {winner:?}"
        );
        Ok(())
    }

    /// Tastes turn, and the loop closes.
    async fn turn(&self, events: &mut Events, before: &ModelVersion, visitors: &Visitors) -> Result<()> {
        let stage = &self.stage;
        let calm = self.figures_of(before, SystemClock.now_ms(), CALM).await?;
        let turned_ms = SystemClock.now_ms();
        visitors.change(Scenario::Turn {
            from: self.args.from_genre.clone(),
            to: self.args.to_genre.clone(),
            stars: self.args.stars,
            after_sessions: 0,
        })?;
        stage.say("tastes have turned");
        let ask: RetrainEvent = self
            .wait_until("the trigger", || async move {
                let asked = self.published::<RetrainEvent>().await?;
                Ok(asked
                    .into_iter()
                    .find(|event| event.trigger == Trigger::CtrDrop && event.decided_at_ms >= turned_ms))
            })
            .await?;
        stage.say(&format!("the trigger asks for a model: {}", ask.reason));
        let fallen = self.figures_of(before, turned_ms, 2).await?;
        let verdict = stage.wait_for_verdict(events, Some(&ask.event_id)).await?;
        let (end, _) = stage.wait_for_end_of_rollout(events, &verdict.version).await?;
        ensure!(
            end.kind == ModelEventKind::Promoted,
            "the new model was rolled back: {}",
            end.reason
        );
        let after = self.figures_of(&verdict.version, end.at_ms, CALM).await?;
        let (calm, fallen, after) = (mean(&calm), mean(&fallen[..2]), mean(&after));
        let recovered = (after - fallen) / (calm - fallen);
        stage.say(&format!(
            "share of lists clicked: {calm:.4} before, {fallen:.4} in the first two windows after tastes turned, \
             {after:.4} with {} ({:.0}% of the loss recovered)",
            verdict.version,
            recovered * 100.0
        ));
        ensure!(fallen < 0.85 * calm, "clicks did not fall by 15%");
        ensure!(recovered > 0.5, "clicks did not recover");
        Ok(())
    }

    async fn report(&self) -> Result<()> {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        // Records on their way into the lake belong into the picture too.
        let wait = Duration::from_secs(3);
        tokio::select! {
            () = self.stage.ended.cancelled() => bail!("told to stop"),
            () = tokio::time::sleep(wait) => {}
        }
        let now = SystemClock.now_ms();
        let day_ms = now.div_euclid(DAY_MS) * DAY_MS;
        let options = EvaluationOptions {
            attribution_window_ms: ANSWERS_MS,
            as_of_ms: now,
            ..EvaluationOptions::default()
        };
        let document = daily(&self.stage.config.replay.lake_dir, day_ms, options).await?;
        report::write(&document, &self.reports, &report::date_of(day_ms)?)
    }

    /// The first `least` or more windows of a model's click-through rate that begin at or after `from_ms`, in order.
    async fn figures_of(
        &self,
        version: &ModelVersion,
        from_ms: i64,
        least: usize,
    ) -> Result<Vec<QualityMetric>> {
        self.wait_until("figures of the lists", || async move {
            let mut found = self.published::<QualityMetric>().await?;
            found.retain(|figure| {
                figure.name == online::CTR
                    && figure.scope == "model"
                    && figure.population == "all"
                    && figure.model_version.as_ref() == Some(version)
                    && figure.window_start_ms >= from_ms
            });
            found.sort_by_key(|figure| figure.window_start_ms);
            Ok((found.len() >= least).then_some(found))
        })
        .await
    }

    /// All records of a topic so far.
    async fn published<T: Record>(&self) -> Result<Vec<T>> {
        let bus = self.stage.bus.clone();
        let read = move || -> Result<Vec<T>> {
            let mut found = Vec::new();
            bus.read_range(T::TOPIC, &BTreeMap::new(), &BTreeMap::new(), |record| {
                found.extend(record.value.and_then(|bytes| decode(&bytes).ok()));
                Ok::<_, Infallible>(())
            })?;
            Ok(found)
        };
        tokio::task::spawn_blocking(read).await?
    }

    /// Asks every second until there is an answer.
    async fn wait_until<T, F>(&self, what: &str, look: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("waited for {what} in vain");
            }
            tokio::select! {
                () = self.stage.ended.cancelled() => bail!("told to stop"),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }
}

fn mean(figures: &[QualityMetric]) -> f64 {
    figures.iter().map(|figure| figure.value).sum::<f64>() / figures.len().max(1) as f64
}
