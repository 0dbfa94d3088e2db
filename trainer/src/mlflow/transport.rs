//! Calls to the server.

use std::time::Duration;

use serde_json::Value;

/// Largest answer read.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlflowError {
    /// The server cannot be reached, or its answer was lost; trying later may help.
    #[error("MLflow cannot be reached: {0}")]
    Away(String),
    /// The server refused.
    #[error("MLflow refused {call} ({code}): {message}")]
    Refused {
        /// What was asked.
        call: String,
        /// Its error code, for example `RESOURCE_DOES_NOT_EXIST`, or the HTTP status.
        code: String,
        /// Its words.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("MLflow's answer to {call} lacks {what}")]
    Strange {
        /// What was asked.
        call: String,
        /// What is missing.
        what: &'static str,
    },
    /// The registry or the mirror's own state cannot be read or written.
    #[error(transparent)]
    Registry(#[from] crate::RegistryError),
}

impl MlflowError {
    /// Whether the server says that this is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "RESOURCE_DOES_NOT_EXIST")
    }

    /// Whether the server says that this is there already.
    #[must_use]
    pub fn is_present(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "RESOURCE_ALREADY_EXISTS")
    }
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Without a body; the path carries the query.
    Get,
    /// With a body.
    Post,
    /// With a body.
    Put,
    /// With a body.
    Delete,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// How.
    pub method: Method,
    /// Below the server's root, for example `api/2.0/mlflow/runs/create`.
    pub path: String,
    /// The body, if the method has one.
    pub body: &'a [u8],
}

/// How calls reach the server. Blocks.
pub trait Transport: Send {
    /// Makes one call; gives the answer as JSON (`null` for an empty one).
    ///
    /// # Errors
    /// [`MlflowError::Away`] or [`MlflowError::Refused`].
    fn call(&self, call: &Call<'_>) -> Result<Value, MlflowError>;
}

/// Calls over HTTP.
#[derive(Debug)]
pub struct HttpTransport {
    agent: ureq::Agent,
    root: String,
}

impl HttpTransport {
    /// To the server at `root`.
    #[must_use]
    pub fn new(root: &str, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            root: root.trim_end_matches('/').to_owned(),
        }
    }
}

impl Transport for HttpTransport {
    fn call(&self, call: &Call<'_>) -> Result<Value, MlflowError> {
        let url = format!("{}/{}", self.root, call.path);
        let json = "application/json";
        let sent = match call.method {
            Method::Get => self.agent.get(&url).call(),
            Method::Post => self.agent.post(&url).header("content-type", json).send(call.body),
            Method::Put => self
                .agent
                .put(&url)
                .header("content-type", "application/octet-stream")
                .send(call.body),
            Method::Delete => self
                .agent
                .delete(&url)
                .force_send_body()
                .header("content-type", json)
                .send(call.body),
        };
        let away = |error: ureq::Error| MlflowError::Away(format!("{}: {error}", call.path));
        let mut answer = sent.map_err(away)?;
        let status = answer.status();
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
            .map_err(away)?;
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status.is_success() {
            return Ok(value.unwrap_or(Value::Null));
        }
        let text = |name: &str| Some(value.as_ref()?.get(name)?.as_str()?.to_owned());
        // A gateway's own words are no answer of MLflow's.
        if status.is_server_error() && text("error_code").is_none() {
            return Err(MlflowError::Away(format!("{}: status {status}", call.path)));
        }
        Err(MlflowError::Refused {
            call: call.path.clone(),
            code: text("error_code").unwrap_or_else(|| status.to_string()),
            message: text("message")
                .unwrap_or_else(|| String::from_utf8_lossy(&bytes).chars().take(200).collect()),
        })
    }
}
