//! Where refused records go.

use std::sync::Arc;

use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_runtime::{BusError, Clock};
use marquee_schemas::DeadLetter;
use tokio_util::sync::CancellationToken;

/// Takes refused records; they are safe when this returns.
pub(crate) trait DeadLetters: Send {
    fn publish(&self, letters: &[DeadLetter]) -> Result<(), BusError>;
}

/// Dead letters on the bus. A broker that is away is waited for until the service is told to stop; a letter that no
/// broker takes is passed over with an alert, because it would be read and refused again after every restart.
#[derive(Debug)]
pub(crate) struct BusDeadLetters {
    publisher: Publisher,
    stopping: CancellationToken,
    clock: Arc<dyn Clock>,
}

impl BusDeadLetters {
    pub(crate) fn new(publisher: Publisher, stopping: CancellationToken, clock: Arc<dyn Clock>) -> Self {
        Self {
            publisher,
            stopping,
            clock,
        }
    }
}

impl DeadLetters for BusDeadLetters {
    fn publish(&self, letters: &[DeadLetter]) -> Result<(), BusError> {
        let give_up = || self.stopping.is_cancelled();
        let outgoing: Vec<Outgoing> = letters.iter().map(Outgoing::of).collect();
        let mut alerts = Vec::new();
        for unsendable in self.publisher.publish_each_blocking(&outgoing, give_up)? {
            tracing::error!(
                key = %String::from_utf8_lossy(&unsendable.record.key), error = %unsendable.error,
                "a dead letter that the broker refuses is passed over"
            );
            alerts.push(Outgoing::of(&unsendable.alert("replay", self.clock.now_ms())));
        }
        self.publisher.publish_all_blocking(&alerts, give_up)
    }
}
