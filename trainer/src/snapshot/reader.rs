//! Reading a snapshot from the bus.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use marquee_runtime::bus::RawRecord;
use marquee_runtime::{Bus, BusError};
use marquee_schemas::{Movie, Offset, PartitionOffset, Topic};

use super::cache::{Cache, Cached};
use super::{CatalogueFold, Erasure, Row, Rows, Snapshot};
use crate::Bundle;

/// Reads snapshots; blocks, so it belongs on a thread of its own.
#[derive(Debug, Clone)]
pub struct SnapshotReader {
    bus: Bus,
    cache_dir: PathBuf,
}

/// The partitions of one topic among `offsets`.
#[must_use]
pub fn bounds_of(offsets: &[PartitionOffset], topic: Topic) -> BTreeMap<i32, i64> {
    offsets
        .iter()
        .filter(|at| at.topic == topic.name())
        .map(|at| (at.partition, at.offset.0))
        .collect()
}

/// What [`Bus::read_range`] is stopped with.
#[derive(Debug, thiserror::Error)]
#[error("told to stop")]
struct Stopped;

impl SnapshotReader {
    /// A reader that keeps what it read in `cache_dir`.
    #[must_use]
    pub fn new(bus: Bus, cache_dir: PathBuf) -> Self {
        Self { bus, cache_dir }
    }

    /// Completes `named`: partitions of `interactions` and `movies` that it does not name get their end at this
    /// moment.
    ///
    /// # Errors
    /// [`BusError`] if the broker cannot say, or [`BusError::CheckpointBeyondEnd`] for an offset that is not there.
    pub fn pin(&self, named: &[PartitionOffset]) -> Result<Vec<PartitionOffset>, BusError> {
        let mut pinned = Vec::new();
        for topic in [Topic::Interactions, Topic::Movies] {
            let named = bounds_of(named, topic);
            for (partition, (_, high)) in self.bus.watermarks_blocking(topic)?.0 {
                let offset = named.get(&partition).copied().unwrap_or(high);
                if offset > high {
                    return Err(BusError::CheckpointBeyondEnd {
                        topic: topic.to_string(),
                        partition,
                        offset,
                        high,
                    });
                }
                pinned.push(PartitionOffset {
                    topic: topic.name().to_owned(),
                    partition,
                    offset: Offset(offset),
                });
            }
        }
        pinned.sort_unstable();
        Ok(pinned)
    }

    /// Reads the snapshot named by `offsets`, which names every partition (see [`SnapshotReader::pin`]). `stop` is
    /// asked at each record.
    ///
    /// # Errors
    /// [`BusError`] as [`Bus::read_range`]; [`BusError::Handler`] when told to stop.
    pub fn read(&self, offsets: &[PartitionOffset], stop: impl Fn() -> bool) -> Result<Snapshot, BusError> {
        let rows = self.rows(&bounds_of(offsets, Topic::Interactions), &stop)?;
        let movies = self.movies(&bounds_of(offsets, Topic::Movies), &stop)?;
        Ok(Snapshot::assemble(rows, movies, offsets.to_vec()))
    }

    /// Reads the data of a bundle again. Its catalogue comes from the bundle: `movies` is compacted, so its offsets do
    /// not name a catalogue for ever.
    ///
    /// # Errors
    /// As [`SnapshotReader::read`].
    pub fn read_again(&self, bundle: &Bundle, stop: impl Fn() -> bool) -> Result<Snapshot, BusError> {
        let offsets = &bundle.manifest.offsets;
        let rows = self.rows(&bounds_of(offsets, Topic::Interactions), &stop)?;
        Ok(Snapshot::assemble(rows, bundle.movies.clone(), offsets.clone()))
    }

    /// The catalogue as of these offsets.
    ///
    /// # Errors
    /// As [`SnapshotReader::read`].
    pub fn movies(&self, to: &BTreeMap<i32, i64>, stop: impl Fn() -> bool) -> Result<Vec<Movie>, BusError> {
        let mut fold = CatalogueFold::default();
        self.bus
            .read_range(Topic::Movies, &BTreeMap::new(), to, |record| {
                if stop() {
                    return Err(Stopped);
                }
                fold.apply(record.key.as_deref(), record.value.as_deref());
                Ok(())
            })?;
        Ok(fold.into_movies())
    }

