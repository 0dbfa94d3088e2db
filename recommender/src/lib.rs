//! The recommender: what users touch.
//!
//! It materialises the catalogue and the feature changelog ([`view`]), follows the champion among the models
//! ([`champion`]), answers over HTTP ([`http`]) with lists made by the [`engine`], and logs each answer without ever
//! keeping it waiting ([`logs`]). It writes no feature: any number of recommenders may run side by side, each a view
//! of the same topics.
//!
//! ```text
//! [movies] [features] ──► View ──────┐
//! [model-events] ──► Champion ───────┼──► Engine ──► HTTP answer
//!                                    │       └─────► LogQueue ──► worker ──► [request-logs]
//!                                    │                              └─ broker away: disk spool ┘
//!                                    └──► /metrics, /ready
//! ```

pub mod alerts;
pub mod champion;
mod config;
pub mod engine;
mod error;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod overload;
mod pages;
mod service;
pub mod shadow;
pub mod sink;
#[cfg(test)]
mod testing;
pub mod traffic;
pub mod unknown;
pub mod view;

pub use config::Config;
pub use error::Error;
pub use http::router;
pub use service::{Bound, Components, Handle, Service};
