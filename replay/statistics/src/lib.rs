//! What evidence allows to be said. Pure numerics: no I/O, no clocks, randomness only from a generator that is passed
//! in.
//!
//! * [`cluster`]: means and shares over users, whose lists are not independent of one another.
//! * [`off_policy`]: what another policy would have earned on the logged requests.
//! * [`experiment`]: two arms compared at any time, as often as one likes.
//! * [`quantile`]: a quantile with its interval.
//! * [`interleaving`]: two rankers compared inside one list.

pub mod cluster;
pub mod experiment;
pub mod interleaving;
pub mod off_policy;
pub mod quantile;

pub use cluster::Estimate;
