//! The processor as a service on the bus.

use std::sync::Arc;
use std::time::Duration;

use marquee_runtime::bus::{SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::Topic;
use tokio_util::sync::CancellationToken;

use crate::{BusSink, Config, Error, Processor, TopicCatalogue};

const CLIENT_ID: &str = "feature-processor";

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
        let processor = self
            .bus
            .subscriber(&[Topic::Interactions], subscriber)
            .run(processor, token)
            .await
            .map_err(own_error)?;
        processor.close()?;
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
