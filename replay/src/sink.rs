//! Topics into the lake, exactly once.
//!
//! The sink buffers each partition's rows and commits them with the position after them ([`crate::lake`]); it reads
//! on from that position and from nothing else. Dead letters are acknowledged before the commit that passes their
//! records, so a record is in the lake or in the dead letters, never in neither; a kill between the two publishes
//! the same dead letter again, under the same key. A record that asks to forget a user becomes no row: the manifest
//! notes it.

mod catalogue;
mod dead_letters;
mod events;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use marquee_runtime::Clock;
use marquee_runtime::bus::{Handler, RawRecord, Start};
use marquee_schemas::{DeadLetter, Topic};

use catalogue::CatalogueShard;
pub(crate) use catalogue::apply as apply_movie;
pub(crate) use dead_letters::{BusDeadLetters, DeadLetters};
use events::EventShard;

use crate::config::{CompactionConfig, FlushConfig, RetentionConfig};
use crate::error::Error;
use crate::lake::{Gap, Lake, Replaced, Shard};
use crate::rows::Poison;
use crate::table::Table;

/// Counts of the sink since it started, shared with whoever reports them.
#[derive(Debug, Default)]
pub struct SinkCounts {
    taken: AtomicU64,
    rows: AtomicU64,
    poison: AtomicU64,
    erasures: AtomicU64,
    repeated: AtomicU64,
    commits: AtomicU64,
}

impl SinkCounts {
    /// Records read, each once, committed or not yet.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Rows committed (for the catalogue: records applied).
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Records published as dead letters.
    #[must_use]
    pub fn poison(&self) -> u64 {
        self.poison.load(Ordering::Relaxed)
    }

