//! Keeps the view up to date: a first load of everything in the changelog, then record by record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use marquee_models::Error as ModelsError;
use marquee_models::live::LiveParams;
use marquee_runtime::bus::{Handler, RawRecord, Start, SubscriberConfig, Subscription};
use marquee_runtime::{Bus, BusError, Clock};
use marquee_schemas::{FeatureKey, Severity, Topic};
use tokio_util::sync::CancellationToken;

use super::{Change, RecordError, View, ViewState};
use crate::Error;
use crate::alerts::Alerts;
use crate::champion::Champion;

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
    while !token.is_cancelled() {
        let positions = match first_load(&follow, &token).await {
            Ok(Some(positions)) => Arc::new(Mutex::new(positions)),
            Ok(None) => return Ok(()),
            Err(Error::Bus(error)) if error.is_transient() => {
                tracing::warn!(%error, "the broker is away, the view waits");
                pause(&token).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        loop {
            let handler = Records {
                follow: follow.clone(),
                positions: Arc::clone(&positions),
            };
            let config = SubscriberConfig::new("recommender-view", Subscription::All);
            match follow
                .bus
                .subscriber(&View::FOLLOWED, config)
                .run(handler, token.clone())
                .await
            {
                Ok(_) => return Ok(()),
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
async fn first_load(follow: &Follow, token: &CancellationToken) -> Result<Option<Positions>, Error> {
    let name = "recommender-load";
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (work, stop) = (follow.clone(), token.clone());
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || drop(sender.send(load(&work, &stop))))
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

fn load(follow: &Follow, stop: &CancellationToken) -> Result<Positions, Error> {
    let started = std::time::Instant::now();
    let mut newest = Newest::default();
    let mut positions = Positions::new();
    let mut records = 0_u64;
    for topic in View::TOPICS {
        let reached = follow
            .bus
            .read_range(topic, &BTreeMap::new(), &BTreeMap::new(), |record| {
                if stop.is_cancelled() {
                    return Err(Stopped);
                }
                records += 1;
                newest.take(record);
                Ok(())
            })?;
        positions.insert(topic, reached);
    }
    let params = follow
        .champion
        .params()
        .unwrap_or_else(|| follow.view.read().live.params().clone());
    let state = newest.fold(params, |record, error| refuse(follow, record, &error))?;
    tracing::info!(
        records,
        movies = state.movies.present(),
        users = state.users.len(),
        entries = state.live.interactions(),
        duration_ms = started.elapsed().as_millis() as u64,
        "view loaded"
    );
    follow.view.replace(state);
    follow.champion.rebind(&follow.view);
    Ok(positions)
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
    positions: Arc<Mutex<Positions>>,
}

impl Records {
    fn positions(&self) -> std::sync::MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Records {
    type Error = ModelsError;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Self::Error> {
        let positions = self.positions();
        let known = positions.get(&topic);
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
        let begun = std::time::Instant::now();
        let follow = &self.follow;
        let now_ms = follow.clock.now_ms();
        let applied = follow.view.apply(&batch, now_ms, |record, error| {
            refuse(follow, record, &error);
        });
        if applied.movies_changed {
            follow.champion.rebind(&follow.view);
        }
        let mut positions = self.positions();
        let mut newest_ms = None;
        for record in &batch {
            positions
                .entry(record.topic)
                .or_default()
                .insert(record.partition, record.next_offset());
            newest_ms = newest_ms.max(Some(record.timestamp_ms).filter(|&time| time >= 0));
        }
        drop(positions);
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
        // Called after each batch too: an idle subscriber alone has no lag.
        if now.saturating_sub(self.follow.view.progress.polled_at_ms()) >= 50 {
            self.follow.view.note_poll(now, None);
        }
        Ok(())
    }
}
