//! Online item-to-item transition counts: which item follows, precedes or accompanies which, learned event by event.
//!
//! For each event of a user and each of the user's previous events inside a window, a decayed count grows. Several
//! *kernels* are counted side by side (see [`Kernel`]), because "in the same sitting" and "directly after" carry
//! different news. Memory is bounded: each item keeps the heaviest [`TransitionParams::row_limit`] partners.
//!
//! Distance is measured in *moments*: previous events that share one time stamp have no order, so they are equally
//! far; events of the same time as the new one are at distance zero and count in both directions.

mod row;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::live::HistoryEntry;
use crate::live::decay::ForwardDecay;
use row::Row;

/// Number of kernels.
pub const KERNELS: usize = 4;

/// What a count means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Kernel {
    /// The partner came after, anywhere in the window, weighing `window_decay` per step.
    After = 0,
    /// The partner came directly after (weight 1/d for d up to 4).
    Next = 1,
    /// The partner came before, anywhere in the window.
    Before = 2,
    /// Both were likes, the partner came after.
    LikedAfter = 3,
}

/// Unchecked settings of [`Transitions`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransitionParams {
    /// Previous events looked at.
    pub window: usize,
    /// Weight lost per step of distance, in (0, 1].
    pub window_decay: f32,
    /// Half-life of a count, milliseconds.
    pub half_life_ms: i64,
    /// Partners kept per item.
    pub row_limit: usize,
}

impl Default for TransitionParams {
    fn default() -> Self {
        Self {
            window: 20,
            window_decay: 0.9,
            half_life_ms: 365 * 24 * 3_600_000,
            row_limit: 512,
        }
    }
}

impl TransitionParams {
    /// # Errors
    /// [`Error::Hyperparameter`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |name, value: String, requirement| {
            Err(Error::Hyperparameter {
                name,
                value,
                requirement,
            })
        };
        if self.window == 0 {
            return refuse("transitions.window", self.window.to_string(), "at least one");
        }
        if !(self.window_decay > 0.0 && self.window_decay <= 1.0) {
            return refuse(
                "transitions.window_decay",
                self.window_decay.to_string(),
                "within (0, 1]",
            );
        }
        if self.half_life_ms <= 0 {
            return refuse(
                "transitions.half_life_ms",
                self.half_life_ms.to_string(),
                "greater than zero",
            );
        }
        if self.row_limit == 0 {
            return refuse(
                "transitions.row_limit",
                self.row_limit.to_string(),
                "at least one",
            );
        }
        Ok(())
    }
}

/// The counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transitions {
    params: TransitionParams,
    decay: ForwardDecay,
    rows: Vec<Row>,
}

