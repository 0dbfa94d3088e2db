//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Asks `condition` until it answers `Some`, at most `patience`.
///
/// # Panics
/// With `what` when the time is up.
pub fn eventually<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// [`eventually`] for asynchronous tests.
///
/// # Panics
/// With `what` when the time is up.
pub async fn eventually_async<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
