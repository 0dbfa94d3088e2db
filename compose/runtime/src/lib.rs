//! What every service stands on: the bus (typed publisher, checkpointed subscriber, bounded range reader), the
//! clock, configuration, thread priorities, telemetry and supervision. It knows no service and no domain rule.

pub mod aside;
pub mod bus;
pub mod clock;
pub mod config;
pub mod ids;
pub mod priority;
pub mod supervise;
pub mod telemetry;

pub use bus::{Bus, BusConfig, BusError};
pub use clock::{Clock, ManualClock, SystemClock};
