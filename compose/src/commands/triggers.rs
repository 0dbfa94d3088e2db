//! `marquee triggers`: why a new model was asked for, or was not.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use marquee_feature_processor::inspect;
use marquee_runtime::bus::Bus;
use marquee_schemas::{Topic, TriggerDecision, TriggerOutcome, decode};

use crate::cli::{Common, TriggersAction, TriggersArgs};
use crate::config::Config;
use crate::instance::{Part, StateDir};

pub(crate) async fn run(common: &Common, args: TriggersArgs) -> Result<()> {
    let TriggersAction::Explain { last, asked, json } = args.action;
    let state = StateDir::new(&common.state_dir)?;
    let mut decisions = if common.brokers.is_some() || state.is_running(Part::FeatureProcessor) {
        let bus = Config::load(common)?.bus_of_running_instance(common)?;
        bus.wait_ready(Duration::from_secs(5)).await?;
        tokio::task::spawn_blocking(move || from_topic(&bus)).await??
    } else if state.features().is_dir() {
        inspect::decisions(&state.features(), usize::MAX)?
    } else {
        bail!("{} holds no decisions yet", common.state_dir.display());
    };
    decisions.retain(|decision| !asked || decision.retrain_event_id.is_some());
    if decisions.is_empty() {
        bail!("nothing has been decided yet");
    }
    for decision in decisions.split_off(decisions.len().saturating_sub(last)) {
        if json {
            println!("{}", serde_json::to_string(&decision)?);
        } else {
            print!("{}", explain(&decision)?);
        }
    }
    Ok(())
}

fn from_topic(bus: &Bus) -> Result<Vec<TriggerDecision>> {
    let mut decisions = Vec::new();
    let nowhere = BTreeMap::new();
    bus.read_range(Topic::TriggerDecisions, &nowhere, &nowhere, |record| {
        let decision = decode::<TriggerDecision>(record.value.as_deref().unwrap_or_default());
        decision.map(|decision| decisions.push(decision))
    })?;
    Ok(decisions)
}

fn explain(decision: &TriggerDecision) -> Result<String> {
    use std::fmt::Write as _;

    let when = chrono::DateTime::from_timestamp_millis(decision.decided_at_ms)
        .context("a time beyond the calendar")?
        .format("%Y-%m-%d %H:%M:%S UTC");
    let mut text = String::new();
    writeln!(
        text,
        "{}  {when}  looked because of: {}; champion {}",
        decision.decision_id,
        decision.occasion,
        decision
            .champion
            .as_ref()
            .map_or("none", |version| version.0.as_str()),
    )?;
    match &decision.retrain_event_id {
        Some(event) => writeln!(text, "asked for a training: {event}")?,
        None => writeln!(text, "asked for nothing")?,
    }
    for verdict in &decision.verdicts {
        let trigger = serde_json::to_value(verdict.trigger)?;
        let outcome = match verdict.outcome {
            TriggerOutcome::NotDue => "no",
            TriggerOutcome::Asked => "ASKED",
            TriggerOutcome::Joined => "joined",
            TriggerOutcome::InFlight => "due, a training is in flight",
            TriggerOutcome::CoolingDown => "due, cooling down",
        };
        writeln!(
            text,
            "  {:<16} {outcome}: {}",
            trigger.as_str().unwrap_or_default(),
            verdict.reason
        )?;
        for (name, value) in &verdict.numbers {
            writeln!(text, "  {:<16}   {name} = {value}", "")?;
        }
    }
    Ok(text)
}
