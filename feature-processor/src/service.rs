//! The processor as a service on the bus.

use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::{SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::Topic;
use tokio_util::sync::CancellationToken;

use crate::triggers::{SIGNAL_TOPICS, signals};
use crate::{BusSink, Config, Error, Processor, TopicCatalogue};

const CLIENT_ID: &str = "feature-processor";
const SIGNALS_CLIENT_ID: &str = "feature-processor-signals";

/// The feature processor on the bus. The topics must exist.
#[derive(Debug)]
pub struct Service {
    config: Config,
    bus: Bus,
    clock: Arc<dyn Clock>,
}

impl Service {
    /// A service that runs on `bus`.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work.
    pub fn new(config: Config, bus: Bus, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        config.check()?;
        Ok(Self { config, bus, clock })
    }

    /// Folds until `token` is cancelled. A broker that is away is waited for.
    ///
    /// # Errors
    /// What no retry mends; a restart continues from the last commit.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        // Whichever part ends first, for whatever reason, ends the others.
        let token = token.child_token();
        let sink = BusSink::new(self.bus.publisher(CLIENT_ID)?, token.clone());
        let catalogue = TopicCatalogue::new(self.bus.clone(), token.clone());
        let subscription = if self.config.all_partitions {
            Subscription::All
        } else {
            Subscription::Group(self.config.group_id.clone())
        };
        let mut subscriber = SubscriberConfig::new(CLIENT_ID, subscription);
        subscriber.max_batch = self.config.max_batch_records;
        subscriber.max_batch_wait = Duration::from_millis(self.config.max_batch_wait_ms);
        let processor = Processor::new(self.config, self.clock, catalogue, sink)?;
        // Every process hears everything: these topics are small, and each process decides for itself.
        let (reader, heard) = signals(processor.signal_positions());
        let listener = SubscriberConfig::new(SIGNALS_CLIENT_ID, Subscription::All);
        let listening = self
            .bus
            .subscriber(&SIGNAL_TOPICS, listener)
            .run(reader, token.clone());
        let folding = self
            .bus
            .subscriber(&[Topic::Interactions], subscriber)
            .run(processor.with_signals(heard), token.clone());
        let (folded, heard) = tokio::join!(
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
            }
        );
        folded?;
        heard?;
        Ok(())
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
