//! Starts and ends the parts in order.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use marquee_models::live::LiveParams;
use marquee_runtime::priority::Priority;
use marquee_runtime::{Bus, Clock};
use marquee_schemas::{Limits, ModelVersion, RequestLog, Topic};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alerts::Alerts;
use crate::champion::{BundleLoader, Champion, FollowModels, RegistryBundles};
use crate::engine::Engine;
use crate::http::{App, AppState, router_with};
use crate::logs::{LogQueue, Spool, SpoolConfig, Worker, WorkerConfig};
use crate::shadow::{ShadowQueue, ShadowTasks};
use crate::sink::BusSink;
use crate::view::{Follow, Snapshots, View};
use crate::{Config, Error, champion, view};

/// Topics that a recommender reads or writes.
const TOPICS: [Topic; 8] = [
    Topic::Interactions,
    Topic::Movies,
    Topic::Features,
    Topic::RetrainEvents,
    Topic::ModelEvents,
    Topic::ModelCommands,
    Topic::RequestLogs,
    Topic::Alerts,
];

/// What a recommender is made of besides its settings.
#[derive(Debug)]
pub struct Components {
    /// The brokers.
    pub bus: Bus,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Seeds the request ids: must differ between processes.
    pub seed: u64,
    /// Calls of other services on the same address; without a fallback of their own.
    pub extra_routes: Router,
    /// Where models come from.
    pub loader: Arc<dyn BundleLoader>,
}

/// A recommender that is not bound to its address yet.
#[derive(Debug)]
pub struct Service {
    components: Components,
    state: AppState,
    view: Arc<View>,
    champion: Arc<Champion>,
    logs: mpsc::Receiver<RequestLog>,
    shadow_tasks: ShadowTasks,
}

/// A recommender that holds its address.
#[derive(Debug)]
pub struct Bound {
    service: Service,
    listener: TcpListener,
    address: SocketAddr,
}

/// Looks into a running recommender. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(AppState);

impl Handle {
    /// What is missing before answers rest on complete data; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.engine.view().missing()
    }

    /// Whether answers rest on complete data.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// The model that serves.
    #[must_use]
    pub fn model_version(&self) -> Option<ModelVersion> {
        self.0
            .engine
            .champion()
            .serving()
            .map(|serving| serving.version.clone())
    }
}

impl Service {
    /// A recommender with the model registry of `config`; `seed` must differ between processes, `extra_routes` are
    /// served on the same address and must not have a fallback of their own.
    ///
    /// # Errors
    /// [`Error::Config`] naming a setting that cannot work, [`Error::Bus`] for options that librdkafka refuses.
    pub fn new(
        config: Config,
        bus: Bus,
        clock: Arc<dyn Clock>,
        seed: u64,
        extra_routes: Router,
    ) -> Result<Self, Error> {
        let loader = Arc::new(RegistryBundles {
            registry_dir: config.registry_dir.clone(),
        });
        Self::with_components(
            config,
            Components {
                bus,
                clock,
                seed,
                extra_routes,
                loader,
            },
        )
    }

    /// A recommender from all its parts.
    ///
    /// # Errors
    /// As [`Service::new`].
    pub fn with_components(config: Config, components: Components) -> Result<Self, Error> {
        config.check()?;
        let publisher = components.bus.publisher("recommender-alerts")?;
        let alerts = Alerts::new(Some(publisher), Arc::clone(&components.clock));
        let limits = Limits {
            max_future_ms: config.max_future_ms,
        };
        let view = View::new(LiveParams::default(), config.apply_slice)?.with_limits(limits);
        let view = Arc::new(view);
        let champion = Arc::new(Champion::default());
        let (queue, logs) = LogQueue::bounded(config.log_queue_len, alerts.clone());
        let engine = Engine::new(Arc::clone(&view), Arc::clone(&champion), config.engine());
        let (shadow, shadow_tasks) = ShadowQueue::bounded(config.shadow_queue_len);
        let events = BusSink(components.bus.publisher("recommender-events")?);
        let clock = Arc::clone(&components.clock);
        let state = AppState::new(App::new(
            config,
            engine,
            queue,
            alerts,
            clock,
            Arc::new(events),
            shadow,
            components.seed,
        ));
        Ok(Self {
            components,
            state,
            view,
            champion,
            logs,
            shadow_tasks,
        })
    }

