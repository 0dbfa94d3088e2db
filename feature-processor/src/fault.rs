//! Places where a test may end the processor as a killed process would.

use crate::Error;

/// A moment at which a crash is survivable, and must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// A partition's transaction is complete but not committed.
    BeforeCommit,
    /// A partition's transaction is committed, those of other partitions perhaps not, nothing is published.
    AfterCommit,
    /// A retrain decision is due but not recorded.
    BeforeDecision,
    /// Everything is durable, nothing is published.
    BeforePublish,
    /// Everything is published, the outbox does not know it.
    AfterPublish,
}

/// Decides whether to crash. Called from several threads.
pub trait Faults: Send + Sync + std::fmt::Debug {
    /// Whether to crash here.
    fn crash(&self, point: CrashPoint) -> bool;

    /// [`Faults::crash`] as a result.
    ///
    /// # Errors
    /// [`Error::Injected`] if so.
    fn pass(&self, point: CrashPoint) -> Result<(), Error> {
        if self.crash(point) {
            Err(Error::Injected(point))
        } else {
            Ok(())
        }
    }
}

/// Never crashes.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn crash(&self, _: CrashPoint) -> bool {
        false
    }
}
