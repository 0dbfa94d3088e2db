//! Follows `model-events`: the last promotion decides at the start, each further one as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use marquee_runtime::bus::{Handler, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError};
use marquee_schemas::{ModelEvent, ModelEventKind, ModelVersion, Severity, Topic, decode};
use tokio_util::sync::CancellationToken;

use super::{BundleLoader, Champion, Loaded};
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
    /// All promotions, oldest first.
    promotions: Vec<ModelEvent>,
    /// Whether one of them was obeyed. Where nothing serves then, the view has shown that the model may not.
    obeyed: bool,
    /// The rollout that the history leaves under way.
    rollout: Option<ModelEvent>,
    /// Versions that an experiment needs in memory.
    kept: BTreeSet<ModelVersion>,
    /// The newest event that named a version's bundle.
    bundles: BTreeMap<ModelVersion, ModelEvent>,
    late: Late,
}

/// What waits for a bundle that could not be read yet.
#[derive(Debug)]
struct Late {
    promotion: Option<ModelEvent>,
    /// The step of a rollout.
    step: Option<ModelEvent>,
    /// Versions that an experiment needs.
    kept: BTreeSet<ModelVersion>,
    /// When all this was tried last.
    tried: Instant,
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
            promotions: Vec::new(),
            obeyed: false,
            rollout: None,
            kept,
            bundles: BTreeMap::new(),
            late: Late {
                promotion: None,
                step: None,
                kept: BTreeSet::new(),
                tried: Instant::now(),
            },
        }
    }

    /// Takes one event; `historic` ones are only noted, see [`Events::decide`].
    pub(super) fn take(&mut self, event: ModelEvent, historic: bool) {
        if event.bundle_uri.is_some() {
            self.bundles.insert(event.version.clone(), event.clone());
            if !historic {
                self.keep(&event.version);
            }
        }
        match event.kind {
            ModelEventKind::Promoted | ModelEventKind::RolledBack => {
                self.promotions.push(event.clone());
                if historic {
                    self.rollout = None;
                    return;
                }
                self.late.step = None;
                self.promote(event);
                // After the swap: the challenger may be the very model that was promoted.
                self.champion.end_challenge();
            }
            ModelEventKind::RolloutStep if historic => self.rollout = Some(event),
            ModelEventKind::RolloutStep => self.step(event),
            ModelEventKind::Trained
            | ModelEventKind::Rejected
            | ModelEventKind::Failed
            | ModelEventKind::TrainingStage
            | ModelEventKind::CommandRefused => {}
        }
    }

    /// Obeys a promotion, at once or as soon as its bundle can be read.
    fn promote(&mut self, event: ModelEvent) {
        let late = self.attempt(&event) == Attempt::Later;
        self.late.promotion = late.then(|| self.late.put_off(event));
    }

    /// The same for a step of a rollout.
    fn step(&mut self, event: ModelEvent) {
        let late = self.roll_out(&event) == Attempt::Later;
        self.late.step = late.then(|| self.late.put_off(event));
    }

    /// The same for a model that an experiment needs, if it does.
    fn keep(&mut self, version: &ModelVersion) {
        if !self.kept.contains(version) || self.champion.named(version).is_some() {
            return;
        }
        if let Some(event) = self.bundles.get(version)
            && self.load_to_keep(event) == Attempt::Later
        {
            let version = self.late.put_off(version.clone());
            self.late.kept.insert(version);
        }
    }

    /// Gives a challenger its share of the users. A bundle that cannot be had is alerted, and the champion serves all.
    fn roll_out(&self, event: &ModelEvent) -> Attempt {
        let version = &event.version;
        // A number that is no share counts as 0: nobody is served by accident.
        let share = event.numbers.get("share").copied().unwrap_or(0.0);
        let share = if (0.0..=1.0).contains(&share) { share } else { 0.0 };
        if self.champion.change_share(version, share) {
            tracing::info!(model.version = %version, share, "the challenger's share changed");
            return Attempt::Serves;
        }
        let loaded = match self.load(event) {
            Ok(loaded) => loaded,
            Err(attempt) => return attempt,
        };
        match self
            .champion
            .challenge(version.clone(), loaded, share, &self.view)
        {
            Ok(()) => {
                tracing::info!(model.version = %version, share, "a challenger is being rolled out");
                Attempt::Serves
            }
            Err(error) => self.refuse(version, &error),
        }
    }

    fn load_to_keep(&self, event: &ModelEvent) -> Attempt {
        let version = &event.version;
        let loaded = match self.load(event) {
            Ok(loaded) => loaded,
            Err(attempt) => return attempt,
        };
        match self.champion.keep(version.clone(), loaded, &self.view) {
            Ok(()) => {
                tracing::info!(model.version = %version, "loaded for an experiment");
                Attempt::Serves
            }
            Err(error) => self.refuse(version, &error),
        }
    }

    /// The bundle of `event`'s version; what comes of the attempt where there is none.
    fn load(&self, event: &ModelEvent) -> Result<Loaded, Attempt> {
        self.loader.load(self.named(event)).map_err(|error| {
            let refused = self.refuse(&event.version, &error);
            if error.is_transient() {
                Attempt::Later
            } else {
                refused
            }
        })
    }

    /// The event that names the bundle of `event`'s version.
    fn named<'a>(&'a self, event: &'a ModelEvent) -> &'a ModelEvent {
        if event.bundle_uri.is_some() {
            event
        } else {
            self.bundles.get(&event.version).unwrap_or(event)
        }
    }

    /// Makes of the history what it left under way.
    pub(super) fn decide(&mut self) {
        self.choose();
        if let Some(step) = self.rollout.take() {
            self.step(step);
        }
        let kept: Vec<ModelVersion> = self.kept.iter().cloned().collect();
        for version in &kept {
            self.keep(version);
        }
    }

    /// The last promotion decides; where its bundle is refused, the one before it serves, as it did when the event was
    /// new.
    fn choose(&mut self) {
        let promotions = std::mem::take(&mut self.promotions);
        for event in promotions.iter().rev() {
            match self.attempt(event) {
                Attempt::Serves => break,
                Attempt::Later if self.late.promotion.is_none() => {
                    self.late.promotion = Some(self.late.put_off(event.clone()));
                }
                Attempt::Later | Attempt::Refused => {}
            }
        }
        self.promotions = promotions;
    }

    fn attempt(&mut self, event: &ModelEvent) -> Attempt {
        let attempt = self.install(event);
        self.obeyed |= attempt == Attempt::Serves;
        attempt
    }

    fn install(&self, event: &ModelEvent) -> Attempt {
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
        let loaded = match self.load(event) {
            Ok(loaded) => loaded,
            Err(attempt) => return attempt,
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
        refuse(&self.alerts, &self.champion, version, error);
        Attempt::Refused
    }

    /// Tries again what is late.
    pub(super) fn try_again(&mut self) {
        self.late.tried = Instant::now();
        if let Some(event) = self.late.promotion.take() {
            self.promote(event);
        }
        if let Some(event) = self.late.step.take() {
            self.step(event);
        }
        for version in std::mem::take(&mut self.late.kept) {
            self.keep(&version);
        }
    }
}

impl Late {
    /// `what` is to be tried after a pause.
    fn put_off<T>(&mut self, what: T) -> T {
        self.tried = Instant::now();
        what
    }
}

/// Raises the alert that a model may not serve.
pub(crate) fn refuse(
    alerts: &Alerts,
    champion: &Champion,
    version: &ModelVersion,
    error: &dyn std::error::Error,
) {
    let serving = champion
        .serving()
        .map_or_else(|| "popularity".to_owned(), |serving| serving.version.to_string());
    alerts.raise(
        Severity::Critical,
        "bundle_refused",
        &version.0,
        format!("model {version} is refused, {serving} serves on: {error}"),
        &[],
    );
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
        if self.obeyed && self.champion.serving().is_none() {
            self.obeyed = false;
            self.choose();
        }
        if self.late.tried.elapsed() >= RETRY {
            self.try_again();
        }
        Ok(())
    }
}
