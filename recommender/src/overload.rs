//! Sheds load before latency collapses.
//!
//! What a request waits for before it is admitted is invisible to its handler: it lies in a socket's buffer or in the
//! runtime's queue. A task that sleeps for a fixed time and sees how late it wakes waits in the same queue. Its delay is
//! judged as CoDel does (Nichols, Jacobson: "Controlling Queue Delay", ACM Queue 2012): a queue that empties now and
//! then is only a burst; one whose *smallest* delay over an interval is too long is standing, and grows. Then a share
//! of the requests is refused with 503 and `Retry-After`, a larger one from interval to interval until the queue is
//! short again, and a smaller one after that. A refusal costs a fraction of an answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long the probe sleeps.
const SLEEP: Duration = Duration::from_millis(5);
/// Over how many of its awakenings the smallest delay is taken.
const INTERVAL: u32 = 20;
/// By how much the refused share grows in an interval whose queue stands, and shrinks in one whose queue does not.
const GROW: f64 = 0.1;
const SHRINK: f64 = 0.05;
/// Some requests are always admitted: what they meet tells when the load is over.
const MOST: f64 = 0.95;

/// The share of requests that is refused now.
#[derive(Debug)]
pub struct Shedder {
    /// The longest delay that a queue may stand at; none: nothing is ever refused.
    target: Option<Duration>,
    /// In 1 / 2^32.
    share: AtomicU32,
    interval: Mutex<Interval>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Interval {
    looks: u32,
    smallest: Option<Duration>,
    share: f64,
}

impl Shedder {
    /// Refuses nothing until the queue has stood at more than `target_ms`; 0: never.
    #[must_use]
    pub fn new(target_ms: u64) -> Self {
        Self {
            target: (target_ms > 0).then(|| Duration::from_millis(target_ms)),
            share: AtomicU32::new(0),
            interval: Mutex::default(),
        }
    }

    /// Takes note of how late the probe woke.
    pub fn observe(&self, delay: Duration) {
        let Some(target) = self.target else { return };
        let mut interval = self.interval.lock().unwrap_or_else(PoisonError::into_inner);
        interval.looks += 1;
        interval.smallest = Some(interval.smallest.map_or(delay, |smallest| smallest.min(delay)));
        if interval.looks < INTERVAL {
            return;
        }
        let standing = interval.smallest.is_some_and(|smallest| smallest > target);
        let change = if standing { GROW } else { -SHRINK };
        let share = (interval.share + change).clamp(0.0, MOST);
        *interval = Interval {
            share,
            ..Interval::default()
        };
        self.share
            .store((share * f64::from(u32::MAX)) as u32, Ordering::Relaxed);
    }

    /// Whether to refuse a request; `lot` is its lot, equally distributed.
    #[must_use]
    pub fn refuses(&self, lot: u32) -> bool {
        lot < self.share.load(Ordering::Relaxed)
    }

    /// The share refused now, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        f64::from(self.share.load(Ordering::Relaxed)) / f64::from(u32::MAX)
    }

    /// Measures the queue until `stop`. Runs on the runtime that serves.
    pub async fn probe(&self, stop: CancellationToken) {
        loop {
            let due = Instant::now() + SLEEP;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due.into()) => self.observe(due.elapsed()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(shedder: &Shedder, count: u32, delay: impl Fn(u32) -> u64) {
        for look in 0..count * INTERVAL {
            shedder.observe(Duration::from_millis(delay(look % INTERVAL)));
        }
    }

    #[test]
    fn a_burst_is_served_a_standing_queue_is_not() {
        let shedder = Shedder::new(50);
        // All but one look late.
        intervals(&shedder, 10, |look| if look == 0 { 1 } else { 400 });
        assert_eq!(shedder.share(), 0.0);
        assert!(!shedder.refuses(0));
        intervals(&shedder, 3, |_| 80);
        assert!((shedder.share() - 0.3).abs() < 1e-6, "{}", shedder.share());
        assert!(shedder.refuses(u32::MAX / 10) && !shedder.refuses(u32::MAX / 2));
        intervals(&shedder, 50, |_| 80);
        assert!(!shedder.refuses(u32::MAX), "some are always admitted");
        intervals(&shedder, 40, |_| 3);
        assert_eq!(shedder.share(), 0.0);
    }

    #[test]
    fn without_a_target_nothing_is_refused() {
        let shedder = Shedder::new(0);
        intervals(&shedder, 20, |_| 5_000);
        assert_eq!(shedder.share(), 0.0);
    }
}
