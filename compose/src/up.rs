//! `marquee up`, `marquee run` and `marquee broker`: what lasts until it is told to end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use marquee_broker::{BrokerConfig, EmbeddedBroker};
use marquee_runtime::bus::{Bus, BusConfig};
use marquee_runtime::supervise::{ServiceError, Stage, Supervisor, stop_signal};
use marquee_schemas::ALL_TOPICS;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cli::{BrokerArgs, Common, RunArgs, ServiceName, UpArgs};
use crate::config::Config;
use crate::ingest::{self, Traffic};
use crate::instance::{Instance, InstanceLock, Part, StateDir};
use crate::services;

/// How long a broker may take to answer first: a real one may still be starting.
const BROKER_PATIENCE: Duration = Duration::from_secs(30);
/// How long live traffic waits for a first model; a small history may never lead to one.
const MODEL_PATIENCE: Duration = Duration::from_secs(300);

/// Where `up` serves features, unless the settings say otherwise.
const FEATURES_LISTEN: &str = "127.0.0.1:8082";

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What every lasting command begins with.
struct Ground {
    config: Config,
    state: StateDir,
    lock: InstanceLock,
    instance: Instance,
    /// Where SQL is answered; no tool looks for it.
    sql: Option<SocketAddr>,
    supervisor: Supervisor,
    signal: Signal,
}

impl Ground {
    fn new(common: &Common, parts: &[Part], adjust: impl FnOnce(&mut Config)) -> Result<Self> {
        let mut config = Config::load(common)?;
        adjust(&mut config);
        if let Some(contradiction) = config.contradiction() {
            tracing::warn!(contradiction, "two settings do not go together");
        }
        let state = StateDir::new(&common.state_dir)?;
        services::place(&mut config, &state);
        let instance = Instance {
            pid: std::process::id(),
            brokers: config.kafka.brokers.clone(),
            http: None,
            features: None,
        };
        Ok(Self {
            lock: state.lock(parts, &instance)?,
            supervisor: Supervisor::new(config.shutdown_grace()),
            signal: Box::pin(stop_signal().context("installing signal handlers")?),
            config,
            state,
            instance,
            sql: None,
        })
    }

    /// The bus: to the named brokers, or to the embedded one, which is then started and supervised.
    async fn bus(&mut self, external: bool) -> Result<Bus> {
        if external {
            let bus = Bus::new(self.config.kafka.clone());
            bus.wait_ready(BROKER_PATIENCE).await?;
            return Ok(bus);
        }
        let broker = self.start_broker().await?;
        // Nobody else can hold the partitions: the state directory is this process's own.
        self.config.feature_processor.all_partitions = true;
        self.config.feature_processor.copy_rows_every_ms = 0;
        self.instance.brokers = broker.address().to_string();
        let bus = Bus::new(BusConfig {
            brokers: self.instance.brokers.clone(),
            ..self.config.kafka.clone()
        });
        let token = self.supervisor.token(Stage::Foundation);
        self.supervisor.spawn("broker", Stage::Foundation, async move {
            broker.run(token).await.map_err(ServiceError::from)
        });
        bus.wait_ready(BROKER_PATIENCE).await?;
        Ok(bus)
    }

    async fn start_broker(&self) -> Result<EmbeddedBroker> {
        Ok(marquee_broker::start(BrokerConfig {
            listen: self.config.broker.listen,
            database: self.state.broker_database(),
            // Beside a recommender, lists go first.
            on_thread_start: marquee_runtime::priority::yield_to_others,
        })
        .await?)
    }

    async fn start(&mut self, service: ServiceName, bus: &Bus) -> Result<()> {
        let addresses = services::start(&mut self.supervisor, service, &self.config, bus).await?;
        self.instance.http = addresses.http.or(self.instance.http);
        self.instance.features = addresses.features.or(self.instance.features);
        self.sql = addresses.sql.or(self.sql);
        Ok(())
    }

    fn tell_addresses(&self) {
        if let Some(address) = self.instance.http {
            println!("http   http://{address}");
        }
        if let Some(address) = self.instance.features {
            println!("store  http://{address}/features/users/1");
        }
        if let Some(address) = self.sql {
            println!("sql    http://{address}/sql");
        }
    }

    async fn serve_until_stopped(self) -> Result<()> {
        let outcome = self.supervisor.run(self.signal).await;
        drop(self.lock);
        Ok(outcome?)
    }
}

pub(crate) async fn up(common: &Common, args: UpArgs) -> Result<()> {
    let mut ground = Ground::new(common, &Part::ALL, |config| {
        if config.feature_processor.listen.is_empty() {
            config.feature_processor.listen = FEATURES_LISTEN.into();
        }
        if let Some(listen) = args.listen {
            if listen.port() == 0 {
                // Whoever wants any free port for one listener wants no fixed one for the others.
                config.replay.http.listen.set_port(0);
                config.feature_processor.listen = "127.0.0.1:0".into();
            }
            config.recommender.listen = listen.to_string();
        }
        config.replay.http.listen = args.sql_listen.unwrap_or(config.replay.http.listen);
        config.broker.listen = args.kafka_listen.unwrap_or(config.broker.listen);
    })?;
    // Starting is a moment's work, but a signal must end it too.
    let external = ground.config.names_brokers(common);
    let mut signal = std::mem::replace(&mut ground.signal, Box::pin(std::future::pending()));
    let started = tokio::select! {
        biased;
        () = &mut signal => return Ok(()),
        started = start_all(&mut ground, external, args) => started,
    };
    started?;
    ground.signal = signal;
    ground.serve_until_stopped().await
}

