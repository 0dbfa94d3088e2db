//! Where records go: the brokers, or a test's own list.

use std::future::Future;
use std::pin::Pin;

use marquee_runtime::BusError;
use marquee_runtime::bus::{Outgoing, Publisher};

/// Why a record did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The broker is away or overloaded: keep the record and try again.
    #[error("{0}")]
    Later(String),
    /// No broker will ever take this record.
    #[error("{0}")]
    Refused(String),
}

impl From<BusError> for SinkError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Refused { .. } => Self::Refused(error.to_string()),
            // Also wrong credentials and the like: a person may mend them, the spool keeps the records until then.
            _ => Self::Later(error.to_string()),
        }
    }
}

/// Resolves when the record has arrived or has failed.
pub type Acknowledged = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send>>;

/// Takes records in order.
pub trait Sink: std::fmt::Debug + Send + Sync + 'static {
    /// Sends a record without waiting for it to arrive.
    ///
    /// # Errors
    /// [`SinkError`]; the record was not sent.
    fn send(&self, record: &Outgoing) -> Result<Acknowledged, SinkError>;
}

/// The brokers.
#[derive(Debug, Clone)]
pub struct BusSink(pub Publisher);

impl Sink for BusSink {
    fn send(&self, record: &Outgoing) -> Result<Acknowledged, SinkError> {
        let pending = self.0.try_send(record)?;
        Ok(Box::pin(async move {
            pending.acknowledged().await?;
            Ok(())
        }))
    }
}
