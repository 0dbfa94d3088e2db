//! `marquee models`: the registry, read without disturbing a running trainer. Changes are asked of that trainer by a
//! command; while none runs they are made here and sent by its next start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{ModelAction, ModelEvent, ModelEventKind};
use marquee_trainer::evaluation::Outcome;
use marquee_trainer::registry::{self, ModelState, RegistryError, RegistryReader};
use marquee_trainer::report;
use marquee_trainer::snapshot::SnapshotReader;
use tokio_util::sync::CancellationToken;

use super::{gate_rates, model_events};
use crate::cli::{Common, ModelsAction, ModelsArgs, PageFormat};
use crate::config::Config;
use crate::instance::{Part, StateDir};

pub(crate) async fn run(common: &Common, args: ModelsArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    let folder = Config::load(common)?.registry(&state);
    let reader = || registry::open_read_only(&folder);
    match args.action {
        ModelsAction::List => list(&reader()?),
        ModelsAction::Show { version } => {
            println!("{}", serde_json::to_string_pretty(reader()?.show(&version)?)?);
            Ok(())
        }
        ModelsAction::Explain {
            version,
            format,
            output,
        } => explain(&reader()?, &version, format, output.as_deref()),
        ModelsAction::Compare { versions, output } => compare(&reader()?, &versions, output.as_deref()),
        ModelsAction::Promote { version, reason } => {
            change(&state, common, ModelAction::Promote, Some(version), &reason).await
        }
        ModelsAction::Rollback { reason } => {
            change(&state, common, ModelAction::Rollback, None, &reason).await
        }
        ModelsAction::Advance { reason } => {
            change(&state, common, ModelAction::AdvanceRollout, None, &reason).await
        }
        ModelsAction::Reproduce { version } => reproduce(&state, common, version).await,
        ModelsAction::Export { version, to } => export(&state, common, version, to).await,
        ModelsAction::Evaluate => evaluate(&state, common).await,
        ModelsAction::GateRates(args) => gate_rates::run(common, args).await,
    }
}

async fn change(
    state: &StateDir,
    common: &Common,
    action: ModelAction,
    version: Option<String>,
    reason: &str,
) -> Result<()> {
    // An alias means what it means now, not when the command arrives.
    let version = match version {
        Some(name) => Some(
            registry::show(&Config::load(common)?.registry(state), &name)?
                .version
                .0,
        ),
        None => None,
    };
    let event = if state.is_running(Part::Trainer) || common.brokers.is_some() {
        let bus = Config::load(common)?.bus_of_running_instance(common)?;
        bus.wait_ready(Duration::from_secs(5)).await?;
        model_events::command(&bus, action, version, reason).await?
    } else {
        let (folder, reason) = (Config::load(common)?.registry(state), reason.to_owned());
        let event = tokio::task::spawn_blocking(move || {
            let now_ms = SystemClock.now_ms();
            match action {
                ModelAction::Promote => {
                    registry::promote(&folder, &version.unwrap_or_default(), &reason, now_ms)
                }
                ModelAction::Rollback => registry::rollback(&folder, &reason, now_ms),
                ModelAction::AdvanceRollout | ModelAction::CancelTraining => Err(RegistryError::Refused(
                    "no trainer runs: start it first".to_owned(),
                )),
            }
        })
        .await??;
        println!("no trainer runs: recommenders hear of it when it starts");
        event
    };
    println!("{}", outcome(&event));
    Ok(())
}

fn outcome(event: &ModelEvent) -> String {
    let version = &event.version;
    match (event.kind, event.rollout_share()) {
        (ModelEventKind::Promoted, _) => format!("{version} is the champion"),
        (ModelEventKind::RolledBack, _) => format!("{version} serves everybody again"),
        (ModelEventKind::RolloutStep, Some(share)) => {
            format!("{version} serves {:.0}% of the users", share * 100.0)
        }
        _ => format!("{version}: {}", event.reason),
    }
}

fn explain(reader: &RegistryReader, version: &str, format: PageFormat, output: Option<&Path>) -> Result<()> {
    let entry = reader.show(version)?;
    let page = report::explain(entry);
    let text = match format {
        PageFormat::Markdown => page.markdown(),
        PageFormat::Html => page.html(),
        PageFormat::Json => format!("{}\n", serde_json::to_string_pretty(&entry.decision)?),
    };
    write(&text, output)
}

