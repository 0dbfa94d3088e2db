//! A training on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use marquee_runtime::BusError;
use marquee_schemas::PartitionOffset;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::{RETRY, Source};
use crate::bundle::Bundle;
use crate::run::{self, RunError, RunSettings, Stage, Trained, Watch};
use crate::snapshot::Snapshot;

/// Why the training thread gave no model.
#[derive(Debug)]
pub(super) enum Failure {
    Bus(BusError),
    Run(RunError),
    Panicked,
}

/// The thread writes nothing but the snapshot cache; whoever abandons it needs not wait, and it ends at its next
/// stage.
#[derive(Debug)]
pub(super) struct Training {
    receiver: Receiver<Result<(Snapshot, Trained), Failure>>,
    token: CancellationToken,
    abandoned: bool,
    pub(super) settings: RunSettings,
    /// Why the champion could not be loaded.
    pub(super) champion_lost: Option<String>,
}

impl Training {
    pub(super) fn spawn<S: Source>(
        source: Arc<S>,
        offsets: Vec<PartitionOffset>,
        champion: Option<Bundle>,
        champion_lost: Option<String>,
        settings: RunSettings,
        progress: Progress,
        token: CancellationToken,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let (own_settings, own_token) = (settings.clone(), token.clone());
        std::thread::Builder::new()
            .name("marquee-training".into())
            .spawn(move || {
                if settings.yielding {
                    marquee_runtime::priority::yield_to_others();
                }
                let outcome = read_and_train(
                    source.as_ref(),
                    &offsets,
                    champion.as_ref(),
                    &settings,
                    &progress,
                    &token,
                );
                // The receiver is gone only if the work was abandoned with the worker.
                drop(sender.send(outcome));
            })?;
        Ok(Self {
            receiver,
            token: own_token,
            abandoned: false,
            settings: own_settings,
            champion_lost,
        })
    }

    /// The outcome, once there is one.
    pub(super) fn outcome(&self) -> Option<Result<(Snapshot, Trained), Failure>> {
        match self.receiver.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Failure::Panicked)),
        }
    }

    /// Asks the thread to end; its outcome no longer matters.
    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
        self.token.cancel();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }
}

/// Reports stages and ends the run when told to.
struct Reporter<'a> {
    progress: &'a Progress,
    token: &'a CancellationToken,
}

impl Watch for Reporter<'_> {
    fn begins(&self, stage: Stage) -> bool {
        if self.token.is_cancelled() {
            return false;
        }
        self.progress.enter(Some(stage));
        true
    }
}

fn read_and_train(
    source: &impl Source,
    offsets: &[PartitionOffset],
    champion: Option<&Bundle>,
    settings: &RunSettings,
    progress: &Progress,
    token: &CancellationToken,
) -> Result<(Snapshot, Trained), Failure> {
    let watch = Reporter { progress, token };
    let stop = || token.is_cancelled();
    if !watch.begins(Stage::Snapshot) {
        return Err(Failure::Run(RunError::Cancelled));
    }
    let snapshot = loop {
        match source.read(offsets, &stop) {
            Ok(snapshot) => break snapshot,
            Err(error) if error.is_transient() && !stop() => {
                tracing::warn!(%error, "reading the training data failed, trying again");
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(Failure::Bus(error)),
        }
    };
    let trained = run::train(&snapshot, champion, settings, &watch).map_err(Failure::Run)?;
    progress.enter(None);
    Ok((snapshot, trained))
}
