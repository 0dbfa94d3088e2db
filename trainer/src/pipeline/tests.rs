//! The worker over a log in memory.

mod kills;
mod rollout;
mod training;
mod world;
