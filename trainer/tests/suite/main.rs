//! The trainer as a whole, over a Kafka protocol endpoint and a real MLflow server.

#![allow(clippy::unwrap_used, reason = "the helpers of tests too")]

mod mlflow;
mod service;
mod stage;
