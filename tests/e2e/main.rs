//! The whole product, as processes: what a user starts, kills, feeds with nonsense and asks.
//!
//! Each scenario runs against the embedded broker and, where Java and the Kafka artifacts can be had, against a real
//! Apache Kafka.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod browser;
mod bucket;
mod cli;
mod demo;
mod described;
mod harness;
mod kill;
mod kill_mirror;
mod kill_trainer;
mod pipeline;
mod resume;
mod soak;
mod webdriver;
