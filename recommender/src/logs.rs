//! Request logs: asynchronous, bounded, never in an answer's way.
//!
//! ```text
//! handler ──► LogQueue (bounded) ──► worker ──► [request-logs]
//!                  │ full: dropped,     │ broker away, or not acknowledged in time
//!                  ▼ counted, alerted   ▼
//!                                    Spool (bounded, on disk) ──► drained in order later
//! ```
//!
//! Delivery is at least once: a record whose acknowledgement was lost may arrive twice under its `request_id`. While
//! the spool holds anything, new records go behind it, so that the order of the queue is the order of the log.

mod queue;
mod spool;
mod worker;

pub use queue::{LogQueue, LogStats};
pub use spool::{Full, Spool, SpoolConfig};
pub use worker::{Worker, WorkerConfig};