    /// Records that asked to forget a user, committed or not yet.
    #[must_use]
    pub fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Relaxed)
    }

    /// Records delivered again and passed over.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Commits to the lake.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn erase(&self) {
        self.erasures.fetch_add(1, Ordering::Relaxed);
    }

    fn repeat(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    fn committed(&self, rows: u64, poison: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.poison.fetch_add(poison, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Part {
    Events(EventShard),
    Catalogue(CatalogueShard),
}

/// What every shard needs to flush.
pub(crate) struct Context {
    pub(crate) flush: FlushConfig,
    pub(crate) compaction: CompactionConfig,
    pub(crate) retention: RetentionConfig,
    /// How long a replaced file stays for queries that began before, ms.
    pub(crate) keep_replaced_ms: i64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dead_letters: Box<dyn DeadLetters>,
    pub(crate) counts: Arc<SinkCounts>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    fn refusal(&self, record: &RawRecord, poison: &Poison) -> DeadLetter {
        let now_ms = self.clock.now_ms();
        DeadLetter::of("replay", &record.origin(), poison.reason, &poison.detail, now_ms)
    }

    fn publish_refused(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        self.dead_letters.publish(letters).map_err(Error::from)
    }

    /// Whether a buffer of `shard` that got its first record at `since_ms` has waited long enough.
    fn is_due(&self, shard: &Shard, since_ms: Option<i64>) -> bool {
        let patience = patience_ms(self.flush.max_age_ms, shard.table(), shard.partition());
        since_ms.is_some_and(|since| self.clock.now_ms().saturating_sub(since) >= patience)
    }
}

/// How long a shard gathers rows: between half of the longest time and all of it, each shard for a time of its own. Their
/// records begin to come at one moment; with one patience all of them would be written at one moment, too, and the
/// machine be busy by fits and starts.
fn patience_ms(max_age_ms: i64, table: Table, partition: i32) -> i64 {
    // Multiples of the golden ratio are spread evenly, however many there are (Weyl's equidistribution).
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let nth = f64::from(partition) * Table::ALL.len() as f64 + f64::from(table as u8);
    let part = 0.5 + 0.5 * (nth * GOLDEN).fract();
    ((max_age_ms as f64 * part).ceil() as i64).clamp(1, max_age_ms)
}

/// Writes topics into the lake; drive it with [`marquee_runtime::bus::Subscription::All`].
#[derive(Debug)]
pub(crate) struct Sink {
    lake: Lake,
    context: Context,
    parts: BTreeMap<(Topic, i32), Part>,
    replaced: Replaced,
}

impl Sink {
    pub(crate) fn new(lake: Lake, context: Context) -> Self {
        Self {
            lake,
            context,
            parts: BTreeMap::new(),
            replaced: Replaced::default(),
        }
    }

    fn part(&mut self, topic: Topic, partition: i32) -> Result<Option<&mut Part>, Error> {
        let Some(table) = Table::of_topic(topic) else {
            return Ok(None);
        };
        Ok(Some(match self.parts.entry((topic, partition)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let shard = self.lake.shard(table, partition)?;
                entry.insert(match table.rows() {
                    Some(rows) => Part::Events(EventShard::new(shard, rows)),
                    None => Part::Catalogue(CatalogueShard::open(shard)?),
                })
            }
        }))
    }

    /// Where a partition resumes; `None` if nothing of it is committed.
    pub(crate) fn position(&mut self, topic: Topic, partition: i32) -> Result<Option<i64>, Error> {
        Ok(self.part(topic, partition)?.and_then(|part| match part {
            Part::Events(part) => part.shard().next_offset(),
            Part::Catalogue(part) => part.shard().next_offset(),
        }))
    }

    /// Resumes at `low` where the broker has deleted what was to be read next, remembers what is missing, and says so.
    pub(crate) fn pass_deleted(
        &mut self,
        topic: Topic,
        partition: i32,
        low: i64,
    ) -> Result<Option<Gap>, Error> {
        let Some(from) = self.position(topic, partition)?.filter(|&next| next < low) else {
            return Ok(None);
        };
        tracing::error!(
            kafka.topic = %topic, kafka.partition = partition, kafka.offset = from, records = low - from,
            "records were deleted by the broker before they reached the lake"
        );
        let gap = Gap { from, to: low };
        match self.part(topic, partition)? {
            Some(Part::Events(part)) => part.skip(gap)?,
            Some(Part::Catalogue(part)) => part.skip(gap)?,
            None => {}
        }
        Ok(Some(gap))
    }

    /// Commits whatever is buffered, and removes every replaced file: nothing is left to do it later.
    pub(crate) fn flush_all(&mut self) -> Result<(), Error> {
        for part in self.parts.values_mut() {
            match part {
                Part::Events(part) => part.flush(&self.context)?,
                Part::Catalogue(part) => part.flush(&self.context)?,
            }
        }
        self.collect_replaced();
        self.replaced.remove_due(self.lake.disk(), i64::MAX);
        Ok(())
    }

    /// Removes the replaced files that nobody can be reading any more.
    pub(crate) fn remove_replaced(&mut self) {
        self.collect_replaced();
        self.replaced
            .remove_due(self.lake.disk(), self.context.clock.now_ms());
    }

    fn collect_replaced(&mut self) {
        let now_ms = self.context.clock.now_ms();
        let due_ms = now_ms.saturating_add(self.context.keep_replaced_ms);
        for part in self.parts.values_mut() {
            let files = match part {
                Part::Events(part) => part.shard_mut().take_replaced(),
                Part::Catalogue(part) => part.shard_mut().take_replaced(),
            };
            self.replaced.add(files, due_ms);
        }
    }
}

impl Handler for Sink {
    type Error = Error;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Error> {
        partitions
            .iter()
            .map(|&partition| {
                let start = self
                    .position(topic, partition)?
                    .map_or(Start::Earliest, Start::At);
                Ok((partition, start))
            })
            .collect()
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Error> {
        for record in batch {
            let key = (record.topic, record.partition);
            if !self.parts.contains_key(&key) {
                self.part(record.topic, record.partition)?;
            }
            match self.parts.get_mut(&key) {
                Some(Part::Events(part)) => part.take(&record, &self.context)?,
                Some(Part::Catalogue(part)) => part.take(&record, &self.context)?,
                None => {}
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Error> {
        for part in self.parts.values_mut() {
            match part {
                Part::Events(part) => part.flush_if_due(&self.context)?,
                Part::Catalogue(part) => part.flush_if_due(&self.context)?,
            }
        }
        self.remove_replaced();
        Ok(())
    }
}
