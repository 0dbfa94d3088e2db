//! What the other services say, on its way to the coordinator.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use marquee_runtime::bus::{Handler, RawRecord, Start};
use marquee_schemas::Topic;

/// The topics that the coordinator listens to. Every process that decides reads all of them.
pub const SIGNAL_TOPICS: [Topic; 3] = [Topic::RetrainEvents, Topic::ModelEvents, Topic::QualityMetrics];

/// Batches on the way; when there are more, reading waits.
const IN_TRANSIT: usize = 16;

/// Where the coordinator left off, by topic and partition.
pub type Positions = BTreeMap<(Topic, i32), i64>;

/// Reads the topics and passes the records on. The positions are the coordinator's: what it has not made durable is
/// read again.
#[derive(Debug)]
pub struct SignalReader {
    positions: Positions,
    sender: SyncSender<Vec<RawRecord>>,
}

/// The coordinator's end.
#[derive(Debug)]
pub struct Signals {
    receiver: Receiver<Vec<RawRecord>>,
    arrived: Vec<RawRecord>,
}

/// A reader that begins at `positions` (a missing one: the start of the topic) and its other end.
#[must_use]
pub fn signals(positions: Positions) -> (SignalReader, Signals) {
    let (sender, receiver) = sync_channel(IN_TRANSIT);
    let signals = Signals {
        receiver,
        arrived: Vec::new(),
    };
    (SignalReader { positions, sender }, signals)
}

impl Handler for SignalReader {
    type Error = Infallible;

    fn assigned(&mut self, topic: Topic, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, Infallible> {
        Ok(partitions
            .iter()
            .map(|&partition| {
                let start = self.positions.get(&(topic, partition));
                (partition, start.map_or(Start::Earliest, |&next| Start::At(next)))
            })
            .collect())
    }

    fn handle(&mut self, batch: Vec<RawRecord>) -> Result<(), Infallible> {
        // The receiver is gone only if the processor has ended, and nobody decides any longer.
        drop(self.sender.send(batch));
        Ok(())
    }
}

impl Signals {
    /// Whether something has arrived since it was last taken.
    pub(super) fn any(&mut self) -> bool {
        self.arrived.extend(self.receiver.try_iter().flatten());
        !self.arrived.is_empty()
    }

    /// What has arrived since the last call.
    pub(super) fn take(&mut self) -> Vec<RawRecord> {
        self.arrived.extend(self.receiver.try_iter().flatten());
        std::mem::take(&mut self.arrived)
    }
}