async fn start_all(ground: &mut Ground, external: bool, args: UpArgs) -> Result<()> {
    let begun = Instant::now();
    // Read first: without data there is nothing to start.
    let dataset = if args.no_traffic {
        None
    } else {
        Some(ingest::load(args.dataset.clone()).await?)
    };
    let bus = ground.bus(external).await?;
    bus.ensure_topics(&ALL_TOPICS).await?;
    for service in services::ALL {
        ground.start(service, &bus).await?;
    }
    let address = ground.instance.http.context("no service listens")?;
    ground.lock.announce(&ground.instance)?;

    let kind = if external { "external" } else { "embedded" };
    println!("kafka  {} ({kind})", ground.instance.brokers);
    ground.tell_addresses();
    if let Some(dataset) = dataset {
        let traffic = Traffic::new(bus, dataset, args.history_share, args.event_times, &ground.state)?;
        let token = ground.supervisor.token(Stage::Edge);
        ground.supervisor.spawn_job("traffic", Stage::Edge, async move {
            drive(traffic, args, address, begun, token)
                .await
                .map_err(|error| format!("{error:#}").into())
        });
    }
    Ok(())
}

/// History at full speed, then a first model, then the rest as live traffic.
async fn drive(
    mut traffic: Traffic,
    args: UpArgs,
    address: SocketAddr,
    begun: Instant,
    token: CancellationToken,
) -> Result<()> {
    let summary = traffic.dataset().summary();
    println!("data   {summary}");
    if !traffic.history(args.speed, &token).await? {
        return Ok(());
    }
    let Some(model) = first_model(address, &token).await else {
        return Ok(());
    };
    match model {
        Some(model) => println!(
            "ready  model {model} serves, {:.1} s after the start",
            begun.elapsed().as_secs_f64()
        ),
        None => println!("ready  no model yet: popularity serves until there is enough data for one"),
    }
    println!(
        "\n  curl -s http://{address}/recommend -H 'content-type: application/json' -d '{{\"user_id\": 1, \"k\": 5}}'\n\
         \nlive traffic goes on at {}; Ctrl-C stops\n",
        args.live_speed
    );
    if traffic.live(args.live_speed, &token).await? {
        println!("all traffic published; still serving");
    }
    Ok(())
}

/// Waits until the instance answers as ready and has a model: `None` if told to end, `Some(None)` if no model came.
async fn first_model(address: SocketAddr, token: &CancellationToken) -> Option<Option<String>> {
    let deadline = Instant::now() + MODEL_PATIENCE;
    loop {
        let health = tokio::task::spawn_blocking(move || {
            let ready = ureq::get(format!("http://{address}/ready")).call().is_ok();
            let health = ureq::get(format!("http://{address}/health")).call().ok()?;
            let health: Value = serde_json::from_str(&health.into_body().read_to_string().ok()?).ok()?;
            ready.then(|| health["model_version"].as_str().map(str::to_owned))
        });
        match health.await {
            Ok(Some(Some(model))) => return Some(Some(model)),
            Ok(Some(None)) if Instant::now() > deadline => return Some(None),
            _ => {}
        }
        tokio::select! {
            () = token.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

pub(crate) async fn run_one(common: &Common, args: RunArgs) -> Result<()> {
    if args.listen.is_some() && !matches!(args.service, ServiceName::Recommender | ServiceName::Replay) {
        return Err(anyhow!("--listen is for the recommender and replay"));
    }
    let mut ground = Ground::new(common, &[args.service.into()], |config| {
        if let Some(listen) = args.listen {
            match args.service {
                ServiceName::Replay => config.replay.http.listen = listen,
                _ => config.recommender.listen = listen.to_string(),
            }
        }
    })?;
    let bus = ground.bus(true).await?;
    bus.ensure_topics(&ALL_TOPICS).await?;
    ground.start(args.service, &bus).await?;
    ground.tell_addresses();
    ground.lock.announce(&ground.instance)?;
    ground.serve_until_stopped().await
}

pub(crate) async fn broker(common: &Common, args: BrokerArgs) -> Result<()> {
    let mut ground = Ground::new(common, &[Part::Broker], |config| {
        config.broker.listen = args.kafka_listen.unwrap_or(config.broker.listen);
    })?;
    let bus = ground.bus(false).await?;
    bus.ensure_topics(&ALL_TOPICS).await?;
    ground.lock.announce(&ground.instance)?;
    println!("kafka  {}", ground.instance.brokers);
    ground.serve_until_stopped().await
}
