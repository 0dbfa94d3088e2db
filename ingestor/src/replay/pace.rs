//! When each event of a replay is due.

use std::time::Duration;

use tokio::time::Instant;

use super::Speed;

/// A fixed timetable from the start of the run. A replay that falls behind it catches up: load offered to the system
/// must not depend on how fast the system is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    speed: Speed,
    began: Instant,
    start: usize,
    first_ms: i64,
}

/// A due time so far away that it only has to be later than any run.
const NEVER_S: f64 = 1e9;

impl Pace {
    pub(super) fn new(speed: Speed, began: Instant, start: usize, first_ms: i64) -> Self {
        Self {
            speed,
            began,
            start,
            first_ms,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and milliseconds far below 2^53"
    )]
    pub(super) fn due(&self, position: usize, event_ms: i64) -> Instant {
        let index = position - self.start;
        let seconds = match self.speed {
            Speed::Max => return self.began,
            Speed::Times(factor) => event_ms.saturating_sub(self.first_ms) as f64 / 1000.0 / factor,
            Speed::Rate(per_s) => index as f64 / per_s,
            Speed::Bursts { size, every } => (index / size.max(1)) as f64 * every.as_secs_f64(),
        };
        self.began + Duration::from_secs_f64(seconds.clamp(0.0, NEVER_S))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(speed: Speed, position: usize, event_ms: i64) -> f64 {
        let began = Instant::now();
        let due = Pace::new(speed, began, 10, 5_000).due(position, event_ms);
        (due - began).as_secs_f64()
    }

    #[test]
    fn each_speed_has_its_timetable() {
        assert!(seconds(Speed::Max, 500, 99_000).abs() < 1e-9);
        assert!((seconds(Speed::Times(1000.0), 11, 3_605_000) - 3.6).abs() < 1e-9);
        assert!((seconds(Speed::Rate(500.0), 260, 0) - 0.5).abs() < 1e-9);
        let bursts = Speed::Bursts {
            size: 100,
            every: Duration::from_secs(5),
        };
        assert!(seconds(bursts, 109, 0).abs() < 1e-9);
        assert!((seconds(bursts, 110, 0) - 5.0).abs() < 1e-9);
        // A data set's span at real time is later than any run, and no overflow.
        assert!(seconds(Speed::Times(1e-300), 11, i64::MAX / 2) >= 1e8);
    }
}
