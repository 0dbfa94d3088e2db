//! Keeps the view up to date: a first load of everything in the changelog, then record by record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use marquee_models::Error as ModelsError;
use marquee_models::live::LiveParams;
use marquee_runtime::bus::{Handler, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::{FeatureKey, ModelVersion, Severity, Topic};
use tokio_util::sync::CancellationToken;

use super::snapshot::{Reach, Snapshot, Unfit};
use super::{Change, RecordError, Snapshots, View, ViewState};
use crate::Error;
use crate::alerts::Alerts;
use crate::champion::{self, Champion, RefusedModel};

/// Pause before a broker that was away is asked again.
const RETRY: Duration = Duration::from_millis(300);

/// Topic → partition → next offset.
type Positions = BTreeMap<Topic, BTreeMap<i32, i64>>;

/// What following needs.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    pub(crate) view: Arc<View>,
    pub(crate) champion: Arc<Champion>,
    pub(crate) bus: Bus,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) alerts: Alerts,
    /// `None`: each start loads everything.
    pub(crate) snapshots: Option<Arc<Snapshots>>,
}

/// How far the view has come in its topics.
#[derive(Debug, Default)]
struct Come {
    positions: Positions,
    reach: Reach,
}

/// The newest record of each key, so that a log that was not compacted yet costs one parse per key.
#[derive(Debug, Default)]
pub(super) struct Newest(HashMap<(Topic, i32, Vec<u8>), RawRecord>);

impl Newest {
    /// Takes a record; those without news for a view, and those without a key, are not kept.
    pub(super) fn take(&mut self, record: RawRecord) {
        let Some(key) = record.key.clone() else { return };
        if record.topic == Topic::Features && key.starts_with(b"m/") {
            return;
        }
        self.0.insert((record.topic, record.partition, key), record);
    }

    /// The state these records describe.
    pub(super) fn fold(
        self,
        params: LiveParams,
        mut refused: impl FnMut(&RawRecord, RecordError),
    ) -> Result<ViewState, ModelsError> {
        let mut changes = Vec::with_capacity(self.0.len());
        for record in self.0.into_values() {
            match Change::read(&record) {
                Ok(Some(change)) => changes.push((rank(&record), change)),
                Ok(None) => {}
                Err(error) => refused(&record, error),
            }
        }
        // Catalogue first, then chunk after chunk; and the same indices from the same log.
        changes.sort_unstable_by_key(|(rank, _)| *rank);
        ViewState::fold(params, changes.into_iter().map(|(_, change)| change).collect())
    }
}

fn rank(record: &RawRecord) -> (Topic, Option<FeatureKey>, i32, i64) {
    let key = record
        .key
        .as_deref()
        .and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
    (record.topic, key, record.partition, record.offset)
}

