//! A mirror of the registry in an MLflow tracking server, over its REST API.
//!
//! Every version becomes a run (parameters, metrics, the gate's reasons, the bundle's files) and a version of one
//! registered model; the aliases `champion`, `challenger` and `previous` follow the registry's. (MLflow's own stages
//! are deprecated.) Scheduled evaluations become runs of the experiment `evaluation_runs`.
//!
//! The registry stays the truth, and MLflow may be away for as long as it likes: the mirror looks at the registry every
//! few seconds, from a thread of its own, and sends what is missing, oldest first. Each step looks for what it would
//! create before it creates it, by a tag that holds the bundle's digest, and sends only the metrics that the run does
//! not have yet (`runs/log-batch` appends). So a kill between any two calls, or an answer that was lost, doubles
//! nothing.

mod api;
mod artifacts;
mod mirror;
mod transport;

use serde::{Deserialize, Serialize};

use crate::Error;

pub use mirror::{Mirror, Mirrored};
pub use transport::{Call, HttpTransport, Method, MlflowError, Transport};

/// Where the mirror is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MlflowConfig {
    /// The tracking server, for example `http://127.0.0.1:5000`; empty for no mirror.
    pub tracking_uri: String,
    /// The experiment of the trainings.
    pub experiment: String,
    /// The experiment of the scheduled evaluations.
    pub evaluation_experiment: String,
    /// The registered model.
    pub registered_model: String,
    /// Whether the bundles' files are uploaded too.
    pub upload_bundles: bool,
    /// How often to look for news, ms.
    pub every_ms: u64,
    /// The longest wait for one answer, ms.
    pub timeout_ms: u64,
}

impl Default for MlflowConfig {
    fn default() -> Self {
        Self {
            tracking_uri: String::new(),
            experiment: "marquee".into(),
            evaluation_experiment: "evaluation_runs".into(),
            registered_model: "marquee".into(),
            upload_bundles: true,
            every_ms: 5_000,
            timeout_ms: 60_000,
        }
    }
}

impl MlflowConfig {
    /// # Errors
    /// [`Error::Config`] naming the first setting outside its domain.
    pub fn check(&self) -> Result<(), Error> {
        let uri = &self.tracking_uri;
        if uri.is_empty() || uri.starts_with("http://") || uri.starts_with("https://") {
            return Ok(());
        }
        Err(Error::Config {
            key: "mlflow.tracking_uri",
            detail: "must begin with http:// or https://, or be empty".into(),
        })
    }
}
