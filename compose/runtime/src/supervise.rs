//! Runs services and ends them in order.
//!
//! Shutdown order is the reverse of the data's way, so that whatever is upstream stops feeding before what is
//! downstream stops consuming: services are grouped in stages, a stage is cancelled only when the one before it has
//! ended or its grace is over.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::aside::Aside;
use crate::priority::Priority;

/// What a service's `run` may fail with.
pub type ServiceError = Box<dyn std::error::Error + Send + Sync>;

/// When a service stops, earlier stages first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What brings work in: HTTP, replayers.
    Edge,
    /// What works on topics.
    Pipeline,
    /// What the others need to finish: the broker.
    Foundation,
}

const STAGES: [Stage; 3] = [Stage::Edge, Stage::Pipeline, Stage::Foundation];

/// Why the process ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A service returned an error.
    #[error("{service} failed: {cause}")]
    Failed {
        /// The service.
        service: String,
        /// Its error with all its sources.
        cause: String,
    },
    /// A service panicked.
    #[error("{service} panicked: {cause}")]
    Panicked {
        /// The service.
        service: String,
        /// The panic's message.
        cause: String,
    },
    /// A service that must not end returned.
    #[error("{service} ended although nobody asked it to")]
    Unexpected {
        /// The service.
        service: String,
    },
    /// Services did not end within the grace period.
    #[error("still running after the grace period: {services}")]
    Overdue {
        /// Their names.
        services: String,
    },
}

#[derive(Debug)]
struct Entry {
    id: Id,
    name: String,
    stage: Stage,
    may_end: bool,
}

/// Owns the running services.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<Result<(), ServiceError>>,
    /// Made for the first service that runs aside.
    aside: Option<Aside>,
    running: Vec<Entry>,
    tokens: [CancellationToken; 3],
    stopping: CancellationToken,
    grace: Duration,
}

impl Supervisor {
    /// A supervisor that gives all services together `grace` to end.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            tasks: JoinSet::new(),
            aside: None,
            running: Vec::new(),
            tokens: Default::default(),
            stopping: CancellationToken::new(),
            grace,
        }
    }

    /// The token that tells services of `stage` to end.
    #[must_use]
    pub fn token(&self, stage: Stage) -> CancellationToken {
        self.tokens[stage as usize].clone()
    }

    /// Runs a service that lasts until it is told to end.
    pub fn spawn<F>(&mut self, name: impl Into<String>, stage: Stage, service: F)
    where
        F: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        let task = self.tasks.spawn(service);
        self.add(name.into(), stage, false, &task);
    }

    /// As [`Supervisor::spawn`], on threads of their own that stand back behind the others ([`Aside`]).
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn spawn_aside<F>(&mut self, name: impl Into<String>, stage: Stage, service: F) -> std::io::Result<()>
    where
        F: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        let aside = match &mut self.aside {
            Some(aside) => aside,
            empty => empty.insert(Aside::new(Priority::Low)?),
        };
        let task = self.tasks.spawn_on(service, aside.handle());
        self.add(name.into(), stage, false, &task);
        Ok(())
    }

    /// Runs a job that may end well by itself.
    pub fn spawn_job<F>(&mut self, name: impl Into<String>, stage: Stage, job: F)
    where
        F: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        let task = self.tasks.spawn(job);
        self.add(name.into(), stage, true, &task);
    }

    fn add(&mut self, name: String, stage: Stage, may_end: bool, task: &AbortHandle) {
        self.running.push(Entry {
            id: task.id(),
            name,
            stage,
            may_end,
        });
    }

    /// Waits for a stop request or the first unexpected end, then ends all stages in order.
    ///
    /// # Errors
    /// The first failure; later ones are logged.
    pub async fn run(mut self, signal: impl Future<Output = ()>) -> Result<(), Ended> {
        let stopping = self.stopping.clone();
        tokio::pin!(signal);
        let mut first: Option<Ended> = None;
        loop {
            tokio::select! {
                biased;
                // A failure outranks a stop request: it decides the exit code.
                Some(joined) = self.tasks.join_next_with_id() => {
                    match self.settle(joined, true) {
                        Some(ended) => {
                            tracing::error!(error = %ended, "stopping");
                            first = Some(ended);
                            break;
                        }
                        None if self.tasks.is_empty() => break,
                        None => {}
                    }
                }
                () = stopping.cancelled() => break,
                () = &mut signal => {
                    tracing::info!("stop requested");
                    break;
                }
            }
        }
        let deadline = Instant::now() + self.grace;
        for (index, stage) in STAGES.into_iter().enumerate() {
            self.tokens[index].cancel();
            while self.running.iter().any(|entry| entry.stage <= stage) {
                let Ok(joined) = timeout_at(deadline, self.tasks.join_next_with_id()).await else {
                    break;
                };
                let Some(joined) = joined else { break };
                if let Some(ended) = self.settle(joined, false) {
                    tracing::error!(error = %ended, "while stopping");
                    first.get_or_insert(ended);
                }
            }
        }
        if !self.running.is_empty() {
            let services = self
                .running
                .iter()
                .map(|e| e.name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            tracing::error!(%services, "aborting what did not end in time");
            first.get_or_insert(Ended::Overdue { services });
            self.tasks.abort_all();
        }
        first.map_or(Ok(()), Err)
    }

    fn settle(
        &mut self,
        joined: Result<(Id, Result<(), ServiceError>), JoinError>,
        unasked: bool,
    ) -> Option<Ended> {
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let position = self.running.iter().position(|entry| entry.id == id)?;
        let entry = self.running.swap_remove(position);
        match joined {
            Ok((_, Ok(()))) if unasked && !entry.may_end => Some(Ended::Unexpected { service: entry.name }),
            Ok((_, Ok(()))) => {
                tracing::debug!(service = %entry.name, "ended");
                None
            }
            Ok((_, Err(error))) => Some(Ended::Failed {
                service: entry.name,
                cause: Chain(error.as_ref()).to_string(),
            }),
            Err(error) if error.is_cancelled() => None,
            Err(error) => Some(Ended::Panicked {
                service: entry.name,
                cause: panic_message(error),
            }),
        }
    }
}

