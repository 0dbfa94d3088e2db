//! `marquee retrain`: a person asks for a new model.

use std::time::Duration;

use anyhow::{Result, bail};
use marquee_runtime::SystemClock;
use marquee_schemas::Topic;
use marquee_trainer::manual_retrain_event;

use crate::cli::{Common, RetrainArgs};
use crate::config::Config;

pub(crate) async fn run(common: &Common, args: RetrainArgs) -> Result<()> {
    let reason = args.reason.trim();
    if reason.len() < 8 {
        bail!("--reason must say why in words: it is kept with the model");
    }
    let bus = Config::load(common)?.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(5)).await?;
    bus.ensure_topics(&[Topic::RetrainEvents]).await?;
    let event = manual_retrain_event(reason, &SystemClock);
    bus.publisher("marquee-retrain")?.publish(&event).await?;
    println!("asked for a new model: {}", event.event_id);
    Ok(())
}
