//! What can go wrong in the trainer.

use marquee_runtime::BusError;

use crate::bundle::BundleError;
use crate::export::ExportError;
use crate::registry::RegistryError;
use crate::run::RunError;

/// An error that ends the service, or a call made outside it. A training that fails does not: it becomes a `failed`
/// model event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bus refused or vanished. Transient ones are retried inside the service; what arrives here is fatal.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The registry cannot be used. Fatal: without it nothing can be remembered.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A bundle cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The training itself; poison for its retrain event.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A version cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A setting outside its domain.
    #[error("trainer.{key}: {detail}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What it must be.
        detail: String,
    },
    /// Told to stop while at work; the work is repeated at the next start.
    #[error("stopped before the work was done")]
    Cancelled,
}
