//! The handler that ties fold, stores, triggers and bus together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use marquee_runtime::Clock;
use marquee_runtime::bus::{Handler, RawRecord, Start};
use marquee_runtime::priority::Priority;
use marquee_schemas::{Limits, MovieId, Topic};

use crate::takeover::restore;
use crate::triggers::{Look, Positions, Signals};
use crate::{
    Applied, Catalogue, Config, Counters, CrashPoint, Error, Faults, Judged, NoFaults, PartitionTotals,
    RowSource, Shelf, Sink, Store, StoreOptions, Triggers, Verdict, judge,
};

/// Records below which another thread costs more than it saves.
const PARALLEL_FROM: usize = 256;
/// Partitions worked on at once besides the first: most of a commit is waiting for the disk.
const WORKERS: usize = 3;

/// Folds batches of the `interactions` topic, whatever drives it.
///
/// The order of a batch: judge; commit per partition; decide about retraining; publish. What is committed but not
/// published when the process dies is published after the next start, before anything else is taken in.
pub struct Processor<C, S> {
    config: Config,
    clock: Arc<dyn Clock>,
    catalogue: C,
    sink: S,
    faults: Arc<dyn Faults>,
    stores: BTreeMap<i32, Store>,
    shelf: Shelf,
    triggers: Triggers,
    /// Something may be left over from an earlier life.
    unsettled: bool,
    catalogue_read_ms: i64,
    /// When movies' records were last published; `None` before the first time.
    movies_published_ms: Option<i64>,
    /// When rows were last copied.
    rows_copied_ms: i64,
    rows: Option<Box<dyn RowSource>>,
    workers: rayon::ThreadPool,
}

impl<C, S> std::fmt::Debug for Processor<C, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor")
            .field("config", &self.config)
            .field("stores", &self.stores)
            .field("triggers", &self.triggers)
            .finish_non_exhaustive()
    }
}

/// What a processor had done when it was closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Counters by partition.
    pub partitions: BTreeMap<i32, Counters>,
}

impl<C: Catalogue, S: Sink> Processor<C, S> {
    /// A processor without partitions; creates the state folder.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work, [`Error::Folder`] and [`Error::Store`] if the folder or the
    /// triggers' file cannot be used, [`Error::Workers`] if the system gives no threads.
    pub fn new(config: Config, clock: Arc<dyn Clock>, catalogue: C, sink: S) -> Result<Self, Error> {
        config.check()?;
        std::fs::create_dir_all(&config.state_dir).map_err(|source| Error::Folder {
            path: config.state_dir.clone(),
            source,
        })?;
        let triggers = Triggers::open(&config.state_dir, config.trigger_settings())?;
        Ok(Self {
            config,
            clock,
            catalogue,
            sink,
            faults: Arc::new(NoFaults),
            stores: BTreeMap::new(),
            shelf: Shelf::default(),
            triggers,
            unsettled: false,
            catalogue_read_ms: 0,
            movies_published_ms: None,
            rows_copied_ms: 0,
            rows: None,
            workers: rayon::ThreadPoolBuilder::new()
                .num_threads(WORKERS)
                .thread_name(|n| format!("features-{n}"))
                .start_handler(|_| Priority::Low.take())
                .build()
                .map_err(Error::Workers)?,
        })
    }

    /// The same, taking partitions over from the rows that their earlier owners have copied.
    #[must_use]
    pub fn with_rows(mut self, rows: Box<dyn RowSource>) -> Self {
        self.rows = Some(rows);
        self
    }

