//! `marquee demo retraining`: a model's whole life on real data, told as it happens.
//!
//! 1. A first model learns from the oldest 70%.
//! 2. More streams in while people ask for lists. A trigger fires; a challenger is trained, compared with the champion on
//!    the same users and events, and rolled out in steps.
//! 3. A challenger whose weights have the wrong sign is stopped by the gate.
//! 4. A person takes the champion back. The next challenger passes the same gate, but nobody clicks on its lists: it is
//!    rolled back by itself.
//!
//! Through all of it no request may fail. The story ends with what was promised and what was kept; a promise that was
//! not kept ends the command with an error.

use anyhow::{Result, bail, ensure};
use marquee_runtime::SystemClock;
use marquee_schemas::{ModelAction, ModelEvent, ModelEventKind, RetrainEvent};
use marquee_trainer::{manual_retrain_event, registry};

use super::load::Load;
use super::perform::perform;
use super::stage::{DemoStage, Events, Trainer};
use crate::cli::{Common, DemoRetrainingArgs};
use crate::commands::model_events;
use crate::config::Config;
use crate::ingest;

/// Shares of the ratings: what the first model learns from, when the trigger fires, what act 2 streams in.
const FIRST_SHARE: f64 = 0.7;
const TRIGGER_SHARE: f64 = 0.9;
const SECOND_SHARE: f64 = 0.92;

pub(crate) async fn run(common: &Common, args: DemoRetrainingArgs) -> Result<()> {
    let dataset = ingest::load(args.dataset.clone()).await?;
    let (first, trigger) = (dataset.split_at(FIRST_SHARE), dataset.split_at(TRIGGER_SHARE));
    let adjust = |config: &mut Config| {
        let triggers = &mut config.feature_processor.triggers;
        triggers.bootstrap_min_interactions = first as u64;
        triggers.volume_interactions = (trigger - first) as u64;
        // Minutes instead of days: fewer requests to a stage, and more certainty for how often they are looked at.
        config.trainer.rollout.enabled = true;
        config.trainer.rollout.min_stage_ms = 3_000;
        config.trainer.rollout.min_requests = 300;
        config.trainer.rollout.certainty = 3.0;
    };
    perform(common, dataset, &[], adjust, move |stage| async move {
        play(&stage, args.events_per_s).await
    })
    .await
}

/// What was promised, and whether it was kept.
#[derive(Default)]
struct Promises(Vec<(bool, String)>);

impl Promises {
    fn note(&mut self, kept: bool, what: impl Into<String>) {
        self.0.push((kept, what.into()));
    }

    fn settle(self) -> Result<()> {
        println!("\nWhat was promised:");
        for (kept, what) in &self.0 {
            println!("  {}  {what}", if *kept { "kept  " } else { "BROKEN" });
        }
        let broken = self.0.iter().filter(|(kept, _)| !kept).count();
        ensure!(broken == 0, "{broken} promises were not kept");
        Ok(())
    }
}

async fn play(stage: &DemoStage, events_per_s: f64) -> Result<()> {
    let mut promises = Promises::default();
    let mut events = stage.listen().await?;
    let trainer = Trainer::start(stage.config.trainer.clone(), &stage.bus, &stage.ended);

    first_model(stage, &mut events, &mut promises).await?;
    let users = stage.users(stage.dataset.split_at(FIRST_SHARE));
    let load_token = stage.ended.child_token();
    let load = Load::start(
        stage.url.clone(),
        users,
        stage.bus.publisher("marquee-demo-load")?,
        stage.config.seed,
        &load_token,
    );
    let promoted = better_challenger(stage, &mut events, events_per_s, &mut promises).await?;
    trainer.stop().await?;
    damaged_challenger(stage, &mut events, events_per_s, &mut promises).await?;
    if promoted {
        unloved_challenger(stage, &mut events, &load, &mut promises).await?;
    }
    load_token.cancel();
    let totals = load.totals();
    let answered: Vec<String> = totals
        .by_version
        .iter()
        .map(|(version, n)| format!("{version} {n}"))
        .collect();
    promises.note(
        totals.failed == 0 && totals.requests > 0,
        format!(
            "{} of {} requests failed{}; answered by {}",
            totals.failed,
            totals.requests,
            totals
                .first_failure
                .map_or_else(String::new, |failure| format!(", the first with: {failure}")),
            answered.join(", ")
        ),
    );
    promises.settle()
}

async fn ask(stage: &DemoStage, reason: &str) -> Result<RetrainEvent> {
    let event = manual_retrain_event(reason, &SystemClock);
    stage.bus.publisher("marquee-demo")?.publish(&event).await?;
    stage.say(&format!("a training is asked for by hand: {reason}"));
    Ok(event)
}

async fn first_model(stage: &DemoStage, events: &mut Events, promises: &mut Promises) -> Result<()> {
    let first = stage.dataset.split_at(FIRST_SHARE);
    stage.say(&format!("act 1: {}", stage.dataset.summary()));
    stage.say(&format!(
        "the oldest {first} of {} ratings are history",
        stage.dataset.ratings.len()
    ));
    stage.replay(0..first, f64::INFINITY).await?;
    stage.say("the history is published");
    let verdict = stage.wait_for_verdict(events, None).await?;
    stage.wait_served(&verdict.version).await?;
    stage.say(&format!("{} serves", verdict.version));
    promises.note(
        verdict.kind == ModelEventKind::Promoted,
        format!("a first model serves: {}", verdict.reason),
    );
    Ok(())
}

