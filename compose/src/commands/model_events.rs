//! Following `model-events` until something happened, and giving the trainer commands.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use marquee_runtime::bus::{Bus, Handler, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{
    ModelAction, ModelCommand, ModelEvent, ModelEventKind, ModelVersion, SchemaVersion, Topic, decode,
};
use tokio_util::sync::CancellationToken;

/// How long the trainer may take to answer a command; it answers between two glances at its training.
const PATIENCE: Duration = Duration::from_secs(30);

struct Watch<F> {
    from: BTreeMap<i32, i64>,
    each: F,
    token: CancellationToken,
}

impl<F: FnMut(ModelEvent) -> ControlFlow<()> + Send + 'static> Handler for Watch<F> {
    type Error = Infallible;

    fn assigned(&mut self, _: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Infallible> {
        let start = |partition| {
            self.from
                .get(partition)
                .map_or(Start::Earliest, |&at| Start::At(at))
        };
        Ok(partitions
            .iter()
            .map(|partition| (*partition, start(partition)))
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Infallible> {
        for record in batch {
            match decode::<ModelEvent>(record.value.as_deref().unwrap_or_default()) {
                Ok(_) if self.token.is_cancelled() => return Ok(()),
                Ok(event) => {
                    if (self.each)(event).is_break() {
                        self.token.cancel();
                    }
                }
                Err(error) => {
                    tracing::warn!(kafka.offset = record.offset, %error, "passing over a model event")
                }
            }
        }
        Ok(())
    }
}

/// The ends of `model-events` now, from which [`watch`] then sees all that follows.
pub(crate) async fn ends(bus: &Bus) -> Result<BTreeMap<i32, i64>> {
    bus.ensure_topics(&[Topic::ModelEvents, Topic::ModelCommands, Topic::RetrainEvents])
        .await?;
    Ok(bus.watermarks(Topic::ModelEvents).await?.ends())
}

/// Hands every event from there on to `each`, until it breaks.
pub(crate) async fn watch(
    bus: &Bus,
    from: BTreeMap<i32, i64>,
    each: impl FnMut(ModelEvent) -> ControlFlow<()> + Send + 'static,
) -> Result<()> {
    let token = CancellationToken::new();
    let handler = Watch {
        from,
        each,
        token: token.clone(),
    };
    bus.subscriber(
        &[Topic::ModelEvents],
        SubscriberConfig::new("marquee-follow", Subscription::All),
    )
    .run(handler, token)
    .await?;
    Ok(())
}

/// Sends a command to the running trainer and waits for its outcome.
pub(crate) async fn command(
    bus: &Bus,
    action: ModelAction,
    version: Option<String>,
    reason: &str,
) -> Result<ModelEvent> {
    let from = ends(bus).await?;
    let issued_at_ms = SystemClock.now_ms();
    let command = ModelCommand {
        schema_version: SchemaVersion,
        command_id: format!("cli/{}/{issued_at_ms}", std::process::id()),
        action,
        version: version.map(ModelVersion),
        reason: reason.to_owned(),
        issued_by: std::env::var("USER").ok(),
        issued_at_ms,
    };
    bus.publisher("marquee-models")?.publish(&command).await?;
    let id = command.command_id;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let watching = watch(bus, from, move |event| {
        if event.command_id.as_deref() != Some(id.as_str()) {
            return ControlFlow::Continue(());
        }
        if let Some(sender) = sender.take() {
            // The receiver is gone only if nobody waits any more.
            drop(sender.send(event));
        }
        ControlFlow::Break(())
    });
    tokio::time::timeout(PATIENCE, watching)
        .await
        .context("the trainer did not answer; the command lies in model-commands and will be obeyed")??;
    let outcome = receiver.await.context("the trainer's answer was lost")?;
    if outcome.kind == ModelEventKind::CommandRefused {
        bail!("refused: {}", outcome.reason);
    }
    Ok(outcome)
}
