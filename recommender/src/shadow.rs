//! Scoring on the side: what a model on trial would have answered, computed after the answer has gone and logged as
//! [`Endpoint::Shadow`]. It never keeps an answer waiting: the queue is bounded and refuses what it cannot hold, and
//! one thread works it off.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use marquee_schemas::{Endpoint, Severity};

use crate::champion::Serving;
use crate::engine::{Explain, Explore, RecommendAsk};
use crate::http::{App, Asked, RequestMeta};
use crate::traffic::Assignment;

/// A list to be made by a model on trial.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) serving: Arc<Serving>,
    pub(crate) meta: RequestMeta,
    pub(crate) ask: RecommendAsk,
    pub(crate) asked: Asked,
}

/// The handlers' end of the queue.
#[derive(Debug)]
pub struct ShadowQueue {
    tasks: SyncSender<Task>,
    scored: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
}

/// The worker's end of the queue.
#[derive(Debug)]
pub struct ShadowTasks(Receiver<Task>);

impl ShadowQueue {
    /// A queue of at most `len` tasks, and its other end.
    #[must_use]
    pub fn bounded(len: usize) -> (Self, ShadowTasks) {
        let (tasks, receiver) = sync_channel(len.max(1));
        let queue = Self {
            tasks,
            scored: AtomicU64::default(),
            skipped: AtomicU64::default(),
            failed: AtomicU64::default(),
        };
        (queue, ShadowTasks(receiver))
    }

    /// Puts a task into the queue; never waits. What finds no room is counted and skipped.
    pub(crate) fn offer(&self, task: Task) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.tasks.try_send(task) {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lists made.
    #[must_use]
    pub fn scored(&self) -> u64 {
        self.scored.load(Ordering::Relaxed)
    }

    /// Lists not made because the queue was full.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Lists not made because making them panicked.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl ShadowTasks {
    /// Works off what waits now.
    #[cfg(test)]
    pub(crate) fn work_off(&self, app: &App) {
        while let Ok(task) = self.0.try_recv() {
            attempt(app, task);
        }
    }

    /// Works tasks off until `stopped` says so; looks at it at least every `patience`.
    pub(crate) fn run(&self, app: &App, patience: std::time::Duration, stopped: impl Fn() -> bool) {
        while !stopped() {
            if let Ok(task) = self.0.recv_timeout(patience) {
                attempt(app, task);
            }
        }
    }
}

/// Makes a list; a model on trial that panics spoils this one only.
fn attempt(app: &App, task: Task) {
    let version = task.serving.version.clone();
    if catch_unwind(AssertUnwindSafe(|| score(app, task))).is_err() {
        app.shadow.failed.fetch_add(1, Ordering::Relaxed);
        app.alerts.raise(
            Severity::Critical,
            "shadow_list_failed",
            &version.0,
            format!("model {version} panicked over a list on the side; the cause is in the process's log"),
            &[("failed", app.shadow.failed() as f64)],
        );
    }
}

fn score(app: &App, task: Task) {
    let Task {
        serving,
        meta,
        ask,
        asked,
    } = task;
    let ask = RecommendAsk {
        explain: Explain::No,
        explore: Explore::Never,
        arrived: None,
        ..ask
    };
    let meta = RequestMeta {
        started: std::time::Instant::now(),
        ..meta
    };
    // The same request was answered a moment ago: what refuses it now is a movie that left the catalogue since. And where
    // the view was loaded anew since, the list is not the model's.
    if let Ok(answer) = app.engine.recommend_by(Some(&serving), &ask)
        && answer.model_version.is_some()
    {
        let asked = Asked {
            endpoint: Endpoint::Shadow,
            ..asked
        };
        app.log(&meta, &asked, &Assignment::default(), &answer);
        app.shadow.scored.fetch_add(1, Ordering::Relaxed);
    }
}