    /// Takes the address, so that the port is known before any work begins.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn bind(self) -> Result<Bound, Error> {
        let listen = |source| Error::Listen {
            address: self.state.config.listen.clone(),
            source,
        };
        let listener = TcpListener::bind(&self.state.config.listen)
            .await
            .map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Bound {
            service: self,
            listener,
            address,
        })
    }

    /// Looks into the recommender while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.state.clone())
    }

    /// [`Service::bind`], then [`Bound::run`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        self.bind().await?.run(token).await
    }
}

impl Bound {
    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Looks into the recommender while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.service.handle()
    }

    /// Serves until `token` is cancelled. Then, in this order: no new connection is taken, open requests end, view
    /// and champion stop, the last request logs go to the broker or to the spool.
    ///
    /// # Errors
    /// The spool cannot be opened, or a part failed in a way that does not pass by itself.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self {
            service:
                Service {
                    components,
                    state,
                    view,
                    champion,
                    logs,
                    shadow_tasks,
                },
            listener,
            address,
        } = self;
        // The parts end together, and not with them whatever else hears the caller's token.
        let token = token.child_token();
        let config = state.config.clone();
        let worker = start_worker(&config, &components.bus, &state, logs)?;
        tracing::info!(%address, "listening");
        let drained = CancellationToken::new();
        let shadow = start_shadow(shadow_tasks, state.clone(), drained.clone())?;
        let mut parts = JoinSet::new();
        parts.spawn(shadow.until(drained.clone()));
        parts.spawn(worker.thread.clone().until(drained.clone()));
        let app = router_with(state.clone(), components.extra_routes);
        let (stop, drain) = (token.clone(), config.drain_timeout());
        parts.spawn(async move { serve(listener, app, stop, drain).await });
        let bus = components.bus.clone();
        let follow = Follow {
            view: Arc::clone(&view),
            champion: Arc::clone(&champion),
            bus: bus.clone(),
            clock: Arc::clone(&components.clock),
            alerts: state.alerts.clone(),
            snapshots: (config.snapshot_every_s > 0).then(|| {
                let every = Duration::from_secs(config.snapshot_every_s);
                Arc::new(Snapshots::new(&config.state_dir, every))
            }),
        };
        let models = FollowModels {
            champion,
            view,
            bus: bus.clone(),
            loader: components.loader,
            alerts: state.alerts.clone(),
            kept: state.config.experiment.versions().cloned().collect(),
        };
        let stop = drained.clone();
        parts.spawn(async move {
            if !topics_exist(&bus, &stop).await? {
                return Ok(());
            }
            tokio::try_join!(view::follow(follow, stop.clone()), champion::follow(models, stop))?;
            Ok(())
        });

        // The server ends first: it alone hears the token. What it used ends after it.
        let mut outcome = Ok(());
        while let Some(joined) = parts.join_next().await {
            let ended = joined.unwrap_or_else(|error| {
                Err(Error::Thread {
                    name: "recommender".into(),
                    detail: error.to_string(),
                })
            });
            if outcome.is_ok() {
                outcome = ended;
            }
            drained.cancel();
            token.cancel();
        }
        outcome.and(worker.end().await)
    }
}

/// Waits until the topics can be created or are there; `false` when cancelled before.
async fn topics_exist(bus: &Bus, stop: &CancellationToken) -> Result<bool, Error> {
    loop {
        match bus.ensure_topics(&TOPICS).await {
            Ok(()) => return Ok(true),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the broker is away");
                tokio::select! {
                    () = stop.cancelled() => return Ok(false),
                    () = tokio::time::sleep(Duration::from_millis(500)) => {}
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Serves until `stop`, then lets open requests end for at most `drain`.
async fn serve(
    listener: TcpListener,
    app: Router,
    stop: CancellationToken,
    drain: Duration,
) -> Result<(), Error> {
    // Answers are single small writes: waiting to fill a segment would only delay them.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY");
        }
    });
    let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        biased;
        ended = server.into_future() => ended.map_err(Error::Serve),
        () = overdue => {
            tracing::warn!("some connections did not end in time");
            Ok(())
        }
    }
}

/// A thread that must not end before it is told to.
#[derive(Debug, Clone)]
struct Lasting {
    name: &'static str,
    ended: CancellationToken,
}

