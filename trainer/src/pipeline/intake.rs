//! What a batch of raw records says.

use std::collections::{BTreeMap, HashSet};

use marquee_runtime::bus::{Outgoing, RawRecord};
use marquee_schemas::{
    DeadLetter, DecodeError, ModelCommand, QualityMetric, Reason, RetrainEvent, Topic, decode,
};

use crate::registry::{Intake, RegistryState};

/// A batch, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) intake: Intake,
    /// Records that cannot be read.
    pub(super) dead: Vec<Outgoing>,
}

/// Leaves out what `state` has taken before, by position or by id.
pub(super) fn sort(batch: &[RawRecord], state: &RegistryState, now_ms: i64) -> Sorted {
    let mut sorted = Sorted::default();
    let mut ids: HashSet<String> = HashSet::new();
    let mut is_new = |id: &str| {
        let new = !state.knows(id) && ids.insert(id.to_owned());
        if !new {
            tracing::info!(id, "answered before");
        }
        new
    };
    for record in batch {
        let taken = state.position(record.topic, record.partition);
        if taken.is_some_and(|next| record.offset < next) {
            continue;
        }
        let positions: &mut BTreeMap<i32, i64> = sorted.intake.positions.entry(record.topic).or_default();
        positions.insert(record.partition, record.next_offset());
        let bytes = record.value.as_deref().unwrap_or_default();
        let refused = match record.topic {
            Topic::ModelCommands => decode::<ModelCommand>(bytes).map(|command| {
                if is_new(&command.command_id) {
                    sorted.intake.commands.push(command);
                }
            }),
            Topic::QualityMetrics => decode::<QualityMetric>(bytes).map(|figure| {
                sorted.intake.figures.push(figure);
            }),
            _ => decode::<RetrainEvent>(bytes).map(|event| {
                if is_new(&event.event_id) {
                    sorted.intake.retrains.push(event);
                }
            }),
        };
        if let Err(error) = refused {
            sorted.dead.push(dead_letter(record, &error, now_ms));
        }
    }
    sorted
}

fn dead_letter(record: &RawRecord, error: &DecodeError, now_ms: i64) -> Outgoing {
    let reason = match &record.value {
        Some(value) if !value.is_empty() => error.reason(),
        _ => Reason::Empty,
    };
    let detail = error.to_string();
    Outgoing::of(&DeadLetter::of(
        "trainer",
        &record.origin(),
        reason,
        &detail,
        now_ms,
    ))
}
