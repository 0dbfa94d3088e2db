//! What can be wrong with hyperparameters, training data or stored tensors.

/// An error of this crate. Each is the caller's to mend: nothing here is transient.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A hyperparameter lies outside its domain.
    #[error("hyperparameter {name} = {value} is invalid: {requirement}")]
    Hyperparameter {
        /// The parameter's name as written in configuration.
        name: &'static str,
        /// The refused value.
        value: String,
        /// What a valid value looks like.
        requirement: &'static str,
    },
    /// The training data cannot carry a model.
    #[error("training data refused: {0}")]
    Data(String),
    /// Stored tensors are damaged, truncated or of another shape than announced.
    #[error("stored model refused: {0}")]
    Stored(String),
    /// Stored by a newer version of this software.
    #[error("stored model has format version {found}, this build reads up to {supported}")]
    NewerFormat {
        /// Version found in the artifact.
        found: u32,
        /// Newest version this build reads.
        supported: u32,
    },
}
