//! The processor as a service on the bus.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use marquee_runtime::bus::{SubscriberConfig, Subscription};
use marquee_runtime::priority::Priority;
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::Topic;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::triggers::{SIGNAL_TOPICS, signals};
use crate::{BusSink, Config, Error, Processor, TopicCatalogue, TopicRows};

const CLIENT_ID: &str = "feature-processor";
const SIGNALS_CLIENT_ID: &str = "feature-processor-signals";

/// The feature processor on the bus. The topics must exist.
#[derive(Debug)]
pub struct Service {
    config: Config,
    bus: Bus,
    clock: Arc<dyn Clock>,
    listener: Option<TcpListener>,
}

impl Service {
    /// A service that runs on `bus`.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work.
    pub fn new(config: Config, bus: Bus, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            config,
            bus,
            clock,
            listener: None,
        })
    }

    /// Takes the port for features before any work begins, and says which it is; `None` where none is wanted. Without
    /// this call [`Service::run`] takes it.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address cannot be had.
    pub async fn bind(&mut self) -> Result<Option<SocketAddr>, Error> {
        let address = &self.config.listen;
        if address.is_empty() {
            return Ok(None);
        }
        let failed = |source| Error::Listen {
            listen: address.clone(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %bound, "features are served");
        self.listener = Some(listener);
        Ok(Some(bound))
    }

    /// Folds until `token` is cancelled. A broker that is away is waited for.
    ///
    /// # Errors
    /// What no retry mends; a restart continues from the last commit.
    pub async fn run(mut self, token: CancellationToken) -> Result<(), Error> {
        // Whichever part ends first, for whatever reason, ends the others.
        let token = token.child_token();
        if self.listener.is_none() {
            self.bind().await?;
        }
        let listener = self.listener.take();
        let publisher = self.bus.publisher_at(CLIENT_ID, Priority::Low)?;
        let sink = BusSink::new(publisher, token.clone(), Arc::clone(&self.clock));
        let catalogue = TopicCatalogue::new(self.bus.clone(), token.clone());
        let subscription = if self.config.all_partitions {
            Subscription::All
        } else {
            Subscription::Group(self.config.group_id.clone())
        };
        let mut subscriber = SubscriberConfig::new(CLIENT_ID, subscription);
        // Beside a recommender, lists go first: they do not wait for the fold.
        subscriber.priority = Priority::Low;
        subscriber.max_batch = self.config.max_batch_records;
        subscriber.max_batch_wait = Duration::from_millis(self.config.max_batch_wait_ms);
        let shares = self.config.copy_rows_every_ms > 0;
        let mut processor = Processor::new(self.config, Arc::clone(&self.clock), catalogue, sink)?;
        if shares {
            let rows = TopicRows::new(self.bus.clone(), token.clone());
            processor = processor.with_rows(Box::new(rows));
        }
        let router = http::router(processor.shelf(), self.clock);
        // Every process hears everything: these topics are small, and each process decides for itself.
        let (reader, heard) = signals(processor.signal_positions());
        let hearing = SubscriberConfig::new(SIGNALS_CLIENT_ID, Subscription::All);
        let listening = self
            .bus
            .subscriber(&SIGNAL_TOPICS, hearing)
            .run(reader, token.clone());
        let folding = self
            .bus
            .subscriber(&[Topic::Interactions], subscriber)
            .run(processor.with_signals(heard), token.clone());
        let (folded, heard, served) = tokio::join!(
            async {
                // Closed here: the listener may be waiting for it to take what it has heard.
                let outcome = folding.await.map_err(own_error).and_then(Processor::close);
                token.cancel();
                outcome
            },
            async {
                let outcome = listening.await.map_err(own_error);
                token.cancel();
                outcome
            },
            async {
                let outcome = serve(listener, router, token.clone()).await;
                token.cancel();
                outcome
            }
        );
        folded?;
        heard?;
        served?;
        Ok(())
    }
}

/// Serves until `token` is cancelled, or, without a listener, only waits for it.
async fn serve(listener: Option<TcpListener>, router: Router, token: CancellationToken) -> Result<(), Error> {
    let Some(listener) = listener else {
        token.cancelled().await;
        return Ok(());
    };
    // Not gracefully: a client that keeps its connection open must not keep the service from ending, and an answer
    // takes less than a millisecond.
    tokio::select! {
        () = token.cancelled() => Ok(()),
        outcome = async { axum::serve(listener, router).await } => outcome.map_err(|source| Error::Listen {
            listen: "the feature address".into(),
            source,
        }),
    }
}

/// The handler's error without the bus around it.
fn own_error(error: BusError) -> Error {
    match error {
        BusError::Handler(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => Error::Bus(BusError::Handler(other)),
        },
        other => Error::Bus(other),
    }
}
