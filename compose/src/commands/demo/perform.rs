//! The product in one process and in a folder of its own, for as long as a story takes.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use marquee_broker::BrokerConfig;
use marquee_ingestor::Dataset;
use marquee_runtime::bus::{Bus, BusConfig};
use marquee_runtime::supervise::{ServiceError, Stage, Supervisor, stop_signal};
use marquee_schemas::ALL_TOPICS;
use tokio_util::sync::CancellationToken;

use super::stage::DemoStage;
use crate::cli::{Common, ServiceName};
use crate::config::Config;
use crate::instance::StateDir;
use crate::services;

/// Starts the broker, the feature processor and the recommender, and `also`, plays the story, and stops them all; Ctrl-C
/// ends it early. The story starts its trainers itself.
pub(super) async fn perform<F>(
    common: &Common,
    dataset: Dataset,
    also: &[ServiceName],
    adjust: impl FnOnce(&mut Config),
    play: impl FnOnce(DemoStage) -> F + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let folder = tempfile::tempdir().context("making a folder for the demo")?;
    let state = StateDir::new(folder.path())?;
    let mut config = Config::load(common)?;
    services::place(&mut config, &state);
    config.broker.listen.set_port(0);
    config.recommender.listen = "127.0.0.1:0".into();
    config.replay.http.listen.set_port(0);
    config.feature_processor.all_partitions = true;
    config.feature_processor.copy_rows_every_ms = 0;
    adjust(&mut config);

    let mut supervisor = Supervisor::new(config.shutdown_grace());
    let broker = marquee_broker::start(BrokerConfig {
        listen: config.broker.listen,
        database: state.broker_database(),
        on_thread_start: || {},
    })
    .await?;
    let bus = Bus::new(BusConfig {
        brokers: broker.address().to_string(),
        ..config.kafka.clone()
    });
    let token = supervisor.token(Stage::Foundation);
    supervisor.spawn("broker", Stage::Foundation, async move {
        broker.run(token).await.map_err(ServiceError::from)
    });
    bus.wait_ready(Duration::from_secs(30)).await?;
    bus.ensure_topics(&ALL_TOPICS).await?;
    let mut address = None;
    let needed = [ServiceName::FeatureProcessor, ServiceName::Recommender];
    for &service in needed.iter().chain(also) {
        let addresses = services::start(&mut supervisor, service, &config, &bus).await?;
        address = addresses.http.or(address);
    }
    let address = address.context("the recommender does not listen")?;

    let told = CancellationToken::new();
    let (over, signal) = (told.clone(), stop_signal().context("installing signal handlers")?);
    let ended = supervisor.token(Stage::Edge);
    supervisor.spawn_job("story", Stage::Edge, async move {
        let stage = DemoStage {
            bus,
            config,
            dataset,
            url: format!("http://{address}"),
            begun: Instant::now(),
            ended,
        };
        let outcome = play(stage).await;
        told.cancel();
        outcome.map_err(|error| format!("{error:#}").into())
    });
    let end = async move {
        tokio::select! {
            () = signal => {}
            () = over.cancelled() => {}
        }
    };
    Ok(supervisor.run(end).await?)
}