impl Transitions {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] when a setting is out of its domain.
    pub fn new(params: TransitionParams) -> Result<Self, Error> {
        params.check()?;
        Ok(Self {
            decay: ForwardDecay::new(params.half_life_ms),
            params,
            rows: Vec::new(),
        })
    }

    /// Learns from `event`, which comes after every entry of `history` (oldest first) or at the time of its last.
    pub fn observe(&mut self, history: &[HistoryEntry], event: &HistoryEntry) {
        let factor = self.decay.weight(event.time_ms);
        if let Some(scale) = factor.rescale {
            for row in &mut self.rows {
                row.scale(scale as f32);
            }
        }
        let unit = factor.weight as f32;
        let like = event.is_like();
        let limit = self.params.row_limit;
        let mut distance = Distance::from(event.time_ms);
        for previous in history.iter().rev().take(self.params.window) {
            let steps = distance.of(previous.time_ms);
            if previous.item == event.item {
                continue;
            }
            let wide = unit * self.params.window_decay.powi(steps.max(1) - 1);
            let near = if steps <= 4 {
                unit / steps.max(1) as f32
            } else {
                0.0
            };
            let liked = if like && previous.is_like() { wide } else { 0.0 };
            self.add(previous.item, event.item, [wide, near, 0.0, liked], limit);
            self.add(event.item, previous.item, [0.0, 0.0, wide, 0.0], limit);
            if steps == 0 {
                self.add(event.item, previous.item, [wide, near, 0.0, liked], limit);
                self.add(previous.item, event.item, [0.0, 0.0, wide, 0.0], limit);
            }
        }
    }

    fn add(&mut self, from: u32, to: u32, weights: [f32; KERNELS], limit: usize) {
        let index = from as usize;
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, Row::default);
        }
        self.rows[index].add(to, weights, limit);
    }

    /// Adds the evidence of one history item to `out` (scores by kernel, each partner's where `place` says): `scale[k]`
    /// times the share of that kernel's mass that leads from `item` to each partner. The smoothing `prior` (in decayed
    /// events) keeps rarely seen items from speaking as loudly as often seen ones.
    pub fn accumulate(
        &self,
        item: u32,
        now_ms: i64,
        prior: f32,
        scale: [f32; KERNELS],
        place: impl Fn(u32) -> usize,
        out: &mut [[f32; KERNELS]],
    ) {
        let Some(row) = self.rows.get(item as usize) else {
            return;
        };
        let unit = self.decay.read_factor(now_ms) as f32;
        let factors: [f32; KERNELS] = std::array::from_fn(|kernel| {
            scale[kernel] * unit / (unit * row.mass(kernel) + prior).max(f32::MIN_POSITIVE)
        });
        row.for_each(|partner, weights| {
            if let Some(scores) = out.get_mut(place(partner)) {
                for ((score, factor), weight) in scores.iter_mut().zip(factors).zip(weights) {
                    *score += factor * weight;
                }
            }
        });
    }

    /// As [`Self::accumulate`], for one kernel and with scale 1.
    pub fn accumulate_one(
        &self,
        item: u32,
        now_ms: i64,
        prior: f32,
        kernel: Kernel,
        place: impl Fn(u32) -> usize,
        out: &mut [f32],
    ) {
        let Some(row) = self.rows.get(item as usize) else {
            return;
        };
        let unit = self.decay.read_factor(now_ms) as f32;
        let factor = unit / (unit * row.mass(kernel as usize) + prior).max(f32::MIN_POSITIVE);
        row.for_each(|partner, weights| {
            if let Some(score) = out.get_mut(place(partner)) {
                *score += factor * weights[kernel as usize];
            }
        });
    }

    /// Decayed count from `from` to `to` under one kernel at `now_ms`.
    #[must_use]
    pub fn count(&self, from: u32, to: u32, kernel: Kernel, now_ms: i64) -> f32 {
        self.rows
            .get(from as usize)
            .and_then(|row| row.get(to))
            .map_or(0.0, |weights| {
                weights[kernel as usize] * self.decay.read_factor(now_ms) as f32
            })
    }

    /// Partners kept for an item, ascending.
    #[must_use]
    pub fn partners(&self, item: u32) -> &[u32] {
        self.rows.get(item as usize).map_or(&[], Row::partners)
    }
}

/// Counts moments backwards: how many different time stamps lie between an entry and the present.
pub(crate) struct Distance {
    time_ms: i64,
    steps: i32,
}

impl Distance {
    /// Starts at the moment `time_ms`, which is distance zero.
    pub(crate) fn from(time_ms: i64) -> Self {
        Self { time_ms, steps: 0 }
    }

    /// Distance of the next older entry.
    pub(crate) fn of(&mut self, time_ms: i64) -> i32 {
        if time_ms != self.time_ms {
            self.time_ms = time_ms;
            self.steps += 1;
        }
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(item: u32, time_ms: i64) -> HistoryEntry {
        HistoryEntry::like(item, time_ms)
    }

    #[test]
    fn the_nearer_of_two_predecessors_counts_more() {
        let mut transitions = Transitions::new(TransitionParams::default()).unwrap();
        let history = [entry(1, 0), entry(2, 1)];
        transitions.observe(&history, &entry(3, 2));
        assert_eq!(transitions.count(2, 3, Kernel::After, 2), 1.0);
        assert!((transitions.count(1, 3, Kernel::After, 2) - 0.9).abs() < 1e-6);
        assert_eq!(transitions.count(1, 3, Kernel::Next, 2), 0.5);
        assert_eq!(transitions.count(3, 2, Kernel::After, 2), 0.0);
        assert_eq!(transitions.count(3, 2, Kernel::Before, 2), 1.0);
    }

    #[test]
    fn events_of_one_moment_count_both_ways() {
        let mut transitions = Transitions::new(TransitionParams::default()).unwrap();
        transitions.observe(&[entry(1, 5)], &entry(2, 5));
        assert_eq!(transitions.count(1, 2, Kernel::After, 5), 1.0);
        assert_eq!(transitions.count(2, 1, Kernel::After, 5), 1.0);
    }

    #[test]
    fn a_row_keeps_its_heaviest_partners() {
        let params = TransitionParams {
            row_limit: 4,
            ..TransitionParams::default()
        };
        let mut transitions = Transitions::new(params).unwrap();
        for _ in 0..3 {
            transitions.observe(&[entry(0, 0)], &entry(1, 1));
        }
        for partner in 2..40 {
            transitions.observe(&[entry(0, 0)], &entry(partner, 1));
        }
        assert!(transitions.partners(0).len() <= 5);
        assert_eq!(transitions.count(0, 1, Kernel::After, 1), 3.0);
    }
}
