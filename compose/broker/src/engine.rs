//! The engine behind the seam: `tansu-broker` on SQLite.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tansu_broker::broker::Broker;
use tansu_broker::coordinator::group::administrator::Controller;
use tansu_storage::StorageContainer;
use url::Url;
use uuid::Uuid;

use crate::{BrokerConfig, BrokerError, EmbeddedBroker};

/// After a killed process the file's lock may outlive it by a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn start(config: BrokerConfig) -> Result<EmbeddedBroker, BrokerError> {
    let address = choose_port(config.listen)?;
    let database = absolute(&config.database)?;
    let storage =
        Url::parse(&format!("sqlite:///{}", database.display())).map_err(|e| storage_error(&database, e))?;
    let listener = tcp_url(address, &database)?;
    // Clients must be able to reach what is advertised; 0.0.0.0 is no address to connect to.
    let advertised = if address.ip().is_unspecified() {
        tcp_url(SocketAddr::from(([127, 0, 0, 1], address.port())), &database)?
    } else {
        listener.clone()
    };
    let started = Instant::now();
    let mut broker = loop {
        let built = Broker::<Controller<StorageContainer>, StorageContainer>::builder()
            .node_id(111)
            .cluster_id("marquee")
            .incarnation_id(Uuid::nil())
            .advertised_listener(advertised.clone())
            .schema_registry(None)
            .storage(storage.clone())
            .listener(listener.clone())
            .silent(true)
            .build()
            .await;
        match built {
            Ok(broker) => break broker,
            Err(error) if error.to_string().contains("locked") && started.elapsed() < LOCK_PATIENCE => {
                tracing::debug!(%error, "the broker's log is still locked");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(storage_error(&database, error)),
        }
    };
    let task = tokio::spawn(async move {
        loop {
            match broker.serve(started.into()).await {
                Ok(()) => return Ok(()),
                Err(error) if error.to_string().contains("locked") && started.elapsed() < LOCK_PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(BrokerError::Ended(error.to_string())),
            }
        }
    });
    Ok(EmbeddedBroker { address, task })
}

/// The engine binds the port itself, so a free one is found by binding and letting go.
fn choose_port(wanted: SocketAddr) -> Result<SocketAddr, BrokerError> {
    let listen = |source| BrokerError::Listen {
        address: wanted,
        source,
    };
    TcpListener::bind(wanted)
        .map_err(listen)?
        .local_addr()
        .map_err(listen)
}

fn absolute(path: &Path) -> Result<PathBuf, BrokerError> {
    std::path::absolute(path).map_err(|e| storage_error(path, e))
}

fn tcp_url(address: SocketAddr, database: &Path) -> Result<Url, BrokerError> {
    Url::parse(&format!("tcp://{address}")).map_err(|e| storage_error(database, e))
}

fn storage_error(path: &Path, error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Storage {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}
