//! `marquee retrain`: a person asks for a new model, and may wait for it.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Result, bail};
use marquee_runtime::SystemClock;
use marquee_schemas::{ModelAction, ModelEvent, ModelEventKind, ModelVersion};
use marquee_trainer::manual_retrain_event;

use super::model_events;
use crate::cli::{Common, RetrainArgs};
use crate::config::Config;

pub(crate) async fn run(common: &Common, args: RetrainArgs) -> Result<()> {
    let reason = args.reason.trim();
    if reason.len() < 8 {
        bail!("--reason must say why in words: it is kept with the model");
    }
    let bus = Config::load(common)?.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(5)).await?;
    if args.cancel {
        let outcome = model_events::command(&bus, ModelAction::CancelTraining, None, reason).await?;
        println!("{}", outcome.reason);
        return Ok(());
    }
    let from = model_events::ends(&bus).await?;
    let event = manual_retrain_event(reason, &SystemClock);
    bus.publisher("marquee-retrain")?.publish(&event).await?;
    println!("asked for a new model: {}", event.event_id);
    if !args.follow {
        return Ok(());
    }
    let mut follow = Follow {
        event_id: event.event_id,
        version: None,
    };
    model_events::watch(&bus, from, move |event| follow.hear(&event)).await
}

/// What becomes of one retrain event.
struct Follow {
    event_id: String,
    version: Option<ModelVersion>,
}

impl Follow {
    fn is_ours(&self, event: &ModelEvent) -> bool {
        event.retrain_event_id.as_ref() == Some(&self.event_id)
            || event.joined_retrain_event_ids.contains(&self.event_id)
    }

    fn hear(&mut self, event: &ModelEvent) -> ControlFlow<()> {
        let number = |name: &str| event.numbers.get(name).copied().unwrap_or(0.0);
        let seconds = number("elapsed_ms") / 1000.0;
        if !self.is_ours(event) {
            if event.kind == ModelEventKind::TrainingStage && self.version.is_none() {
                say(&format!(
                    "{:>7}  waiting: {} trains ({})",
                    "", event.version, event.reason
                ));
            }
            return ControlFlow::Continue(());
        }
        self.version = Some(event.version.clone());
        match event.kind {
            ModelEventKind::TrainingStage => {
                let memory = event.numbers.get("peak_memory_bytes");
                let memory = memory.map_or_else(String::new, |bytes| {
                    format!(", peak memory {:.0} MiB", bytes / 1_048_576.0)
                });
                say(&format!(
                    "{seconds:>6.1} s  {} {} of {}: {}{memory}",
                    event.version,
                    number("stage"),
                    number("stages"),
                    event.reason
                ));
                ControlFlow::Continue(())
            }
            ModelEventKind::Trained => {
                say(&format!("{:>7}  {} is stored", "", event.version));
                ControlFlow::Continue(())
            }
            ModelEventKind::RolloutStep => {
                say(&format!(
                    "{} is rolled out in steps: {}",
                    event.version, event.reason
                ));
                ControlFlow::Break(())
            }
            ModelEventKind::Promoted => {
                say(&format!("{} is the champion: {}", event.version, event.reason));
                ControlFlow::Break(())
            }
            ModelEventKind::Rejected => {
                say(&format!("{} is kept out: {}", event.version, event.reason));
                ControlFlow::Break(())
            }
            ModelEventKind::Failed => {
                say(&format!("the training failed: {}", event.reason));
                ControlFlow::Break(())
            }
            ModelEventKind::RolledBack | ModelEventKind::CommandRefused => ControlFlow::Continue(()),
        }
    }
}

/// A line, at once, also into a pipe; a reader that is gone is no reason to fail.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}
