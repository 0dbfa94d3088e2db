//! Where refused records go.

use marquee_runtime::BusError;
use marquee_runtime::bus::{Outgoing, Publisher};
use marquee_schemas::DeadLetter;
use tokio_util::sync::CancellationToken;

/// Takes refused records; they are safe when this returns.
pub(crate) trait DeadLetters: Send {
    fn publish(&self, letters: &[DeadLetter]) -> Result<(), BusError>;
}

/// Dead letters on the bus. A broker that is away is waited for until the service is told to stop.
#[derive(Debug)]
pub(crate) struct BusDeadLetters {
    publisher: Publisher,
    stopping: CancellationToken,
}

impl BusDeadLetters {
    pub(crate) fn new(publisher: Publisher, stopping: CancellationToken) -> Self {
        Self { publisher, stopping }
    }
}

impl DeadLetters for BusDeadLetters {
    fn publish(&self, letters: &[DeadLetter]) -> Result<(), BusError> {
        let outgoing: Vec<Outgoing> = letters.iter().map(Outgoing::of).collect();
        self.publisher
            .publish_all_blocking(&outgoing, || self.stopping.is_cancelled())
    }
}