    /// The same with faults injected.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = faults;
        self
    }

    /// Where to go on reading [`crate::triggers::SIGNAL_TOPICS`].
    #[must_use]
    pub fn signal_positions(&self) -> Positions {
        self.triggers.positions()
    }

    /// The same, hearing what the other services say.
    #[must_use]
    pub fn with_signals(mut self, signals: Signals) -> Self {
        self.triggers.listen(signals);
        self
    }

    /// The open files, for readers beside the fold.
    #[must_use]
    pub fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    /// The stores of the partitions assigned at the moment.
    #[must_use]
    pub fn stores(&self) -> &BTreeMap<i32, Store> {
        &self.stores
    }

    /// Closes all files.
    ///
    /// # Errors
    /// The first file that cannot be written; the state is safe all the same.
    pub fn close(mut self) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        for (partition, store) in std::mem::take(&mut self.stores) {
            summary.partitions.insert(partition, store.counters().clone());
            self.close_store(store)?;
        }
        Ok(summary)
    }

    fn close_store(&mut self, store: Store) -> Result<(), Error> {
        self.shelf.remove(store.partition());
        log_counters(store.partition(), store.counters());
        self.triggers
            .remember(store.partition(), PartitionTotals::of(store.counters()))?;
        store.close()
    }

    fn judge_all(&self, records: BTreeMap<i32, Vec<RawRecord>>, now_ms: i64) -> BTreeMap<i32, Vec<Judged>> {
        let limits = Limits {
            max_future_ms: self.config.max_future_ms,
        };
        let count: usize = records.values().map(Vec::len).sum();
        in_parallel(
            &self.workers,
            records,
            count >= PARALLEL_FROM,
            |(partition, records)| {
                let judged = records
                    .into_iter()
                    .map(|record| judge(record, now_ms, limits))
                    .collect();
                (partition, judged)
            },
        )
        .into_iter()
        .collect()
    }

    /// Whether an event is about a movie that the catalogue does not hold.
    fn misses_a_movie(&self, judged: &BTreeMap<i32, Vec<Judged>>) -> bool {
        judged.values().flatten().any(|judged| match &judged.verdict {
            Verdict::Valid(event) => event
                .movie_id
                .is_some_and(|movie| self.catalogue.genres(movie).is_none()),
            Verdict::Erasure(_) | Verdict::Refused(_) => false,
        })
    }

    fn refresh_catalogue(&mut self) -> Result<bool, Error> {
        self.catalogue_read_ms = self.clock.now_ms();
        self.catalogue.refresh()
    }

    fn apply_all(&mut self, mut judged: BTreeMap<i32, Vec<Judged>>, now_ms: i64) -> Result<(), Error> {
        let Self {
            stores,
            catalogue,
            faults,
            workers,
            ..
        } = self;
        let work: Vec<(&mut Store, Vec<Judged>)> = stores
            .iter_mut()
            .filter_map(|(partition, store)| Some((store, judged.remove(partition)?)))
            .collect();
        let (catalogue, faults): (&C, &dyn Faults) = (catalogue, &**faults);
        // In parallel also when small: each commit waits for the disk.
        for outcome in in_parallel(workers, work, true, |(store, records)| {
            let applied = store.apply(&records, catalogue, now_ms, faults)?;
            Ok::<_, Error>((store.partition(), applied, store.next_offset()))
        }) {
            let (partition, applied, next) = outcome?;
            log_batch(partition, &applied, next);
        }
        Ok(())
    }

    fn movies_are_due(&self, now_ms: i64) -> bool {
        self.movies_published_ms
            .is_none_or(|last| now_ms.saturating_sub(last) >= self.config.movie_features_every_ms)
    }

    fn copies_are_due(&self, now_ms: i64) -> bool {
        let every_ms = self.config.copy_rows_every_ms;
        every_ms > 0 && now_ms.saturating_sub(self.rows_copied_ms) >= every_ms
    }

    /// Copies what has changed in each partition's rows. `false` as in [`Processor::settle`].
    fn copy_rows(&mut self, now_ms: i64) -> Result<bool, Error> {
        for store in self.stores.values_mut() {
            let Some(copy) = store.copy()? else {
                continue;
            };
            let begun = Instant::now();
            if !self.sink.publish(&copy.records)? {
                return Ok(false);
            }
            store.copied(&copy);
            tracing::debug!(
                kafka.partition = store.partition(),
                records = copy.records.len(),
                duration_us = begun.elapsed().as_micros() as u64,
                "rows copied"
            );
        }
        self.rows_copied_ms = now_ms;
        Ok(true)
    }

    /// Decides about retraining and publishes everything outstanding. `false` if the processor is stopping and the
    /// broker is away: it stays in the outbox.
    fn settle(&mut self) -> Result<bool, Error> {
        let totals = self
            .stores
            .iter()
            .map(|(&partition, store)| (partition, PartitionTotals::of(store.counters())))
            .collect();
        let now_ms = self.clock.now_ms();
        let catalogue = &self.catalogue;
        let genres_of = |movie: MovieId| catalogue.genres(movie);
        self.triggers.look(Look {
            live: &totals,
            source: &self.stores,
            genres_of: &genres_of,
            now_ms,
            faults: &*self.faults,
        })?;
        let copies = self.copies_are_due(now_ms);
        // Rows are copied when everything before has been published, movies included.
        let movies = copies || self.movies_are_due(now_ms);
        let waiting: Vec<&Store> = self
            .stores
            .values()
            .filter(|store| store.has_outgoing(movies))
            .collect();
        // A decision that goes out alone takes no movie's turn.
        let movies = movies && !waiting.is_empty();
        let begun = Instant::now();
        let mut outgoing = Vec::new();
        for records in in_parallel(&self.workers, waiting, true, |store| store.outgoing(movies)) {
            outgoing.append(&mut records?);
        }
        // After the features that they speak of.
        outgoing.append(&mut self.triggers.outgoing());
        if outgoing.is_empty() {
            self.unsettled = copies && !self.copy_rows(now_ms)?;
            return Ok(!self.unsettled);
        }
        self.faults.pass(CrashPoint::BeforePublish)?;
        let read = begun.elapsed();
        if !self.sink.publish(&outgoing)? {
            self.unsettled = true;
            return Ok(false);
        }
        tracing::debug!(
            records = outgoing.len(),
            bytes = outgoing
                .iter()
                .filter_map(|record| record.value.as_ref())
                .map(Vec::len)
                .sum::<usize>(),
            read_us = read.as_micros() as u64,
            publish_us = (begun.elapsed() - read).as_micros() as u64,
            "outbox published"
        );
        self.faults.pass(CrashPoint::AfterPublish)?;
        for store in self.stores.values_mut() {
            store.published(movies);
        }
        self.triggers.published()?;
        if movies {
            self.movies_published_ms = Some(now_ms);
        }
        self.unsettled = copies && !self.copy_rows(now_ms)?;
        Ok(!self.unsettled)
    }
}

