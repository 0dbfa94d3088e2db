//! Buffers that go from request to request, so that the hot path does not allocate by the size of the catalogue.

use std::sync::{Mutex, PoisonError};

use marquee_models::live::HistoryEntry;
use marquee_models::served::ScoreScratch;

/// A movie that may be listed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Dense index.
    pub(super) item: u32,
    /// What it was ranked by.
    pub(super) score: f32,
    /// The same, 0 to 1 within its list; set by shaping.
    pub(super) relevance: f32,
}

impl Candidate {
    pub(super) fn new(item: u32, score: f32) -> Self {
        Self {
            item,
            score,
            relevance: 0.0,
        }
    }
}

/// Buffers of one request.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) score: ScoreScratch,
    /// By movie index: whether it may be listed.
    pub(super) allowed: Vec<bool>,
    pub(super) history: Vec<HistoryEntry>,
    /// Best first.
    pub(super) candidates: Vec<Candidate>,
}

/// Idle buffers kept at most; more exist only while more requests run at once.
const KEPT: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Scratch>>);

impl Pool {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let taken = self.lock().pop();
        let mut scratch = taken.unwrap_or_default();
        let result = work(&mut scratch);
        let mut idle = self.lock();
        if idle.len() < KEPT {
            idle.push(scratch);
        }
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Scratch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
