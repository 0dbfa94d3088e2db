//! `marquee models`: the registry, read without disturbing a running trainer, changed only while none runs.

use anyhow::{Context, Result, bail};
use marquee_runtime::{Clock, SystemClock};
use marquee_trainer::registry::{self, ModelState};

use crate::cli::{Common, ModelsAction, ModelsArgs};
use crate::instance::{Part, StateDir};

pub(crate) async fn run(common: &Common, args: ModelsArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    let common = common.clone();
    tokio::task::spawn_blocking(move || act(&state, &common, args.action)).await?
}

fn act(state: &StateDir, common: &Common, action: ModelsAction) -> Result<()> {
    let folder = state.models();
    match action {
        ModelsAction::List => list(state),
        ModelsAction::Show { version } => {
            let reader = registry::open_read_only(&folder)?;
            let entry = reader.show(&version)?;
            println!("{}", serde_json::to_string_pretty(entry)?);
            Ok(())
        }
        ModelsAction::Promote { version, reason } => {
            refuse_while_running(state, common)?;
            let event = registry::promote(&folder, &version, &reason, SystemClock.now_ms())?;
            println!(
                "{} is the champion; recommenders hear of it when the trainer starts",
                event.version
            );
            Ok(())
        }
        ModelsAction::Rollback { reason } => {
            refuse_while_running(state, common)?;
            let event = registry::rollback(&folder, &reason, SystemClock.now_ms())?;
            println!(
                "{} is the champion again; recommenders hear of it when the trainer starts",
                event.version
            );
            Ok(())
        }
    }
}

fn refuse_while_running(state: &StateDir, common: &Common) -> Result<()> {
    if state.is_running(Part::Trainer) {
        bail!(
            "a trainer runs on {} and is the registry's only writer: stop it first",
            common.state_dir.display()
        );
    }
    Ok(())
}

fn list(state: &StateDir) -> Result<()> {
    let reader = registry::open_read_only(&state.models())?;
    if reader.list().is_empty() {
        println!("no model yet");
        return Ok(());
    }
    println!(
        "{:<10} {:<11} {:<10} {:>8} {:>8} {:>8}  why",
        "version", "state", "alias", "ndcg@10", "hr@10", "mrr"
    );
    for entry in reader.list() {
        let alias = [
            ("champion", reader.champion()),
            ("previous", reader.previous()),
            ("challenger", reader.challenger()),
        ]
        .into_iter()
        .find(|(_, version)| *version == Some(&entry.version))
        .map_or("", |(alias, _)| alias);
        let metric = |name: &str| {
            entry
                .metrics
                .get(name)
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        };
        println!(
            "{:<10} {:<11} {:<10} {:>8} {:>8} {:>8}  {}",
            entry.version,
            state_name(entry.state)?,
            alias,
            metric("ndcg@10"),
            metric("hr@10"),
            metric("mrr"),
            entry.steps.last().map_or("", |step| step.reason.as_str())
        );
    }
    Ok(())
}

fn state_name(state: ModelState) -> Result<String> {
    let name = serde_json::to_value(state).context("naming a state")?;
    Ok(name.as_str().unwrap_or_default().to_owned())
}
