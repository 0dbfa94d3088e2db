//! Follows `model-events`: the last promotion decides at the start, each further one as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use marquee_runtime::bus::{Handler, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError};
use marquee_schemas::{ModelEvent, ModelEventKind, ModelVersion, Severity, Topic, decode};
use tokio_util::sync::CancellationToken;

use super::{BundleLoader, Champion};
use crate::Error;
use crate::alerts::Alerts;
use crate::view::View;

/// Pause before a bundle that could not be read, or a broker that was away, is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What following needs.
#[derive(Debug, Clone)]
pub(crate) struct FollowModels {
    pub(crate) champion: Arc<Champion>,
    pub(crate) view: Arc<View>,
    pub(crate) bus: Bus,
    pub(crate) loader: Arc<dyn BundleLoader>,
    pub(crate) alerts: Alerts,
    /// Versions that an experiment needs in memory.
    pub(crate) kept: BTreeSet<ModelVersion>,
}

/// Follows until `token` is cancelled.
pub(crate) async fn follow(follow: FollowModels, token: CancellationToken) -> Result<(), Error> {
    loop {
        let history_end = match follow.bus.watermarks(Topic::ModelEvents).await {
            Ok(bounds) => bounds.ends(),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the broker is away, the champion waits");
                tokio::select! {
                    () = token.cancelled() => return Ok(()),
                    () = tokio::time::sleep(RETRY) => continue,
                }
            }
            Err(error) => return Err(error.into()),
        };
        let handler = Events::new(
            Arc::clone(&follow.champion),
            Arc::clone(&follow.view),
            Arc::clone(&follow.loader),
            follow.alerts.clone(),
            history_end,
            follow.kept.clone(),
        );
        let mut config = SubscriberConfig::new("recommender-models", Subscription::All);
        config.idle_every = Duration::from_millis(100);
        match follow
            .bus
            .subscriber(&[Topic::ModelEvents], config)
            .run(handler, token.clone())
            .await
        {
            Ok(_) => return Ok(()),
            // Every start reads from the beginning: events are few, and installing what serves already is a no-op.
            Err(
                error @ (BusError::Transient { .. }
                | BusError::Truncated { .. }
                | BusError::CheckpointBeyondEnd { .. }),
            ) => tracing::warn!(%error, "following the models anew"),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Applies model events in order.
pub(super) struct Events {
    champion: Arc<Champion>,
    view: Arc<View>,
    loader: Arc<dyn BundleLoader>,
    alerts: Alerts,
    /// Until here events are history: only the last promotion of them matters.
    history_end: BTreeMap<i32, i64>,
    /// Promotions of the history, oldest first.
    history: Vec<ModelEvent>,
    /// The rollout that the history leaves under way.
    rollout: Option<ModelEvent>,
    /// Versions that an experiment needs in memory.
    kept: BTreeSet<ModelVersion>,
    /// The newest event that named a version's bundle.
    bundles: BTreeMap<ModelVersion, ModelEvent>,
    /// A promotion whose bundle could not be read yet.
    pending: Option<(ModelEvent, Instant)>,
}

impl Events {
    pub(super) fn new(
        champion: Arc<Champion>,
        view: Arc<View>,
        loader: Arc<dyn BundleLoader>,
        alerts: Alerts,
        history_end: BTreeMap<i32, i64>,
        kept: BTreeSet<ModelVersion>,
    ) -> Self {
        Self {
            champion,
            view,
            loader,
            alerts,
            history_end,
            history: Vec::new(),
            rollout: None,
            kept,
            bundles: BTreeMap::new(),
            pending: None,
        }
    }

    /// Takes one event; `historic` ones are only noted, see [`Events::decide`].
    pub(super) fn take(&mut self, event: ModelEvent, historic: bool) {
        if event.bundle_uri.is_some() {
            self.bundles.insert(event.version.clone(), event.clone());
            if !historic {
                self.keep(&event);
            }
        }
        match event.kind {
            ModelEventKind::Promoted | ModelEventKind::RolledBack if historic => {
                self.rollout = None;
                self.history.push(event);
            }
            ModelEventKind::Promoted | ModelEventKind::RolledBack => {
                self.pending = None;
                if self.attempt(&event) == Attempt::Later {
                    self.pending = Some((event, Instant::now()));
                }
                // After the swap: the challenger may be the very model that was promoted.
                self.champion.end_challenge();
            }
            ModelEventKind::RolloutStep if historic => self.rollout = Some(event),
            ModelEventKind::RolloutStep => self.roll_out(&event),
            ModelEventKind::Trained
            | ModelEventKind::Rejected
            | ModelEventKind::Failed
            | ModelEventKind::TrainingStage
            | ModelEventKind::CommandRefused => {}
        }
    }

    /// Gives a challenger its share of the users. A bundle that cannot be had is alerted, and the champion serves all.
    fn roll_out(&self, event: &ModelEvent) {
        let version = &event.version;
        // A number that is no share counts as 0: nobody is served by accident.
        let share = event.numbers.get("share").copied().unwrap_or(0.0);
        let share = if (0.0..=1.0).contains(&share) { share } else { 0.0 };
        if self.champion.change_share(version, share) {
            tracing::info!(model.version = %version, share, "the challenger's share changed");
            return;
        }
        let challenged = self.loader.load(self.named(event)).map(|loaded| {
            self.champion
                .challenge(version.clone(), loaded, share, &self.view)
        });
        match challenged {
            Ok(Ok(())) => tracing::info!(model.version = %version, share, "a challenger is being rolled out"),
            Ok(Err(error)) => drop(self.refuse(version, &error)),
            Err(error) => drop(self.refuse(version, &error)),
        }
    }

    /// Loads a bundle if an experiment needs it.
    fn keep(&self, event: &ModelEvent) {
        let version = &event.version;
        if !self.kept.contains(version) || self.champion.named(version).is_some() {
            return;
        }
        let kept = self
            .loader
            .load(event)
            .map(|loaded| self.champion.keep(version.clone(), loaded, &self.view));
        match kept {
            Ok(Ok(())) => tracing::info!(model.version = %version, "loaded for an experiment"),
            Ok(Err(error)) => drop(self.refuse(version, &error)),
            Err(error) => drop(self.refuse(version, &error)),
        }
    }

    /// The event that names the bundle of `event`'s version.
    fn named<'a>(&'a self, event: &'a ModelEvent) -> &'a ModelEvent {
        if event.bundle_uri.is_some() {
            event
        } else {
            self.bundles.get(&event.version).unwrap_or(event)
        }
    }

    /// The last promotion of the history decides; where its bundle is refused, the one before it serves, as it did
    /// when the event was new.
    pub(super) fn decide(&mut self) {
        let mut history = std::mem::take(&mut self.history);
        while let Some(event) = history.pop() {
            match self.attempt(&event) {
                Attempt::Serves => break,
                Attempt::Later if self.pending.is_none() => self.pending = Some((event, Instant::now())),
                Attempt::Later | Attempt::Refused => {}
            }
        }
        if let Some(step) = self.rollout.take() {
            self.roll_out(&step);
        }
        for event in self.bundles.values() {
            self.keep(event);
        }
    }

    fn attempt(&mut self, event: &ModelEvent) -> Attempt {
        let version = &event.version;
        if self
            .champion
            .serving()
            .is_some_and(|serving| &serving.version == version)
        {
            return Attempt::Serves;
        }
        match self.champion.restore(version, &self.view) {
            Ok(true) => {
                tracing::info!(model.version = %version, "the previous champion serves again");
                return Attempt::Serves;
            }
            Ok(false) => {}
            Err(error) => return self.refuse(version, &error),
        }
        let started = Instant::now();
        let loaded = match self.loader.load(self.named(event)) {
            Ok(loaded) => loaded,
            Err(error) if error.is_transient() => {
                self.refuse(version, &error);
                return Attempt::Later;
            }
            Err(error) => return self.refuse(version, &error),
        };
        match self.champion.install(version.clone(), loaded, &self.view) {
            Ok(()) => {
                tracing::info!(
                    model.version = %version,
                    duration_ms = started.elapsed().as_millis() as u64,
                    "a new champion serves"
                );
                Attempt::Serves
            }
            Err(error) => self.refuse(version, &error),
        }
    }

    fn refuse(&self, version: &ModelVersion, error: &dyn std::error::Error) -> Attempt {
        let serving = self
            .champion
            .serving()
            .map_or_else(|| "popularity".to_owned(), |serving| serving.version.to_string());
        self.alerts.raise(
            Severity::Critical,
            "bundle_refused",
            &version.0,
            format!("model {version} is refused, {serving} serves on: {error}"),
            &[],
        );
        Attempt::Refused
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Serves,
    Later,
    Refused,
}

impl Handler for Events {
    type Error = std::convert::Infallible;

    fn assigned(&mut self, _: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Self::Error> {
        Ok(partitions
            .iter()
            .map(|&partition| (partition, Start::Earliest))
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Self::Error> {
        for record in batch {
            let end = self.history_end.get(&record.partition).copied().unwrap_or(0);
            let historic = record.offset < end;
            match decode::<ModelEvent>(record.value.as_deref().unwrap_or_default()) {
                Ok(event) => self.take(event, historic),
                Err(error) => {
                    tracing::warn!(
                        kafka.topic = %record.topic, kafka.partition = record.partition,
                        kafka.offset = record.offset, %error, "a model event cannot be read"
                    );
                    self.alerts.raise(
                        Severity::Warning,
                        "view_record_refused",
                        record.topic.name(),
                        format!("model event at offset {} cannot be read: {error}", record.offset),
                        &[],
                    );
                }
            }
            if historic && record.next_offset() >= end {
                self.decide();
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Self::Error> {
        if let Some((event, since)) = self.pending.take() {
            if since.elapsed() < RETRY {
                self.pending = Some((event, since));
            } else if self.attempt(&event) == Attempt::Later {
                self.pending = Some((event, Instant::now()));
            }
        }
        Ok(())
    }
}