/// Whether a challenger came to serve everybody.
async fn better_challenger(
    stage: &DemoStage,
    events: &mut Events,
    events_per_s: f64,
    promises: &mut Promises,
) -> Result<bool> {
    let range = stage.dataset.split_at(FIRST_SHARE)..stage.dataset.split_at(SECOND_SHARE);
    stage.say(&format!(
        "act 2: {} more stream in, people ask for lists",
        range.len()
    ));
    let published = async {
        stage.replay(range, events_per_s).await?;
        stage.say("they are all published");
        anyhow::Ok(())
    };
    let (verdict, ()) = tokio::try_join!(stage.wait_for_verdict(events, None), published)?;
    let entry = registry::show(&stage.config.trainer.registry_dir, &verdict.version.0)?;
    let asked_by = entry.steps.first().map_or("nobody", |step| step.reason.as_str());
    promises.note(
        !asked_by.starts_with("manual"),
        format!("a trigger asked for {}: {asked_by}", verdict.version),
    );
    let compared = entry
        .decision
        .numbers
        .keys()
        .filter(|name| name.starts_with("champion_"))
        .count();
    promises.note(
        compared > 0,
        format!("{compared} figures of champion and challenger were compared on the same users and events"),
    );
    let verdict = if verdict.kind == ModelEventKind::Rejected {
        let again = ask(
            stage,
            "the gate kept the first challenger; now there is more to learn from",
        )
        .await?;
        stage.wait_for_verdict(events, Some(&again.event_id)).await?
    } else {
        verdict
    };
    if verdict.kind != ModelEventKind::RolloutStep {
        promises.note(false, format!("no challenger proved better: {}", verdict.reason));
        return Ok(false);
    }
    let (end, shares) = stage.wait_for_end_of_rollout(events, &verdict.version).await?;
    let promoted = end.kind == ModelEventKind::Promoted;
    if promoted {
        stage.wait_served(&verdict.version).await?;
    }
    promises.note(
        promoted && shares == [0.0, 0.1, 0.5],
        format!(
            "{} passed the gate and was rolled out under load to {}: {}",
            verdict.version,
            told_shares(&shares, promoted),
            end.reason
        ),
    );
    Ok(promoted)
}

fn told_shares(shares: &[f64], promoted: bool) -> String {
    let shares = shares.iter().map(|share| format!("{:.0}%", share * 100.0));
    let all = promoted.then(|| "everybody".to_owned());
    shares.chain(all).collect::<Vec<_>>().join(", ")
}

async fn damaged_challenger(
    stage: &DemoStage,
    events: &mut Events,
    events_per_s: f64,
    promises: &mut Promises,
) -> Result<()> {
    stage.say("act 3: a challenger whose weights have the wrong sign meets the gate");
    let mut damaged = stage.config.trainer.clone();
    damaged
        .model
        .blend
        .weights
        .values_mut()
        .for_each(|weight| *weight = -*weight);
    // A ranker would mend the order.
    damaged.model.fit.window = 0;
    let rest = stage.dataset.split_at(SECOND_SHARE)..stage.dataset.ratings.len();
    stage.replay(rest, events_per_s).await?;
    let trainer = Trainer::start(damaged, &stage.bus, &stage.ended);
    let event = ask(stage, "a damaged recipe, on purpose").await?;
    let verdict = stage.wait_for_verdict(events, Some(&event.event_id)).await?;
    trainer.stop().await?;
    promises.note(
        verdict.kind == ModelEventKind::Rejected,
        format!(
            "the gate stopped {}, whose weights have the wrong sign: {}",
            verdict.version, verdict.reason
        ),
    );
    Ok(())
}

async fn unloved_challenger(
    stage: &DemoStage,
    events: &mut Events,
    load: &Load,
    promises: &mut Promises,
) -> Result<()> {
    stage.say("act 4: a person takes the champion back; the next challenger passes the gate, and nobody clicks on it");
    let trainer = Trainer::start(stage.config.trainer.clone(), &stage.bus, &stage.ended);
    let back: ModelEvent = model_events::command(
        &stage.bus,
        ModelAction::Rollback,
        None,
        "the demo wants the first model back",
    )
    .await?;
    stage.wait_served(&back.version).await?;
    promises.note(
        back.kind == ModelEventKind::RolledBack,
        format!("a person brought {} back by a command", back.version),
    );
    let event = ask(stage, "everything that has happened since the first model").await?;
    let verdict = stage.wait_for_verdict(events, Some(&event.event_id)).await?;
    if verdict.kind != ModelEventKind::RolloutStep {
        trainer.stop().await?;
        promises.note(
            false,
            format!("the gate kept {} out: {}", verdict.version, verdict.reason),
        );
        return Ok(());
    }
    load.spoil(&verdict.version);
    stage.say(&format!(
        "clicks on the lists of {} are suppressed",
        verdict.version
    ));
    let (end, shares) = stage.wait_for_end_of_rollout(events, &verdict.version).await?;
    if end.kind == ModelEventKind::Promoted {
        bail!("{} was promoted although nobody clicks on it", verdict.version);
    }
    stage.wait_served(&end.version).await?;
    trainer.stop().await?;
    promises.note(
        true,
        format!(
            "{} passed the gate, served {}, and was rolled back by itself: {}",
            verdict.version,
            told_shares(&shares, false),
            end.reason
        ),
    );
    Ok(())
}
