//! `marquee ingest`: publish a data set to a Kafka.

use std::time::Duration;

use anyhow::Result;
use marquee_schemas::ALL_TOPICS;
use tokio_util::sync::CancellationToken;

use crate::cli::{Common, IngestArgs};
use crate::config::Config;
use crate::ingest;

pub(crate) async fn run(common: &Common, args: IngestArgs) -> Result<()> {
    let bus = Config::load(common)?.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(10)).await?;
    bus.ensure_topics(&ALL_TOPICS).await?;
    let dataset = ingest::load(args.dataset).await?;
    let end = args.to.unwrap_or(usize::MAX).min(dataset.ratings.len());
    let range = args.from.min(end)..end;
    let token = CancellationToken::new();
    let stop = token.clone();
    let signal = marquee_runtime::supervise::stop_signal()?;
    tokio::spawn(async move {
        signal.await;
        stop.cancel();
    });
    let reached = ingest::publish(&bus, &dataset, range, args.speed, token).await?;
    println!("published events up to number {reached}");
    Ok(())
}
