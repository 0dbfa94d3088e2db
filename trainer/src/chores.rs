//! What the trainer does besides training, beside it and never in its way: the MLflow mirror and the evaluation job.
//!
//! Each chore only reads the registry, keeps its own position beside it, and makes up later for what it missed.

use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Bus, Clock};
use tokio_util::sync::CancellationToken;

use crate::evaluation::{self, Outcome};
use crate::mlflow::{HttpTransport, Mirror, MlflowError};
use crate::registry;
use crate::snapshot::SnapshotReader;
use crate::{Config, Error};

/// Brings MLflow up to the registry until `token` is cancelled.
pub(crate) async fn mirror(config: Config, token: CancellationToken) {
    if config.mlflow.tracking_uri.is_empty() {
        return;
    }
    let every = Duration::from_millis(config.mlflow.every_ms.max(100));
    let mut away = false;
    loop {
        let own = config.clone();
        let pass = tokio::task::spawn_blocking(move || {
            let timeout = Duration::from_millis(own.mlflow.timeout_ms.max(1));
            let transport = HttpTransport::new(&own.mlflow.tracking_uri, timeout);
            Mirror::open(own.mlflow.clone(), &own.registry_dir, transport)?.pass()
        });
        match pass.await {
            Ok(Ok(sent)) => {
                if away {
                    tracing::info!("MLflow is back");
                }
                away = false;
                if sent != crate::mlflow::Mirrored::default() {
                    tracing::info!(?sent, "MLflow is up to date");
                }
            }
            Ok(Err(error @ MlflowError::Away(_))) => {
                if !away {
                    tracing::warn!(%error, "training goes on; MLflow gets the rest later");
                }
                away = true;
            }
            Ok(Err(error)) => tracing::error!(%error, "MLflow could not be brought up to date"),
            Err(error) => tracing::error!(%error, "the MLflow mirror broke off"),
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Evaluates the champion on fresh interactions, again and again, until `token` is cancelled.
pub(crate) async fn evaluations(config: Config, bus: Bus, clock: Arc<dyn Clock>, token: CancellationToken) {
    if config.evaluation.every_ms == 0 {
        return;
    }
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(config.evaluation.every_ms)) => {}
        }
        match evaluate_once(&config, &bus, clock.now_ms(), &token).await {
            Ok(Outcome::Measured(record)) => {
                tracing::info!(version = %record.version, metrics = ?record.metrics, "evaluated the champion");
            }
            Ok(Outcome::NoData(why)) => tracing::info!(why, "nothing to evaluate the champion on"),
            Err(Error::Cancelled) => return,
            Err(error) => tracing::warn!(%error, "the evaluation is postponed"),
        }
    }
}

/// Evaluates the champion on what has come since it was trained; keeps and publishes the figures.
///
/// # Errors
/// [`Error`] by what failed; the figures are then neither kept nor published.
pub async fn evaluate_once(
    config: &Config,
    bus: &Bus,
    now_ms: i64,
    token: &CancellationToken,
) -> Result<Outcome, Error> {
    let (own, own_bus, own_token) = (config.clone(), bus.clone(), token.clone());
    let publisher: Publisher = bus.publisher("marquee-trainer-evaluation")?;
    let outcome = tokio::task::spawn_blocking(move || {
        let registry = registry::open_read_only(&own.registry_dir)?;
        if registry.champion().is_none() {
            return Ok(Outcome::NoData("there is no champion yet".to_owned()));
        }
        let bundle = registry.load("champion")?;
        // Its own cache: the training's has one writer.
        let reader = SnapshotReader::new(own_bus, own.cache_dir.join("evaluation"));
        let stop = || own_token.is_cancelled();
        evaluation::evaluate(&bundle, &reader, &own.evaluation, now_ms, stop)
    })
    .await
    .map_err(|error| marquee_runtime::BusError::Fatal(format!("the evaluation broke off: {error}")))??;
    if let Outcome::Measured(record) = &outcome {
        let figures: Vec<Outgoing> = record.figures().iter().map(Outgoing::of).collect();
        publisher.publish_all(&figures).await?;
        evaluation::remember(&config.registry_dir, record)?;
    }
    Ok(outcome)
}
