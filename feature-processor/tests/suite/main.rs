//! The fold under disturbance: crashes, redelivery, rebalances, poison, all without a broker.

mod changelog;
mod disturbance;
mod harness;
mod inspection;
mod kill;
mod movielens;
mod rate;
mod reconciliation;
