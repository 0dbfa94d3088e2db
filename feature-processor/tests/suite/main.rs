//! The fold under disturbance: crashes, redelivery, rebalances, poison, all without a broker.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy's exemption covers test functions only"
)]

mod changelog;
mod disturbance;
mod drift;
mod erasure;
mod harness;
mod http;
mod inspection;
mod kill;
mod late;
mod movielens;
mod parity;
mod rate;
mod reconciliation;
mod takeover;
