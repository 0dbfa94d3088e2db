//! From the partitions' observations to windows, each observation in exactly one.

use std::collections::{BTreeMap, VecDeque};

use crate::drift::{CutWindow, Cutter, DriftConfig, Observation};
use crate::store::SEGMENT;
use crate::{Error, Segment, Store};

/// Where observations come from.
pub trait ObservationSource {
    /// The partitions at hand.
    fn partitions(&self) -> Vec<i32>;

    /// Observations ever made in a partition.
    fn observed(&self, partition: i32) -> u64;

    /// The newest segments of a partition, those from number `from` on, as far as they are kept.
    ///
    /// # Errors
    /// The file cannot be read.
    fn observations(&self, partition: i32, from: u64) -> Result<Vec<Segment>, Error>;
}

impl ObservationSource for BTreeMap<i32, Store> {
    fn partitions(&self) -> Vec<i32> {
        self.keys().copied().collect()
    }

    fn observed(&self, partition: i32) -> u64 {
        self.get(&partition).map_or(0, Store::observed)
    }

    fn observations(&self, partition: i32, from: u64) -> Result<Vec<Segment>, Error> {
        match self.get(&partition) {
            Some(store) => store.observations(from..u64::MAX),
            None => Ok(Vec::new()),
        }
    }
}

/// A window and where the next one begins.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) window: CutWindow,
    /// By partition: the first segment that is in no window yet.
    pub(super) consumed: BTreeMap<i32, u64>,
}

/// Gathers whole segments, by event time over the partitions. What it holds is not durable: after a restart, and
/// when partitions come or go, it is gathered again from where the last closed window ended.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    cutter: Cutter,
    next: BTreeMap<i32, u64>,
}

impl Gatherer {
    /// Takes what is new; gives the windows that it completes.
    pub(super) fn gather(
        &mut self,
        config: &DriftConfig,
        consumed: &BTreeMap<i32, u64>,
        source: &dyn ObservationSource,
    ) -> Result<Vec<Closed>, Error> {
        let partitions = source.partitions();
        if !self.next.keys().eq(&partitions) {
            self.cutter = Cutter::default();
            self.next = partitions
                .iter()
                .map(|&partition| (partition, consumed.get(&partition).copied().unwrap_or(0)))
                .collect();
        }
        let mut waiting: BTreeMap<i32, VecDeque<Segment>> = BTreeMap::new();
        for (&partition, next) in &mut self.next {
            let complete = source.observed(partition) / SEGMENT;
            if complete <= *next {
                continue;
            }
            let mut segments: VecDeque<Segment> = source.observations(partition, *next)?.into();
            segments.retain(|segment| segment.number < complete);
            if let Some(first) = segments.front()
                && first.number > *next
            {
                tracing::warn!(
                    kafka.partition = partition,
                    segments = first.number - *next,
                    "observations went before they were looked at"
                );
            }
            *next = complete;
            waiting.insert(partition, segments);
        }
        // Where each partition stands after what has been put into a window.
        let mut reached: BTreeMap<i32, u64> = self
            .next
            .iter()
            .map(|(&partition, &next)| {
                let first = waiting.get(&partition).and_then(VecDeque::front);
                (partition, first.map_or(next, |segment| segment.number))
            })
            .collect();
        let mut closed = Vec::new();
        while let Some((partition, segment)) = pop_earliest(&mut waiting) {
            reached.insert(partition, segment.number + 1);
            if let Some(window) = self.cutter.push(config, &segment.observations) {
                let mut consumed = consumed.clone();
                consumed.extend(&reached);
                closed.push(Closed { window, consumed });
            }
        }
        Ok(closed)
    }
}

/// The segment that begins at the earliest event time.
fn pop_earliest(waiting: &mut BTreeMap<i32, VecDeque<Segment>>) -> Option<(i32, Segment)> {
    let begins = |segment: &Segment| {
        segment
            .observations
            .iter()
            .map(|seen| seen.timestamp_ms)
            .find(|&at| at > 0)
    };
    let (&partition, _) = waiting
        .iter()
        .filter_map(|(partition, segments)| Some((partition, segments.front().map(begins)?)))
        .min_by_key(|&(_, begin)| begin)?;
    let segment = waiting.get_mut(&partition)?.pop_front()?;
    Some((partition, segment))
}

/// What a training that read up to `offsets` (a missing partition: everything) saw last: the newest observations with
/// about `config.reference_events` history events in them. If too little of it is still kept, the oldest that is.
pub(super) fn reference(
    config: &DriftConfig,
    offsets: &BTreeMap<i32, i64>,
    source: &dyn ObservationSource,
) -> Result<Vec<Observation>, Error> {
    let (mut seen, mut later) = (Vec::new(), Vec::new());
    for partition in source.partitions() {
        let end = offsets.get(&partition).copied().unwrap_or(i64::MAX);
        for segment in source.observations(partition, 0)? {
            for (offset, observation) in (segment.first_offset..).zip(segment.observations) {
                if offset < end {
                    seen.push(observation);
                } else {
                    later.push(observation);
                }
            }
        }
    }
    let history =
        |observations: &[Observation]| observations.iter().filter(|seen| seen.is_history()).count() as u64;
    if history(&seen) < config.window_events {
        tracing::warn!(
            kept = seen.len(),
            "most of what the champion was trained on is no longer kept: drift is measured from what came next"
        );
        later.sort_by_key(|observation| observation.timestamp_ms);
        let mut left = config.reference_events.saturating_sub(history(&seen));
        seen.extend(later.into_iter().take_while(|observation| {
            let wanted = left > 0;
            left = left.saturating_sub(u64::from(observation.is_history()));
            wanted
        }));
        return Ok(seen);
    }
    seen.sort_by_key(|observation| observation.timestamp_ms);
    let mut left = config.reference_events;
    let begin = seen
        .iter()
        .rposition(|observation| {
            left = left.saturating_sub(u64::from(observation.is_history()));
            left == 0
        })
        .unwrap_or(0);
    Ok(seen.split_off(begin))
}
