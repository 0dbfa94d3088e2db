//! Sheds load before latency collapses.
//!
//! Lists are computed without pause on the threads that also read requests. As many are worked on at once as there are
//! threads; the others wait in a [`Queue`], first come, first served. Who gets a place lets everything else that is ready
//! have a turn before the work begins, so that requests are read as they arrive and the queue is the only place where
//! they wait: its delay is what they meet.
//!
//! The delay is judged as Nichols and Jacobson propose ("Controlling Queue Delay", ACM Queue 2012), in the form of
//! Maurer ("Fail at Scale", ACM Queue 2015): a queue that was empty a moment ago is only a burst, and is served; one
//! that has not been empty for a while is *standing*, and then nobody is served who has waited longer than the target.
//! Whoever is refused hears so at the cost of a fraction of an answer, so the queue stays as long as the target.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For how long a queue must not have been empty to count as standing.
const INTERVAL: Duration = Duration::from_millis(100);
/// Who waits for less than this part of the target has met no queue.
const EMPTY: u32 = 8;

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests wait")]
pub struct Overloaded;

/// A place among those who work. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Who waits for a place.
#[derive(Debug)]
pub struct Queue {
    places: Arc<Semaphore>,
    shedder: Shedder,
}

impl Queue {
    /// A queue for `places` places. While it stands, who has waited for more than `target_ms` is refused; 0: nobody.
    #[must_use]
    pub fn new(places: usize, target_ms: u64) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            shedder: Shedder::new(target_ms),
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// [`Overloaded`] to who has waited for too long.
    pub async fn place(&self) -> Result<Place, Overloaded> {
        let asked = Instant::now();
        // It is never closed.
        let permit = Arc::clone(&self.places).acquire_owned().await;
        let permit = permit.map_err(|_| Overloaded)?;
        let now = Instant::now();
        if self.shedder.refuses(now, now - asked) {
            return Err(Overloaded);
        }
        Ok(Place { _permit: permit })
    }

    /// How long the one had waited whose turn it was last.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.shedder.waited_us.load(Ordering::Relaxed))
    }
}

/// Returns after everything else that is ready now has had its turn.
pub async fn turn() {
    tokio::task::yield_now().await;
}

/// Decides who is served while many wait.
#[derive(Debug)]
struct Shedder {
    /// The longest wait in a standing queue; none: nobody is ever refused.
    target: Option<Duration>,
    begun: Instant,
    /// When the queue was last seen empty, µs since `begun`.
    empty_us: AtomicU64,
    /// The last wait, µs.
    waited_us: AtomicU64,
}

impl Shedder {
    fn new(target_ms: u64) -> Self {
        Self {
            target: (target_ms > 0).then(|| Duration::from_millis(target_ms)),
            begun: Instant::now(),
            empty_us: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
        }
    }

    /// Whether to refuse who may begin `now`, after so long.
    fn refuses(&self, now: Instant, waited: Duration) -> bool {
        self.waited_us.store(micros(waited), Ordering::Relaxed);
        let Some(target) = self.target else { return false };
        let now_us = micros(now.saturating_duration_since(self.begun));
        if waited < target / EMPTY {
            self.empty_us.store(now_us, Ordering::Relaxed);
        }
        let standing = now_us.saturating_sub(self.empty_us.load(Ordering::Relaxed)) > micros(INTERVAL);
        standing && waited > target
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET_MS: u64 = 40;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_is_served_and_a_standing_queue_no_longer_than_the_target() {
        let shedder = Shedder::new(TARGET_MS);
        let refuses = |at: u64, waited: u64| shedder.refuses(shedder.begun + ms(at), ms(waited));
        // A minute of calm, then everybody at once.
        assert!(!refuses(60_000, 0));
        assert!((1..=100).all(|after| !refuses(60_000 + after, after)));
        // It does not end. The last who met no queue came after 4 ms.
        assert!(!refuses(60_104, 104));
        assert!(refuses(60_105, 105) && refuses(60_105, TARGET_MS + 1));
        assert!(!refuses(60_106, TARGET_MS), "it was not so long");
        assert!(refuses(60_107, TARGET_MS + 1));
        // Empty again.
        assert!(!refuses(60_108, 1));
        assert!(!refuses(60_200, 90));
    }

    #[test]
    fn without_a_target_nobody_is_refused() {
        let shedder = Shedder::new(0);
        assert!(!shedder.refuses(shedder.begun + ms(10_000), ms(5_000)));
    }

    /// Each takes a place, lets the others have a turn, and works.
    #[tokio::test]
    async fn all_are_heard_before_anybody_works_and_served_in_the_order_they_came() {
        let queue = Arc::new(Queue::new(1, 0));
        let (sender, mut said) = tokio::sync::mpsc::unbounded_channel();
        let tasks: Vec<_> = (0..3)
            .map(|n| {
                let (queue, sender) = (Arc::clone(&queue), sender.clone());
                tokio::spawn(async move {
                    sender.send(("read", n)).unwrap();
                    let place = queue.place().await.unwrap();
                    turn().await;
                    sender.send(("served", n)).unwrap();
                    drop(place);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(sender);
        let mut steps = Vec::new();
        while let Some(step) = said.recv().await {
            steps.push(step);
        }
        let of = |step| [(step, 0), (step, 1), (step, 2)];
        assert_eq!(steps, [of("read"), of("served")].concat());
    }
}
