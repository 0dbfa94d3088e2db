//! The service: sink, evaluation and SQL over HTTP, side by side.

mod evaluator;
mod monitor;
mod rounds;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::{Outgoing, SubscriberConfig, Subscription};
use marquee_runtime::priority::Priority;
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::Topic;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use evaluator::Evaluator;
use monitor::Monitor;

use crate::config::Config;
use crate::disk::OsDisk;
use crate::error::Error;
use crate::http;
use crate::lake::{Gap, Lake};
use crate::sink::{BusDeadLetters, Context, Sink, SinkCounts};
use crate::sql::SqlEngine;
use crate::table::Table;

/// The lake writes minutes at once; it need not hear of each record by itself.
const GATHER: Duration = Duration::from_millis(200);
/// How much longer than the longest query a replaced file stays: the command line's queries begin with no word to us.
const KEEP_BEYOND_MS: u64 = 30_000;
/// How long to wait before connecting again.
const RETRY: Duration = Duration::from_secs(1);

/// The replay service.
#[derive(Debug)]
pub struct Service {
    config: Config,
    bus: Bus,
    clock: Arc<dyn Clock>,
    counts: Arc<SinkCounts>,
    listener: Option<TcpListener>,
}

impl Service {
    /// A service that will write to `config.lake_dir`. The topics must exist when it runs.
    #[must_use]
    pub fn new(config: Config, bus: Bus, clock: Arc<dyn Clock>) -> Self {
        Self {
            config,
            bus,
            clock,
            counts: Arc::default(),
            listener: None,
        }
    }

    /// Takes the port for SQL before any work begins, and says which it is; `None` where HTTP is off. Without this call
    /// [`Service::run`] takes it.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address cannot be had.
    pub async fn bind(&mut self) -> Result<Option<SocketAddr>, Error> {
        if !self.config.http.enabled {
            return Ok(None);
        }
        let address = self.config.http.listen;
        let fail = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        self.listener = Some(listener);
        Ok(Some(address))
    }

    /// Counts of what it has done.
    #[must_use]
    pub fn counts(&self) -> Arc<SinkCounts> {
        Arc::clone(&self.counts)
    }

    /// Writes and evaluates until `token` is cancelled, then commits what is buffered.
    ///
    /// # Errors
    /// An [`Error`]; a broker that is away is not one, it is waited for.
    pub async fn run(mut self, token: CancellationToken) -> Result<(), Error> {
        self.config.check().map_err(Error::Config)?;
        if self.listener.is_none() {
            self.bind().await?;
        }
        let listener = self.listener.take();
        let token = token.child_token();
        // The subscriber's thread must not outlive this future, however it ends.
        let _guard = token.clone().drop_guard();
        let evaluation = async {
            if self.config.evaluation.enabled {
                let evaluator = Evaluator::new(&self.config, &self.bus)?;
                rounds::run(evaluator, &self.clock, &token).await
            } else {
                token.cancelled().await;
                Ok(())
            }
        };
        let monitoring = async {
            if self.config.monitoring.enabled {
                let monitor = Monitor::new(&self.config, &self.bus)?;
                rounds::run(monitor, &self.clock, &token).await
            } else {
                token.cancelled().await;
                Ok(())
            }
        };
        let serving = self.serve_until(listener, &token);
        let beside = async { tokio::try_join!(evaluation, monitoring, serving).map(drop) };
        let sinking = self.sink_until(&token);
        tokio::pin!(beside, sinking);
        tokio::select! {
            // The sink's end decides: it has the final flush.
            biased;
            outcome = &mut sinking => outcome,
            outcome = &mut beside => match outcome {
                Ok(()) => sinking.await,
                Err(error) => Err(error),
            },
        }
    }