/// Follows `movies` and `features` until `token` is cancelled.
pub(crate) async fn follow(follow: Follow, token: CancellationToken) -> Result<(), Error> {
    let mut resumes = true;
    while !token.is_cancelled() {
        let come = match first_load(&follow, &token, resumes).await {
            Ok(Some(come)) => Arc::new(Mutex::new(come)),
            Ok(None) => return Ok(()),
            Err(Error::Bus(error)) if error.is_transient() => {
                tracing::warn!(%error, "the broker is away, the view waits");
                pause(&token).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        // What makes a second load necessary speaks against the snapshot, too.
        resumes = false;
        loop {
            let handler = Records {
                follow: follow.clone(),
                come: Arc::clone(&come),
            };
            let config = SubscriberConfig::new("recommender-view", Subscription::All);
            match follow
                .bus
                .subscriber(&View::FOLLOWED, config)
                .run(handler, token.clone())
                .await
            {
                Ok(handler) => return handler.finish().await,
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the broker is away, the view stands still");
                    pause(&token).await;
                }
                // The log is not the one that was loaded, or lost what comes next: load what there is.
                Err(error @ (BusError::Truncated { .. } | BusError::CheckpointBeyondEnd { .. })) => {
                    tracing::warn!(%error, "loading the view anew");
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            if token.is_cancelled() {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn pause(token: &CancellationToken) {
    tokio::select! {
        () = token.cancelled() => {}
        () = tokio::time::sleep(RETRY) => {}
    }
}

/// Reads everything the log holds now; `None` when cancelled. On a thread of its own, which a stop does not wait for:
/// a broker that went away may hold it for a while.
async fn first_load(
    follow: &Follow,
    token: &CancellationToken,
    resumes: bool,
) -> Result<Option<Come>, Error> {
    let name = "recommender-load";
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (work, stop) = (follow.clone(), token.clone());
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let resumed = if resumes { resume(&work, &stop) } else { Ok(None) };
            let outcome = match resumed {
                Ok(Some(come)) => Ok(come),
                Ok(None) => load(&work, &stop),
                Err(error) => Err(error),
            };
            drop(sender.send(outcome));
        })
        .map_err(|error| Error::Thread {
            name: name.into(),
            detail: error.to_string(),
        })?;
    tokio::select! {
        biased;
        () = token.cancelled() => Ok(None),
        loaded = receiver => match loaded {
            Ok(loaded) => loaded.map(Some),
            Err(_) => Err(Error::Thread { name: name.into(), detail: "panicked".into() }),
        },
    }
}

/// Stops a bounded read early.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

/// Takes up the snapshot, and reads what was added to the log since; `None` where there is none that fits.
fn resume(follow: &Follow, stop: &CancellationToken) -> Result<Option<Come>, Error> {
    let Some(snapshots) = &follow.snapshots else {
        return Ok(None);
    };
    let started = Instant::now();
    let outcome = Snapshot::read(snapshots.path(), follow.clock.now_ms())
        .map_err(Resuming::Unfit)
        .and_then(|snapshot| match snapshot {
            Some(snapshot) => catch_up(follow, snapshot, stop).map(Some),
            None => Ok(None),
        });
    let (mut state, come, records) = match outcome {
        Ok(Some(resumed)) => resumed,
        Ok(None) => return Ok(None),
        Err(Resuming::Unfit(reason)) => {
            tracing::warn!(path = %snapshots.path().display(), %reason, "the view's snapshot is passed over");
            return Ok(None);
        }
        Err(Resuming::Failed(error)) => return Err(error),
    };
    let params = follow.champion.params();
    let params = params.unwrap_or_else(|| state.live.params().clone());
    if state.refold || &params != state.live.params() {
        state.live = state.refolded(params)?;
        state.refold = false;
    }
    install(follow, state, "resumed from its snapshot", records, started);
    Ok(Some(come))
}

/// Why a snapshot is not taken up.
enum Resuming {
    /// It will not do: load everything.
    Unfit(Unfit),
    /// Nor would that.
    Failed(Error),
}

/// The state of a snapshot with everything that the log holds beyond it, and how many records that were.
fn catch_up(
    follow: &Follow,
    snapshot: Snapshot,
    stop: &CancellationToken,
) -> Result<(ViewState, Come, u64), Resuming> {
    let mut come = Come {
        reach: snapshot.reach.clone(),
        ..Come::default()
    };
    let mut state = snapshot.into_state().map_err(Resuming::Unfit)?;
    let mut records = 0_u64;
    for topic in View::TOPICS {
        let from = come.reach.from(topic);
        let mut unfit = None;
        let reached = follow.bus.read_range(topic, &from, &BTreeMap::new(), |record| {
            if stop.is_cancelled() {
                return Err(Stopped);
            }
            match come.reach.admits(&record) {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                Err(reason) => {
                    unfit = Some(reason);
                    return Err(Stopped);
                }
            }
            records += 1;
            match Change::read(&record) {
                Ok(Some(change)) => drop(state.apply(change)),
                Ok(None) => {}
                Err(error) => refuse(follow, &record, &error),
            }
            come.reach.note(&record);
            Ok(())
        });
        let reached = match (unfit, reached) {
            (Some(reason), _) => return Err(Resuming::Unfit(reason)),
            (None, Ok(reached)) => reached,
            (None, Err(BusError::Truncated { .. })) => return Err(Resuming::Unfit(Unfit::Log)),
            (None, Err(error)) => return Err(Resuming::Failed(error.into())),
        };
        // A log that ends before what is in is another one.
        if from
            .iter()
            .any(|(partition, newest)| reached.get(partition).is_none_or(|end| end <= newest))
        {
            return Err(Resuming::Unfit(Unfit::Log));
        }
        come.positions.insert(topic, reached);
    }
    Ok((state, come, records))
}

fn load(follow: &Follow, stop: &CancellationToken) -> Result<Come, Error> {
    let started = Instant::now();
    let mut newest = Newest::default();
    let mut come = Come::default();
    let mut records = 0_u64;
    for topic in View::TOPICS {
        let reached = follow
            .bus
            .read_range(topic, &BTreeMap::new(), &BTreeMap::new(), |record| {
                if stop.is_cancelled() {
                    return Err(Stopped);
                }
                records += 1;
                come.reach.note(&record);
                newest.take(record);
                Ok(())
            })?;
        come.positions.insert(topic, reached);
    }
    let params = follow
        .champion
        .params()
        .unwrap_or_else(|| follow.view.read().live.params().clone());
    let state = newest.fold(params, |record, error| refuse(follow, record, &error))?;
    install(follow, state, "loaded", records, started);
    Ok(come)
}

/// Shows what was made of so many records to the readers, and says how long that took.
fn install(follow: &Follow, state: ViewState, how: &str, records: u64, started: Instant) {
    tracing::info!(
        records,
        movies = state.movies.present(),
        users = state.users.len(),
        entries = state.live.interactions(),
        duration_ms = started.elapsed().as_millis() as u64,
        "view {how}"
    );
    let let_go = follow.champion.show(&follow.view, state);
    refuse_models(follow, let_go);
}

fn refuse_models(follow: &Follow, let_go: Vec<(ModelVersion, RefusedModel)>) {
    for (version, reason) in let_go {
        champion::refuse(&follow.alerts, &follow.champion, &version, &reason);
    }
}

fn refuse(follow: &Follow, record: &RawRecord, error: &RecordError) {
    tracing::warn!(
        kafka.topic = %record.topic, kafka.partition = record.partition, kafka.offset = record.offset,
        %error, "a record of the view cannot be read"
    );
    follow.alerts.raise(
        Severity::Warning,
        "view_record_refused",
        record.topic.name(),
        format!(
            "record {}/{}/{} cannot be read: {error}",
            record.topic, record.partition, record.offset
        ),
        &[],
    );
}

struct Records {
    follow: Follow,
    come: Arc<Mutex<Come>>,
}

impl Records {
    fn come(&self) -> std::sync::MutexGuard<'_, Come> {
        self.come.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the last snapshot.
    async fn finish(self) -> Result<(), Error> {
        let last = tokio::task::spawn_blocking(move || {
            if let Some(snapshots) = &self.follow.snapshots {
                let now_ms = self.follow.clock.now_ms();
                snapshots.finish(&self.follow.view, &self.come().reach, now_ms);
            }
        });
        last.await.map_err(|error| Error::Thread {
            name: "recommender-snapshot".into(),
            detail: error.to_string(),
        })
    }
}

impl Handler for Records {
    type Error = ModelsError;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Self::Error> {
        let come = self.come();
        let known = come.positions.get(&topic);
        Ok(partitions
            .iter()
            .map(|&partition| {
                // Events before the first look come with the features that they led to.
                let first = match topic {
                    Topic::Interactions => Start::Latest,
                    _ => Start::Earliest,
                };
                let start = known
                    .and_then(|known| known.get(&partition))
                    .map_or(first, |&offset| Start::At(offset));
                (partition, start)
            })
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Self::Error> {
        let begun = Instant::now();
        let follow = &self.follow;
        let now_ms = follow.clock.now_ms();
        let applied = follow.view.apply(&batch, now_ms, |record, error| {
            refuse(follow, record, &error);
        });
        if applied.movies_changed {
            refuse_models(follow, follow.champion.rebind(&follow.view));
        }
        let mut come = self.come();
        let mut newest_ms = None;
        for record in &batch {
            come.positions
                .entry(record.topic)
                .or_default()
                .insert(record.partition, record.next_offset());
            come.reach.note(record);
            newest_ms = newest_ms.max(Some(record.timestamp_ms).filter(|&time| time >= 0));
        }
        drop(come);
        follow.view.note_poll(now_ms, newest_ms);
        tracing::debug!(
            records = batch.len(),
            lag_ms = newest_ms.map(|newest| now_ms - newest),
            apply_us = begun.elapsed().as_micros() as u64,
            "view updated"
        );
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Self::Error> {
        let now = self.follow.clock.now_ms();
        if self.follow.view.refold_if_due()? {
            tracing::info!("live state folded anew");
        }
        if let Some(snapshots) = &self.follow.snapshots {
            snapshots.write_if_due(&self.follow.view, &self.come().reach, now);
        }
        // Called after each batch too: an idle subscriber alone has no lag.
        if now.saturating_sub(self.follow.view.progress.polled_at_ms()) >= 50 {
            self.follow.view.note_poll(now, None);
        }
        Ok(())
    }
}