    fn rows(&self, to: &BTreeMap<i32, i64>, stop: &impl Fn() -> bool) -> Result<Rows, BusError> {
        let cache = match Cache::open(&self.cache_dir) {
            Ok(cache) => cache,
            Err(error) => {
                tracing::warn!(%error, path = %self.cache_dir.display(), "reading without the cache");
                None
            }
        };
        let mut cached = BTreeMap::new();
        for &partition in to.keys() {
            let part = cache
                .as_ref()
                .map_or_else(|| Ok(Cached::default()), |cache| cache.read(partition));
            let part = part.unwrap_or_else(|error| {
                tracing::warn!(%error, kafka.partition = partition, "reading without the cache");
                Cached::default()
            });
            cached.insert(partition, part);
        }
        let fresh = match self.tail(&cached, to, stop)? {
            Some(fresh) => fresh,
            None => {
                // Some partition's cache is of another log; which one does not matter, they were made together.
                tracing::warn!("the cache belongs to another log, reading everything again");
                for (&partition, part) in &mut cached {
                    *part = Cached::default();
                    if let Some(cache) = &cache {
                        let forgotten = cache.forget(partition);
                        report(forgotten, partition);
                    }
                }
                self.tail(&cached, to, stop)?.unwrap_or_default()
            }
        };
        let mut all = Rows::default();
        for (partition, part) in cached {
            let end = to.get(&partition).copied().unwrap_or(i64::MAX);
            let fresh = fresh.get(&partition);
            if let (Some(cache), Some(fresh)) = (&cache, fresh)
                && fresh.next > fresh.from
            {
                report(cache.append(partition, fresh), partition);
            }
            for part in std::iter::once(&part).chain(fresh) {
                all.rows.extend(part.rows.iter().filter(|row| row.offset < end));
                all.invalid += part.invalid.iter().filter(|&&offset| offset < end).count() as u64;
                let erasures = part.erasures.iter();
                all.erasures
                    .extend(erasures.filter(|erasure| erasure.offset < end));
            }
        }
        Ok(all)
    }

    /// What the log has beyond the cache. The last cached record is read once more: `None` if it is not what the
    /// cache says, which means that the cache is of another log.
    fn tail(
        &self,
        cached: &BTreeMap<i32, Cached>,
        to: &BTreeMap<i32, i64>,
        stop: &impl Fn() -> bool,
    ) -> Result<Option<BTreeMap<i32, Cached>>, BusError> {
        let bounds = self.bus.watermarks_blocking(Topic::Interactions)?;
        let mut from = BTreeMap::new();
        let mut fresh = BTreeMap::new();
        for (&partition, part) in cached {
            let Some(&(low, high)) = bounds.0.get(&partition) else {
                return Err(BusError::Fatal(format!(
                    "{} has no partition {partition}",
                    Topic::Interactions
                )));
            };
            if part.next > high {
                return Ok(None);
            }
            let begin = if part.next > 0 { part.next } else { low };
            let end = to.get(&partition).copied().unwrap_or(high);
            // Reading from the last cached row costs one record and proves that it is the same log.
            let witness = part.last().map_or(begin, |row| row.offset);
            from.insert(partition, if end > begin { witness } else { end });
            fresh.insert(
                partition,
                Cached {
                    from: begin,
                    next: begin.max(end),
                    ..Cached::default()
                },
            );
        }
        let mut same_log = true;
        self.bus
            .read_range(Topic::Interactions, &from, to, |record: RawRecord| {
                if stop() {
                    return Err(Stopped);
                }
                let Some(part) = fresh.get_mut(&record.partition) else {
                    return Ok(());
                };
                let decoded = Row::decode(&record);
                if record.offset < part.from {
                    let witness = cached.get(&record.partition).and_then(Cached::last);
                    if let Some(witness) = witness.filter(|row| row.offset == record.offset) {
                        same_log &= decoded.ok().as_ref() == Some(witness);
                    }
                    return Ok(());
                }
                if let Some(erasure) = Erasure::of(&record) {
                    part.erasures.push(erasure);
                    return Ok(());
                }
                match decoded {
                    Ok(row) => part.rows.push(row),
                    Err(error) => {
                        tracing::debug!(
                            kafka.topic = %Topic::Interactions, kafka.partition = record.partition,
                            kafka.offset = record.offset, %error, "leaving a record out"
                        );
                        part.invalid.push(record.offset);
                    }
                }
                Ok(())
            })?;
        Ok(same_log.then_some(fresh))
    }
}

/// The cache is a convenience: its failures are told, not raised.
fn report(outcome: io::Result<()>, partition: i32) {
    if let Err(error) = outcome {
        tracing::warn!(%error, kafka.partition = partition, "the snapshot cache cannot be written");
    }
}