impl Lasting {
    fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<Self, Error> {
        let ended = CancellationToken::new();
        // Also where it panics.
        let end = ended.clone().drop_guard();
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let _end = end;
                work();
            })
            .map_err(|error| Error::Thread {
                name: name.into(),
                detail: error.to_string(),
            })?;
        Ok(Self { name, ended })
    }

    fn vanished(&self) -> Error {
        Error::Thread {
            name: self.name.into(),
            detail: "ended although nobody asked it to".into(),
        }
    }

    /// Returns when `stop` is cancelled; fails where the thread ends before. Does not wait for its end.
    async fn until(self, stop: CancellationToken) -> Result<(), Error> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            () = self.ended.cancelled() => Err(self.vanished()),
        }
    }
}

/// Scoring on the side has a thread of its own, so that it holds up no answer. Nobody waits for it at the end: what it
/// has not made yet is not missed.
fn start_shadow(tasks: ShadowTasks, state: AppState, stop: CancellationToken) -> Result<Lasting, Error> {
    Lasting::start("recommender-shadow", move || {
        tasks.run(&state, Duration::from_millis(200), || stop.is_cancelled());
    })
}

struct RunningWorker {
    stop: CancellationToken,
    thread: Lasting,
    spooled: tokio::sync::oneshot::Receiver<u64>,
}

impl RunningWorker {
    async fn end(self) -> Result<(), Error> {
        self.stop.cancel();
        let spooled = self.spooled.await.map_err(|_| self.thread.vanished())?;
        tracing::debug!(spooled, "request logs are safe");
        Ok(())
    }
}

/// The worker writes to disk, so it has a thread of its own beside the server's, and stands back behind it: a log may be
/// late, the list it tells of may not.
fn start_worker(
    config: &Config,
    bus: &Bus,
    state: &AppState,
    logs: mpsc::Receiver<RequestLog>,
) -> Result<RunningWorker, Error> {
    let dir = config.state_dir.join("spool");
    let spool = Spool::open(
        &dir,
        SpoolConfig {
            max_bytes: config.spool_max_bytes,
            segment_bytes: config.spool_segment_bytes,
        },
    )
    .map_err(|source| Error::Spool { path: dir, source })?;
    let worker = Worker::new(
        logs,
        BusSink(bus.publisher_at("recommender-logs", Priority::Low)?),
        spool,
        WorkerConfig {
            batch: config.log_batch_len,
            ack_timeout: Duration::from_millis(config.log_ack_timeout_ms),
            retry: Duration::from_millis(config.log_retry_ms),
            flush: Duration::from_millis(config.log_flush_timeout_ms),
        },
        Arc::clone(state.logs.stats()),
        state.alerts.clone(),
    );
    let stop = CancellationToken::new();
    let (sender, spooled) = tokio::sync::oneshot::channel();
    let (runtime, token) = (tokio::runtime::Handle::current(), stop.clone());
    let thread = Lasting::start("recommender-logs", move || {
        Priority::Low.take();
        let spooled = runtime.block_on(worker.run(token));
        // Nobody waits only when the whole service was dropped.
        sender.send(spooled).ok();
    })?;
    Ok(RunningWorker {
        stop,
        thread,
        spooled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_ends_before_it_is_told_to_is_a_failure_and_one_that_lasts_is_not() {
        let stop = CancellationToken::new();
        let quitters: [fn(); 2] = [|| (), || panic!("told in the log only")];
        for work in quitters {
            let failed = Lasting::start("quitter", work).unwrap().until(stop.clone()).await;
            assert!(failed.unwrap_err().to_string().contains("quitter"));
        }
        let (end, told) = std::sync::mpsc::channel::<()>();
        let lasting = Lasting::start("lasting", move || {
            told.recv().ok();
        })
        .unwrap();
        stop.cancel();
        lasting.until(stop).await.unwrap();
        drop(end);
    }

    #[tokio::test]
    async fn a_worker_that_panics_at_the_end_is_a_failure() {
        let (sender, spooled) = tokio::sync::oneshot::channel();
        let worker = RunningWorker {
            stop: CancellationToken::new(),
            thread: Lasting::start("logs", move || drop(sender)).unwrap(),
            spooled,
        };
        assert!(worker.end().await.unwrap_err().to_string().contains("logs"));
    }
}
