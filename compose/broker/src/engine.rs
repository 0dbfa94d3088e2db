//! The engine behind the seam: `tansu-broker` on SQLite, with the records in logs of our own ([`log`], [`storage`]),
//! fetches that end when there is something ([`fetch`]), and threads of its own: SQLite's calls block.

mod fetch;
mod frames;
mod log;
mod storage;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use rama::{Context, Layer as _, Service as _};
use tansu_broker::coordinator::group::administrator::Controller;
use tansu_broker::service::{auth, coordinator, storage as routes};
use tansu_sans_io::{ApiKey as _, FetchRequest};
use tansu_service::{FrameRequestLayer, FrameRouteService, TcpBytesLayer, TcpContext, TcpContextLayer};
use tansu_storage::{BrokerRegistrationRequest, Storage as _, StorageContainer};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use self::fetch::Fetch;
use self::frames::Frames;
use self::storage::Records;
use crate::{BrokerConfig, BrokerError, EmbeddedBroker};

/// After a killed process the file's lock may outlive it by a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// How often records that need not be kept are looked for, first this long after the start.
const MAINTENANCE: Duration = Duration::from_secs(10 * 60);
/// How much of what it was told a power cut may take from the log.
const SYNC: Duration = Duration::from_secs(1);
const CLUSTER: &str = "marquee";
const NODE: i32 = 111;
/// One thread may sit in a long read of the file while another serves everybody else.
const THREADS: usize = 2;

type Error = tansu_broker::Error;

/// Boxed, so that the engine is compiled with this crate and not with every binary that awaits it.
pub(crate) fn start(
    config: BrokerConfig,
) -> Pin<Box<dyn Future<Output = Result<EmbeddedBroker, BrokerError>> + Send>> {
    Box::pin(begin(config))
}

async fn begin(config: BrokerConfig) -> Result<EmbeddedBroker, BrokerError> {
    let listener = listen(config.listen)?;
    let address = listener.local_addr().map_err(|source| BrokerError::Listen {
        address: config.listen,
        source,
    })?;
    let database = absolute(&config.database)?;
    let stop = CancellationToken::new();
    let (ready, opened) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let on_thread_start = config.on_thread_start;
    let stopped = stop.clone();
    std::thread::Builder::new()
        .name("marquee-broker".into())
        .spawn(move || {
            let outcome = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("marquee-broker")
                .on_thread_start(on_thread_start)
                .enable_all()
                .build()
                .map_err(|error| BrokerError::Ended(format!("its runtime: {error}")))
                .and_then(|runtime| {
                    let outcome = runtime.block_on(run(listener, address, &database, ready, &stopped));
                    // Connections end here; what was acknowledged is in the file.
                    runtime.shutdown_timeout(Duration::from_millis(500));
                    outcome
                });
            // Nobody asks any more once the broker was dropped.
            drop(ended.send(outcome));
        })
        .map_err(|error| BrokerError::Ended(format!("its thread: {error}")))?;
    if opened.await.is_err() {
        return Err(match end.await {
            Ok(Err(error)) => error,
            _ => BrokerError::Ended("before it began".into()),
        });
    }
    Ok(EmbeddedBroker { address, stop, end })
}

/// Serves until `stop`; says `ready` once clients are accepted.
async fn run(
    listener: TcpListener,
    address: SocketAddr,
    database: &Path,
    ready: oneshot::Sender<()>,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let storage = Records::open(open(address, database).await?, &database.with_extension("log"))
        .await
        .map_err(|error| storage_error(database, &error))?;
    let ended = |error: &dyn std::fmt::Display| BrokerError::Ended(error.to_string());
    let groups = Controller::with_storage(storage.clone()).map_err(|e| ended(&e))?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| ended(&e))?;
    if ready.send(()).is_err() {
        // Nobody waits for the broker any more.
        return Ok(());
    }
    let mut maintenance = tokio::time::interval_at(tokio::time::Instant::now() + MAINTENANCE, MAINTENANCE);
    let mut tasks = JoinSet::new();
    tasks.spawn(sync(storage.clone()));
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                storage.sync();
                return Ok(());
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, %peer, "a connection that closed at once");
                        continue;
                    }
                    let service = service(storage.clone(), groups.clone()).map_err(|e| ended(&e))?;
                    tasks.spawn(async move {
                        if let Err(error) = service.serve(Context::default(), stream).await {
                            log_end(peer, &error);
                        }
                    });
                }
                // Out of descriptors, or the client vanished: neither is helped by ending.
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(LOCK_RETRY).await;
                }
            },
            _ = maintenance.tick() => {
                let storage = storage.clone();
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the age of records on disk is a matter of the wall clock, and this crate knows no other"
                )]
                let now = SystemTime::now();
                tasks.spawn(async move {
                    if let Err(error) = storage.maintain(now).await {
                        tracing::warn!(%error, "maintaining the broker's log");
                    }
                });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// A slow disk is not asked again before it has answered.
