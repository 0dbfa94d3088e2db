//! Which interactions are held out.

use marquee_models::live::Interaction;
use marquee_schemas::Topic;

use crate::bundle::{Bundle, Split};
use crate::snapshot::{Snapshot, bounds_of};

/// Interactions divided into what is learned from and what is asked for, both ordered by time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Holdout {
    /// Learned from.
    pub train: Vec<Interaction>,
    /// Asked for.
    pub test: Vec<Interaction>,
    /// Name of the rule, see [`Split::rule`].
    pub rule: &'static str,
}

impl Holdout {
    pub(super) fn describe(&self) -> Split {
        Split {
            rule: self.rule.to_owned(),
            train: self.train.len() as u64,
            test: self.test.len() as u64,
            test_from_ms: self.test.first().map(|event| event.time_ms),
        }
    }
}

/// Divides a snapshot by the rule of the [module](crate::run).
pub(super) fn hold_out(snapshot: &Snapshot, champion: Option<&Bundle>, share: f64) -> Holdout {
    let all = &snapshot.interactions;
    let most = (all.len() as f64 * share).round() as usize;
    let Some(champion) = champion else {
        // Interactions of one moment are never torn apart: their order means nothing.
        let boundary = all.len().saturating_sub(most);
        let cut = all.get(boundary).map_or(all.len(), |first| {
            all.partition_point(|event| event.time_ms < first.time_ms)
        });
        return Holdout {
            train: all[..cut].to_vec(),
            test: all[cut..].to_vec(),
            rule: "time",
        };
    };
    let learned = bounds_of(&champion.manifest.offsets, Topic::Interactions);
    let unseen: Vec<usize> = (0..all.len())
        .filter(|&index| {
            let (partition, offset) = snapshot.origins[index];
            learned.get(&partition).is_none_or(|&end| offset >= end)
        })
        .collect();
    let count = most.min(unseen.len().div_ceil(2));
    let mut held_out = vec![false; all.len()];
    for &index in &unseen[unseen.len() - count..] {
        held_out[index] = true;
    }
    let pick = |wanted: bool| {
        all.iter()
            .zip(&held_out)
            .filter(|&(_, &held)| held == wanted)
            .map(|(event, _)| *event)
            .collect()
    };
    Holdout {
        train: pick(false),
        test: pick(true),
        rule: "unseen_by_champion",
    }
}