/// An error with its sources, in one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = self.0.to_string();
        f.write_str(&written)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Many errors already repeat their source in their own message.
            if !written.contains(&text) {
                write!(f, ": {text}")?;
                written = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned()),
        Err(error) => error.to_string(),
    }
}

/// Completes on SIGINT or SIGTERM; a second signal ends the process at once with code 130.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    async fn service(
        name: &'static str,
        token: CancellationToken,
        log: Arc<Mutex<Vec<&'static str>>>,
    ) -> Result<(), ServiceError> {
        token.cancelled().await;
        log.lock().unwrap().push(name);
        Ok(())
    }

    #[tokio::test]
    async fn stages_end_in_order() {
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        let log = Arc::new(Mutex::new(Vec::new()));
        for (name, stage) in [
            ("broker", Stage::Foundation),
            ("processor", Stage::Pipeline),
            ("http", Stage::Edge),
        ] {
            let token = supervisor.token(stage);
            supervisor.spawn(name, stage, service(name, token, Arc::clone(&log)));
        }
        supervisor.run(async {}).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["http", "processor", "broker"]);
    }

    #[tokio::test]
    async fn the_first_failure_ends_everything_and_is_reported_with_its_cause() {
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        let log = Arc::new(Mutex::new(Vec::new()));
        let token = supervisor.token(Stage::Edge);
        supervisor.spawn("http", Stage::Edge, service("http", token, Arc::clone(&log)));
        supervisor.spawn("store", Stage::Pipeline, async { Err("disk full".into()) });
        let ended = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(ended.to_string(), "store failed: disk full");
        assert_eq!(*log.lock().unwrap(), ["http"]);
    }

    #[tokio::test]
    async fn a_service_that_simply_returns_or_panics_is_a_failure_but_a_job_may_end() {
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        supervisor.spawn("quitter", Stage::Pipeline, async { Ok(()) });
        let ended = supervisor.run(std::future::pending()).await.unwrap_err();
        assert!(matches!(ended, Ended::Unexpected { .. }), "{ended}");

        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        supervisor.spawn("bomb", Stage::Pipeline, async { panic!("boom") });
        let ended = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(ended.to_string(), "bomb panicked: boom");

        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        supervisor.spawn_job("load", Stage::Edge, async { Ok(()) });
        supervisor.run(std::future::pending()).await.unwrap();
    }

    #[tokio::test]
    async fn a_service_aside_keeps_no_thread_of_the_others_and_ends_like_them() {
        let mut supervisor = Supervisor::new(Duration::from_secs(5));
        let (own, log) = (std::thread::current().id(), Arc::new(Mutex::new(Vec::new())));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (token, ended) = (supervisor.token(Stage::Pipeline), Arc::clone(&log));
        supervisor
            .spawn_aside("sql", Stage::Pipeline, async move {
                sender.send(std::thread::current().id()).unwrap();
                service("sql", token, ended).await
            })
            .unwrap();
        assert_ne!(receiver.await.unwrap(), own);
        supervisor.run(async {}).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["sql"]);
    }

    #[tokio::test]
    async fn what_outlives_the_grace_period_is_named() {
        let mut supervisor = Supervisor::new(Duration::from_millis(20));
        supervisor.spawn("stubborn", Stage::Pipeline, std::future::pending());
        let ended = supervisor.run(async {}).await.unwrap_err();
        assert_eq!(
            ended.to_string(),
            "still running after the grace period: stubborn"
        );
    }
}