async fn sync(storage: Records<StorageContainer>) {
    loop {
        tokio::time::sleep(SYNC).await;
        let storage = storage.clone();
        if tokio::task::spawn_blocking(move || storage.sync()).await.is_err() {
            tracing::error!("syncing the broker's log ended early");
        }
    }
}

fn log_end(peer: SocketAddr, error: &Error) {
    use std::io::ErrorKind;
    match error {
        Error::Io(io)
            if matches!(
                io.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) => {}
        error => tracing::warn!(%error, %peer, "a connection of the broker ended"),
    }
}

/// Opens the log, waiting for the lock of a process that was just killed.
async fn open(address: SocketAddr, database: &Path) -> Result<StorageContainer, BrokerError> {
    let failed = |error: &dyn std::fmt::Display| storage_error(database, error);
    let file = Url::parse(&format!("sqlite:///{}", database.display())).map_err(|e| failed(&e))?;
    // Clients must be able to reach what is advertised; 0.0.0.0 is no address to connect to.
    let reachable = if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    };
    let advertised = Url::parse(&format!("tcp://{reachable}")).map_err(|e| failed(&e))?;
    let started = Instant::now();
    loop {
        let opened = async {
            let storage = StorageContainer::builder()
                .cluster_id(CLUSTER)
                .node_id(NODE)
                .advertised_listener(advertised.clone())
                .storage(file.clone())
                .silent(true)
                .build()
                .await?;
            storage
                .register_broker(BrokerRegistrationRequest {
                    broker_id: NODE,
                    cluster_id: CLUSTER.into(),
                    incarnation_id: Uuid::nil(),
                    rack: None,
                })
                .await?;
            Ok::<_, tansu_storage::Error>(storage)
        }
        .await;
        match opened {
            Ok(storage) => return Ok(storage),
            Err(error) if error.to_string().contains("locked") && started.elapsed() < LOCK_PATIENCE => {
                tracing::debug!(%error, "the broker's log is still locked");
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

type Connection = tansu_service::TcpContextService<tansu_service::TcpBytesService<Frames, ()>>;

/// The engine's routes but those of transactions and of deleting records, which the logs do not know; with our own fetch.
fn service(
    storage: Records<StorageContainer>,
    groups: Controller<Records<StorageContainer>>,
) -> Result<Connection, Error> {
    let builder = [
        routes::alter_user_scram_credentials,
        routes::consumer_group_describe,
        routes::create_acls,
        routes::create_topics,
        routes::delete_groups,
        routes::delete_topics,
        routes::describe_acls,
        routes::describe_cluster,
        routes::describe_configs,
        routes::describe_groups,
        routes::describe_topic_partitions,
        routes::describe_user_scram_credentials,
        routes::find_coordinator,
        routes::get_telemetry_subscriptions,
        routes::incremental_alter_configs,
        routes::init_producer_id,
        routes::list_groups,
        routes::list_offsets,
        routes::list_partition_reassignments,
        routes::metadata,
        routes::produce,
    ]
    .iter()
    .try_fold(FrameRouteService::<(), Error>::builder(), |builder, route| {
        route(builder, storage.clone())
    })?
    .with_route(
        FetchRequest::KEY,
        FrameRequestLayer::<FetchRequest>::new()
            .into_layer(Fetch::new(storage))
            .boxed(),
    )?;
    let route = coordinator::services(builder, groups)
        .and_then(auth::services)?
        .build()?;
    Ok((
        TcpContextLayer::new(TcpContext::default().cluster_id(Some(CLUSTER.into()))),
        TcpBytesLayer::default(),
    )
        .into_layer(Frames::new(route)))
}

/// Binds at once, so that a port that was chosen is ours.
fn listen(wanted: SocketAddr) -> Result<TcpListener, BrokerError> {
    let failed = |source| BrokerError::Listen {
        address: wanted,
        source,
    };
    let listener = TcpListener::bind(wanted).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn absolute(path: &Path) -> Result<PathBuf, BrokerError> {
    std::path::absolute(path).map_err(|e| storage_error(path, &e))
}

fn storage_error(path: &Path, error: &dyn std::fmt::Display) -> BrokerError {
    BrokerError::Storage {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}
