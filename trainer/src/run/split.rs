//! Which interactions are held out.

use marquee_models::live::Interaction;
use marquee_schemas::{PartitionOffset, Topic};

use crate::bundle::Split;
use crate::snapshot::{Snapshot, bounds_of};

/// Interactions divided into what is learned from and what is asked for, both ordered by time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Holdout {
    /// Learned from.
    pub train: Vec<Interaction>,
    /// Asked for.
    pub test: Vec<Interaction>,
    /// How they were divided; with the snapshot it gives the same holdout again.
    pub split: Split,
}

/// The rule without a champion.
const TIME: &str = "time";
/// The rule with one.
const UNSEEN: &str = "unseen_by_champion";

impl Holdout {
    /// Divides a snapshot by the rule of the [module](crate::run): `learned` are the champion's offsets, `share` the
    /// most that may be held out.
    #[must_use]
    pub fn of(snapshot: &Snapshot, learned: Option<&[PartitionOffset]>, share: f64) -> Self {
        let all = &snapshot.interactions;
        let most = (all.len() as f64 * share).round() as usize;
        let (train, test): (Vec<_>, Vec<_>) = match learned {
            None => {
                // Interactions of one moment are never torn apart: their order means nothing.
                let boundary = all.len().saturating_sub(most);
                let cut = all.get(boundary).map_or(all.len(), |first| {
                    all.partition_point(|event| event.time_ms < first.time_ms)
                });
                (all[..cut].to_vec(), all[cut..].to_vec())
            }
            Some(learned) => {
                let learned = bounds_of(learned, Topic::Interactions);
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
                    let of_side = all
                        .iter()
                        .zip(&held_out)
                        .filter(move |&(_, &held)| held == wanted);
                    of_side.map(|(event, _)| *event).collect()
                };
                (pick(false), pick(true))
            }
        };
        Self {
            split: Split {
                rule: if learned.is_some() { UNSEEN } else { TIME }.to_owned(),
                share,
                learned: learned.unwrap_or_default().to_vec(),
                train: train.len() as u64,
                test: test.len() as u64,
                test_from_ms: test.first().map(|event| event.time_ms),
            },
            train,
            test,
        }
    }

    /// Divides a snapshot again as a manifest says it was divided.
    #[must_use]
    pub fn again(snapshot: &Snapshot, split: &Split) -> Self {
        let learned = (split.rule == UNSEEN).then_some(split.learned.as_slice());
        Self::of(snapshot, learned, split.share)
    }
}
