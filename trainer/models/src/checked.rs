//! Hyperparameters that have passed their checks.

use std::fmt::Display;
use std::ops::Deref;

use crate::Error;

/// Proof that `P`'s values lie in their domains: only the `check` method of a parameter type makes one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked<P>(P);

impl<P> Checked<P> {
    pub(crate) fn new(params: P) -> Self {
        Self(params)
    }

    /// The values, to be changed and checked again.
    #[must_use]
    pub fn into_inner(self) -> P {
        self.0
    }
}

impl<P> Deref for Checked<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.0
    }
}

/// Refuses a hyperparameter by name unless `valid`.
pub(crate) fn require(
    valid: bool,
    name: &'static str,
    value: impl Display,
    requirement: &'static str,
) -> Result<(), Error> {
    if valid {
        return Ok(());
    }
    Err(Error::Hyperparameter {
        name,
        value: value.to_string(),
        requirement,
    })
}
