//! Tests that need something the machine may lack.

/// Something outside the repository that a test needs and that is not to be had here.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not available: {why}")]
pub struct Unavailable {
    /// What is needed, for example `Apache Kafka`.
    pub what: &'static str,
    /// What was tried and how it failed.
    pub why: String,
}

impl Unavailable {
    pub(crate) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self {
            what,
            why: why.into(),
        }
    }
}

/// `Some` with what is needed, or `None` after a plain message that the test is skipped.
///
/// # Panics
/// Where the environment variable `demanded_by` is `1`: continuous integration sets it, so that nothing is skipped
/// there unnoticed.
pub fn required<T>(outcome: Result<T, Unavailable>, demanded_by: &str) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) if std::env::var(demanded_by).is_ok_and(|value| value == "1") => {
            panic!("{error} ({demanded_by}=1 forbids skipping)")
        }
        Err(error) => {
            eprintln!("skipped: {error} (set {demanded_by}=1 to fail instead)");
            None
        }
    }
}