impl<C: Catalogue, S: Sink> Handler for Processor<C, S> {
    type Error = Error;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Error> {
        if topic != Topic::Interactions {
            return Ok(BTreeMap::new());
        }
        self.refresh_catalogue()?;
        let options = StoreOptions::of(&self.config);
        let mut starts = BTreeMap::new();
        for &partition in partitions {
            if !self.stores.contains_key(&partition) {
                let mut store = Store::open(&self.config.state_dir, partition, options)?;
                if let Some(rows) = &mut self.rows
                    && restore(
                        &mut **rows,
                        &self.config.state_dir,
                        partition,
                        store.next_offset(),
                    )?
                {
                    store = Store::open(&self.config.state_dir, partition, options)?;
                }
                self.shelf.put(partition, store.volume());
                self.stores.insert(partition, store);
            }
            let next = self.stores.get(&partition).and_then(Store::next_offset);
            tracing::info!(
                kafka.topic = %topic,
                kafka.partition = partition,
                kafka.offset = next,
                "feature store opened"
            );
            starts.insert(partition, next.map_or(Start::Earliest, Start::At));
        }
        // Published with the next batch or tick: a rebalance must not wait for acknowledgements.
        self.unsettled = true;
        Ok(starts)
    }

    fn revoked(&mut self, topic: Topic, partitions: &[i32]) {
        if topic != Topic::Interactions {
            return;
        }
        for partition in partitions {
            if let Some(store) = self.stores.remove(partition)
                && let Err(error) = self.close_store(store)
            {
                tracing::warn!(%error, kafka.partition = partition, "closing a feature store");
            }
        }
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Error> {
        if self.unsettled && !self.settle()? {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let mut records: BTreeMap<i32, Vec<RawRecord>> = BTreeMap::new();
        for record in batch {
            // Read before a rebalance that took its partition away: the new owner reads it, too.
            if record.topic == Topic::Interactions && self.stores.contains_key(&record.partition) {
                records.entry(record.partition).or_default().push(record);
            }
        }
        let judged = self.judge_all(records, now_ms);
        // A movie may have been published just before its first interaction.
        if self.misses_a_movie(&judged) && !self.refresh_catalogue()? {
            return Ok(());
        }
        let begun = Instant::now();
        let records: usize = judged.values().map(Vec::len).sum();
        self.apply_all(judged, now_ms)?;
        tracing::debug!(
            records,
            commit_us = begun.elapsed().as_micros() as u64,
            "batch committed"
        );
        // A refusal to publish means that the process is stopping; the effect is durable.
        let _settled = self.settle()?;
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let movies = self.movies_are_due(now_ms);
        if self.unsettled
            || self.triggers.is_due(now_ms)
            || (self.copies_are_due(now_ms) && self.stores.values().any(Store::has_rows_to_copy))
            || (movies && self.stores.values().any(|store| store.has_outgoing(true)))
        {
            let _settled = self.settle()?;
        }
        if self.clock.now_ms().saturating_sub(self.catalogue_read_ms) >= self.config.catalogue_refresh_ms {
            let _read = self.refresh_catalogue()?;
        }
        Ok(())
    }
}

/// Maps items, all at once if that is wanted and there are several. A panic is passed on.
fn in_parallel<T: Send, R: Send>(
    workers: &rayon::ThreadPool,
    items: impl IntoIterator<Item = T>,
    wanted: bool,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let mut items: Vec<T> = items.into_iter().collect();
    // One of them on this thread, which has nothing else to do.
    let own = items.pop();
    if !wanted || items.is_empty() {
        return items.into_iter().chain(own).map(work).collect();
    }
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let mut last = None;
    workers.in_place_scope(|scope| {
        let work = &work;
        for (item, result) in items.into_iter().zip(&mut results) {
            scope.spawn(move |_| *result = Some(work(item)));
        }
        last = own.map(work);
    });
    results.into_iter().chain([last]).flatten().collect()
}

fn log_batch(partition: i32, applied: &Applied, next_offset: Option<i64>) {
    if applied.absent > 0 {
        tracing::warn!(
            kafka.topic = %Topic::Interactions,
            kafka.partition = partition,
            kafka.offset = next_offset,
            absent = applied.absent,
            "offsets without a record: marks of a transactional producer, or records that were lost"
        );
    }
    tracing::debug!(
        kafka.topic = %Topic::Interactions,
        kafka.partition = partition,
        kafka.offset = next_offset,
        applied = applied.applied,
        duplicate = applied.duplicate,
        dead_lettered = applied.dead_lettered,
        redelivered = applied.redelivered,
        "batch folded"
    );
}

fn log_counters(partition: i32, counters: &Counters) {
    tracing::info!(
        kafka.topic = %Topic::Interactions,
        kafka.partition = partition,
        kafka.offset = counters.next_offset(),
        records = counters.records(),
        applied = counters.applied,
        duplicate = counters.duplicate,
        dead_lettered = counters.refused(),
        erasures = counters.erasures,
        late = counters.late,
        absent = counters.absent,
        reconcile = counters.reconcile(),
        "feature store closed"
    );
}
