//! Puts services under the supervisor. All in one process or one per process, they are made here and alike.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use marquee_ingestor::{Gateway, GatewayConfig, gateway};
use marquee_runtime::bus::Bus;
use marquee_runtime::ids::IdSource;
use marquee_runtime::supervise::{ServiceError, Stage, Supervisor};
use marquee_runtime::{Clock, SystemClock};

use crate::cli::ServiceName;
use crate::config::Config;
use crate::instance::StateDir;

pub(crate) const ALL: [ServiceName; 4] = [
    ServiceName::FeatureProcessor,
    ServiceName::Trainer,
    ServiceName::Replay,
    ServiceName::Recommender,
];

/// Points every service at its folder below the state directory, and gives all of them what they must agree on.
pub(crate) fn place(config: &mut Config, state: &StateDir) {
    config.feature_processor.state_dir = state.features();
    let registry = config.registry(state);
    config.trainer.registry_dir.clone_from(&registry);
    config.trainer.cache_dir = state.trainer_cache();
    config.trainer.exports_dir = state.exports();
    config.recommender.state_dir = state.recommender();
    config.recommender.registry_dir = registry;
    config.replay.lake_dir = state.lake();
    config.trainer.seed = config.seed;
    config.recommender.max_future_ms = config.feature_processor.max_future_ms;
}

/// Where services answer over HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Addresses {
    /// The recommender.
    pub(crate) http: Option<SocketAddr>,
    /// The feature processor.
    pub(crate) features: Option<SocketAddr>,
    /// Replay, for SQL.
    pub(crate) sql: Option<SocketAddr>,
}

/// Starts a service; says where it listens.
pub(crate) async fn start(
    supervisor: &mut Supervisor,
    service: ServiceName,
    config: &Config,
    bus: &Bus,
) -> Result<Addresses> {
    let mut addresses = Addresses::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    match service {
        ServiceName::FeatureProcessor => {
            let token = supervisor.token(Stage::Pipeline);
            let mut service = marquee_feature_processor::Service::new(
                config.feature_processor.clone(),
                bus.clone(),
                clock,
            )?;
            addresses.features = service.bind().await?;
            supervisor.spawn("feature-processor", Stage::Pipeline, async move {
                service.run(token).await.map_err(ServiceError::from)
            });
        }
        ServiceName::Trainer => {
            let token = supervisor.token(Stage::Pipeline);
            let service = marquee_trainer::Service::new(config.trainer.clone(), bus.clone(), clock);
            supervisor.spawn("trainer", Stage::Pipeline, async move {
                service.run(token).await.map_err(ServiceError::from)
            });
        }
        ServiceName::Replay => {
            let token = supervisor.token(Stage::Pipeline);
            let mut service = marquee_replay::Service::new(config.replay.clone(), bus.clone(), clock);
            addresses.sql = service.bind().await?;
            // SQL computes inside its futures.
            supervisor.spawn_aside("replay", Stage::Pipeline, async move {
                service.run(token).await.map_err(ServiceError::from)
            })?;
        }
        ServiceName::Recommender => {
            let token = supervisor.token(Stage::Edge);
            let ids = Arc::new(IdSource::seeded(process_seed(config.seed)));
            let events = Gateway::new(
                bus.publisher("marquee-gateway")?,
                Arc::clone(&clock),
                ids,
                GatewayConfig {
                    max_future_ms: config.feature_processor.max_future_ms,
                    ..GatewayConfig::default()
                },
            );
            let service = marquee_recommender::Service::new(
                config.recommender.clone(),
                bus.clone(),
                clock,
                process_seed(config.seed).wrapping_add(1),
                gateway::router(events),
            )?
            .bind()
            .await
            .with_context(|| format!("listening on {}", config.recommender.listen))?;
            addresses.http = Some(service.local_addr());
            supervisor.spawn("recommender", Stage::Edge, async move {
                service.run(token).await.map_err(ServiceError::from)
            });
        }
    }
    Ok(addresses)
}

/// Request ids must differ between processes and restarts, so the seed is mixed with what does.
fn process_seed(seed: u64) -> u64 {
    let now = u64::try_from(SystemClock.now_ms()).unwrap_or(0);
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ now.rotate_left(20) ^ u64::from(std::process::id())
}