    /// Answers SQL until `token` is cancelled.
    async fn serve_until(
        &self,
        listener: Option<TcpListener>,
        token: &CancellationToken,
    ) -> Result<(), Error> {
        let Some(listener) = listener else {
            token.cancelled().await;
            return Ok(());
        };
        let config = &self.config.http;
        let limits = crate::sql::SqlOptions {
            attribution_window_ms: self.config.evaluation.attribution_window_ms,
            ..config.limits.clone()
        };
        let engine = SqlEngine::new(&self.config.lake_dir, limits)?.with_hot_tail(self.bus.clone());
        let router = http::router(engine, config, token.clone());
        let address = listener.local_addr().unwrap_or(config.listen);
        tracing::info!(%address, "answering SQL");
        axum::serve(listener, router)
            .with_graceful_shutdown(token.clone().cancelled_owned())
            .await
            .map_err(|source| Error::Listen { address, source })
    }

    async fn sink_until(&self, token: &CancellationToken) -> Result<(), Error> {
        loop {
            match self.sink_once(token).await {
                Err(Error::Bus(error)) if error.is_transient() => {
                    if token.is_cancelled() {
                        return Ok(());
                    }
                    tracing::warn!(%error, "the broker is away, trying again");
                    tokio::select! {
                        () = token.cancelled() => return Ok(()),
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn keep_replaced_ms(&self) -> i64 {
        let longest = self.config.http.limits.timeout_ms;
        i64::try_from(longest.saturating_add(KEEP_BEYOND_MS)).unwrap_or(i64::MAX)
    }

    async fn sink_once(&self, token: &CancellationToken) -> Result<(), Error> {
        let publisher = self.bus.publisher("marquee-replay")?;
        let clock = Arc::clone(&self.clock);
        let dead_letters = BusDeadLetters::new(publisher.clone(), token.clone(), clock);
        let context = Context {
            flush: self.config.flush.clone(),
            compaction: self.config.compaction.clone(),
            retention: self.config.retention.clone(),
            keep_replaced_ms: self.keep_replaced_ms(),
            clock: Arc::clone(&self.clock),
            dead_letters: Box::new(dead_letters),
            counts: Arc::clone(&self.counts),
        };
        let (dir, bus) = (self.config.lake_dir.clone(), self.bus.clone());
        let (sink, lost) = blocking(move || open(&dir, &bus, context)).await?;
        let alerts = lost
            .into_iter()
            .map(|(table, partition, gap)| {
                Outgoing::of(&monitor::lost_records(table, partition, gap, &*self.clock))
            })
            .collect::<Vec<_>>();
        publisher.publish_all(&alerts).await?;
        let topics: Vec<Topic> = Table::ALL.into_iter().map(Table::topic).collect();
        let config = SubscriberConfig {
            idle_every: Duration::from_millis(100),
            gather: GATHER,
            priority: Priority::Lowest,
            ..SubscriberConfig::new("marquee-replay", Subscription::All)
        };
        let outcome = self
            .bus
            .subscriber(&topics, config)
            .run(sink, token.clone())
            .await;
        let mut sink = match outcome {
            Ok(sink) => sink,
            // The sink's own error is the cause; a dead letter that could not be sent while stopping is none: its
            // record is read again at the next start.
            Err(BusError::Handler(cause)) => match cause.downcast::<Error>() {
                Ok(cause) => return Err(*cause),
                Err(cause) => return Err(Error::Bus(BusError::Handler(cause))),
            },
            Err(error) => return Err(error.into()),
        };
        blocking(move || sink.flush_all()).await
    }
}

/// What the broker deleted before it was read, by table and partition.
type Lost = Vec<(Table, i32, Gap)>;

/// Opens the lake and passes over what the broker has deleted meanwhile. Blocks.
fn open(dir: &Path, bus: &Bus, context: Context) -> Result<(Sink, Lost), Error> {
    let mut sink = Sink::new(Lake::open(dir, OsDisk::shared())?, context);
    let mut lost = Lost::new();
    for table in Table::ALL {
        for (partition, (low, _)) in bus.watermarks_blocking(table.topic())?.0 {
            let gap = sink.pass_deleted(table.topic(), partition, low)?;
            lost.extend(gap.map(|gap| (table, partition, gap)));
        }
    }
    Ok((sink, lost))
}

/// Runs blocking work aside; a panic in it goes on here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::Bus(BusError::Fatal(error.to_string()))),
        },
    }
}
