//! What the trainer does besides training, beside it and never in its way: the MLflow mirror, the exports and the
//! evaluation job.
//!
//! Each chore only reads the registry, keeps its own position beside it, and makes up later for what it missed.

use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{Bus, Clock};
use tokio_util::sync::CancellationToken;

use crate::evaluation::{self, Outcome};
use crate::export::{self, Exported};
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

/// How often to look for a new champion, and how long to let an export rest that failed.
const EXPORTS_EVERY: Duration = Duration::from_secs(2);
const EXPORTS_REST: Duration = Duration::from_secs(60);

/// Exports each new champion until `token` is cancelled.
pub(crate) async fn exports(config: Config, bus: Bus, token: CancellationToken) {
    if config.exports_dir.as_os_str().is_empty() {
        return;
    }
    loop {
        let (own, own_bus, own_token) = (config.clone(), bus.clone(), token.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A thread of its own, because its priority is lowered for good.
        let thread = std::thread::Builder::new()
            .name("marquee-export".into())
            .spawn(move || {
                if own.yielding {
                    marquee_runtime::priority::yield_to_others();
                }
                // Nobody listens any more once the service has ended.
                drop(sender.send(export_champion(&own, own_bus, &own_token)));
            });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread for exports");
        }
        let pause = match receiver.await {
            Ok(Ok(None)) => EXPORTS_EVERY,
            Ok(Ok(Some(exported))) => {
                let path = exported.path.display();
                tracing::info!(%path, users = exported.users, movies = exported.movies, "the champion is exported");
                EXPORTS_EVERY
            }
            Ok(Err(_)) if token.is_cancelled() => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the champion is not exported yet");
                EXPORTS_REST
            }
            Err(error) => {
                tracing::error!(%error, "the export broke off");
                EXPORTS_REST
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Writes what the champion has not been exported as yet; one thread, which lets everything else go first.
fn export_champion(config: &Config, bus: Bus, token: &CancellationToken) -> Result<Option<Exported>, Error> {
    let registry = registry::open_read_only(&config.registry_dir)?;
    let Some(version) = registry.champion() else {
        return Ok(None);
    };
    if export::is_there(&config.exports_dir, version) {
        return Ok(None);
    }
    let bundle = registry.load(&version.0)?;
    // Its own cache: the training's has one writer.
    let reader = SnapshotReader::new(bus, config.cache_dir.join("export"));
    let snapshot = reader.read_again(&bundle, || token.is_cancelled())?;
    let threads = crate::run::pool(1, config.yielding)?;
    let exported = threads.install(|| export::export(&bundle, &snapshot, &config.exports_dir))?;
    export::prune(&config.exports_dir, config.keep_exports)?;
    Ok(Some(exported))
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

/// Evaluates the champion on what has come since it was trained; keeps and publishes the figures. Reading and judging
/// run on threads like a training's, which leave a core to whoever serves and let everything else go first.
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
        let threads = crate::run::pool(own.training_threads(), own.yielding)?;
        threads.install(move || {
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
