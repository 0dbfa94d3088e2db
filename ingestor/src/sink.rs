//! Where records go: the one thing the replayer and the gateway need of the bus.

use futures::FutureExt;
use futures::future::BoxFuture;
use marquee_runtime::BusError;
use marquee_runtime::bus::{Outgoing, Publisher};

/// Resolves when the broker has the record, or will not have it.
pub type Acknowledgement = BoxFuture<'static, Result<(), BusError>>;

/// Takes records without waiting; a [`Publisher`] in service, anything in a test.
pub trait Sink: Send + Sync + 'static {
    /// Puts a record into the send queue.
    ///
    /// # Errors
    /// [`BusError::QueueFull`] when there is no room now, [`BusError::Refused`] for a record no broker takes.
    fn try_send(&self, record: &Outgoing) -> Result<Acknowledgement, BusError>;
}

impl Sink for Publisher {
    fn try_send(&self, record: &Outgoing) -> Result<Acknowledgement, BusError> {
        let pending = Publisher::try_send(self, record)?;
        Ok(async move { pending.acknowledged().await.map(|_| ()) }.boxed())
    }
}
