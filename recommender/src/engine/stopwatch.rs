//! Time by stage.

use std::time::Instant;

use marquee_schemas::StageLatency;

#[derive(Debug)]
pub(super) struct Stopwatch {
    last: Instant,
    stages: Vec<StageLatency>,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self {
            last: Instant::now(),
            stages: Vec::with_capacity(5),
        }
    }

    /// Ends the stage that began with the last call.
    pub(super) fn lap(&mut self, stage: &'static str) {
        let now = Instant::now();
        self.stages.push(StageLatency {
            stage: stage.to_owned(),
            us: u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX),
        });
        self.last = now;
    }

    pub(super) fn finish(self) -> Vec<StageLatency> {
        self.stages
    }
}
