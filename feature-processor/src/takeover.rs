//! Taking a partition over from another process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use marquee_runtime::bus::RawRecord;
use marquee_runtime::{Bus, BusError};
use marquee_schemas::Topic;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::store::restore::{Restoring, marked};

/// Where the rows are that earlier owners have copied.
pub trait RowSource: Send {
    /// The last record of a partition, if it is there.
    ///
    /// # Errors
    /// A failure that no retry mends.
    fn last(&mut self, partition: i32) -> Result<Option<RawRecord>, Error>;

    /// All records of a partition in order. Fewer, if the processor is stopping: what is read is checked.
    ///
    /// # Errors
    /// A failure that no retry mends.
    fn read(&mut self, partition: i32, each: &mut dyn FnMut(RawRecord)) -> Result<(), Error>;
}

/// Replaces the partition's file by what its owners have copied, if that is newer than `own`, the file's next offset.
/// Says whether it did.
pub(crate) fn restore(
    source: &mut dyn RowSource,
    folder: &Path,
    partition: i32,
    own: Option<i64>,
) -> Result<bool, Error> {
    let Some(last) = source.last(partition)? else {
        return Ok(false);
    };
    let is_newer = |reached: i64| own.is_none_or(|own| own < reached);
    // A copy ends with its mark: usually the last record says that there is nothing to do.
    if marked(&last).is_some_and(|reached| !is_newer(reached)) {
        return Ok(false);
    }
    let mut rows = Restoring::default();
    source.read(partition, &mut |record| rows.take(&record))?;
    let Some(reached) = rows.reached().filter(|&reached| is_newer(reached)) else {
        return Ok(false);
    };
    let restored = rows.write(folder, partition)?;
    if restored {
        tracing::info!(
            kafka.partition = partition,
            kafka.offset = reached,
            own,
            "feature store restored from its rows"
        );
    } else {
        tracing::warn!(
            kafka.partition = partition,
            own,
            "the rows of the feature store are not complete: it is folded from the log"
        );
    }
    Ok(restored)
}

/// The topic of rows.
#[derive(Debug)]
pub struct TopicRows {
    bus: Bus,
    stopping: CancellationToken,
}

const RETRY: Duration = Duration::from_millis(200);

impl TopicRows {
    /// Waits for a broker that is away until `stopping` is cancelled.
    #[must_use]
    pub fn new(bus: Bus, stopping: CancellationToken) -> Self {
        Self { bus, stopping }
    }

    /// Reads the partition from `begin`, which is given its bounds.
    fn read_from(
        &self,
        partition: i32,
        begin: impl Fn(i64, i64) -> i64,
        each: &mut dyn FnMut(RawRecord),
    ) -> Result<(), BusError> {
        let bounds = self.bus.watermarks_blocking(Topic::FeatureRows)?;
        let ends = bounds.ends();
        // The others are read from their ends to their ends.
        let mut from = ends.clone();
        if let Some(&(low, high)) = bounds.0.get(&partition) {
            from.insert(partition, begin(low, high));
        }
        self.bus
            .read_range(Topic::FeatureRows, &from, &ends, |record| {
                each(record);
                Ok::<(), Infallible>(())
            })
            .map(|_: BTreeMap<i32, i64>| ())
    }

    /// Does it until the broker answers, or until the processor is stopping.
    fn insist(&self, mut ask: impl FnMut() -> Result<(), BusError>) -> Result<(), Error> {
        loop {
            match ask() {
                Err(error) if error.is_transient() => {
                    if self.stopping.is_cancelled() {
                        return Ok(());
                    }
                    tracing::warn!(%error, "reading the feature store's rows failed, trying again");
                    std::thread::sleep(RETRY);
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

impl RowSource for TopicRows {
    fn last(&mut self, partition: i32) -> Result<Option<RawRecord>, Error> {
        let mut last = None;
        self.insist(|| {
            self.read_from(partition, |low, high| low.max(high - 1), &mut |record| {
                last = Some(record)
            })
        })?;
        Ok(last)
    }

    fn read(&mut self, partition: i32, each: &mut dyn FnMut(RawRecord)) -> Result<(), Error> {
        // Read again from the beginning after a failure: rows that come twice change nothing.
        self.insist(|| self.read_from(partition, |low, _| low, each))
    }
}