fn compare(reader: &RegistryReader, versions: &[String], output: Option<&Path>) -> Result<()> {
    let page = if versions.is_empty() {
        report::overview(reader)
    } else {
        let entries = versions
            .iter()
            .map(|name| reader.show(name))
            .collect::<Result<Vec<_>, _>>()?;
        report::compare(&entries)
    };
    write(&page.markdown(), output)
}

fn write(text: &str, output: Option<&Path>) -> Result<()> {
    match output {
        None => print!("{text}"),
        Some(path) => std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?,
    }
    Ok(())
}

/// Fits a version again from the log and compares the bytes.
async fn reproduce(state: &StateDir, common: &Common, version: String) -> Result<()> {
    let config = Config::load(common)?;
    let threads = config.trainer.training_threads();
    let folder = config.registry(state);
    let bus = config.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(5)).await?;
    let cache = state.trainer_cache();
    tokio::task::spawn_blocking(move || {
        let bundle = registry::open_read_only(&folder)?.load(&version)?;
        let manifest = &bundle.manifest;
        // Its own cache: a running trainer writes to the other one.
        let cache: PathBuf = cache.join("reproduce");
        let snapshot = SnapshotReader::new(bus, cache).read_again(&bundle, || false)?;
        let bytes = marquee_trainer::run::reproduce(&snapshot, manifest, threads)?;
        let same = bundle.is_model(&bytes);
        println!(
            "{} from {} interactions: {} bytes, {}",
            manifest.version,
            snapshot.interactions.len(),
            bytes.len(),
            if same {
                "the same, byte for byte"
            } else {
                "NOT the same"
            }
        );
        anyhow::ensure!(
            same,
            "the manifest did not reproduce the model; was it made by another build?"
        );
        Ok(())
    })
    .await?
}

/// Reads a version's data again and writes it with what the version makes of it.
async fn export(state: &StateDir, common: &Common, version: String, to: PathBuf) -> Result<()> {
    let config = Config::load(common)?;
    let (folder, cache) = (config.registry(state), state.trainer_cache().join("reproduce"));
    let bus = config.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(5)).await?;
    tokio::task::spawn_blocking(move || {
        let bundle = registry::open_read_only(&folder)?.load(&version)?;
        let snapshot = SnapshotReader::new(bus, cache).read_again(&bundle, || false)?;
        let exported = marquee_trainer::export::export(&bundle, &snapshot, &to)?;
        println!(
            "{}: recommendations for {} users, factors of {} movies ({} numbers each)",
            exported.path.display(),
            exported.users,
            exported.movies,
            exported.factors
        );
        Ok(())
    })
    .await?
}

async fn evaluate(state: &StateDir, common: &Common) -> Result<()> {
    let mut config = Config::load(common)?;
    crate::services::place(&mut config, state);
    let trainer = config.trainer.clone();
    let bus = config.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(5)).await?;
    let token = CancellationToken::new();
    match marquee_trainer::evaluate_once(&trainer, &bus, SystemClock.now_ms(), &token).await? {
        Outcome::Measured(record) => println!("{}", serde_json::to_string_pretty(&record)?),
        Outcome::NoData(why) => println!("nothing to evaluate: {why}"),
    }
    Ok(())
}

fn list(reader: &RegistryReader) -> Result<()> {
    if reader.list().is_empty() {
        println!("no model yet");
        return Ok(());
    }
    println!(
        "{:<10} {:<8} {:<11} {:<10} {:>8} {:>8} {:>12}  why",
        "version", "tag", "state", "alias", "ndcg@10", "hr@10", "stream ndcg"
    );
    for entry in reader.list() {
        let metric = |name: &str| {
            entry
                .metrics
                .get(name)
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        };
        println!(
            "{:<10} {:<8} {:<11} {:<10} {:>8} {:>8} {:>12}  {}",
            entry.version,
            entry.semver,
            state_name(entry.state)?,
            reader.alias_of(&entry.version).unwrap_or(""),
            metric("ndcg@10"),
            metric("hr@10"),
            metric("prequential_ndcg@10"),
            entry.steps.last().map_or("", |step| step.reason.as_str())
        );
    }
    Ok(())
}

fn state_name(state: ModelState) -> Result<String> {
    let name = serde_json::to_value(state).context("naming a state")?;
    Ok(name.as_str().unwrap_or_default().to_owned())
}
