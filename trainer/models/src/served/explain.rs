//! Why an item stands where it stands.

use super::ServedModel;
use super::blend::spread;
use super::context::{Context, Query, ScoreScratch};
use super::features::{self, NAMES, PAIRWISE};
use crate::live::HistoryEntry;

/// One source's part in a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Stable name of the source.
    pub source: &'static str,
    /// Its raw value for the item.
    pub value: f32,
    /// What it adds to the blended score.
    pub contribution: f32,
}

/// The history item that speaks loudest for a suggestion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// Live dense index of the history item.
    pub item: u32,
    /// Its share of the pairwise part of the score, 0 to 1.
    pub share: f32,
}

/// The parts of one score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Explanation {
    /// Terms that are not zero, largest contribution first.
    pub terms: Vec<Term>,
    /// The history item that contributed most; `None` when no history item did.
    pub because: Option<Reason>,
}

/// Newest history entries that are asked for their part.
const ASKED: usize = 20;

impl ServedModel {
    /// Takes the blended score of `item` (live index) apart. Where a ranker re-orders the best candidates, these are
    /// the terms that made the item a candidate.
    pub fn explain(&self, query: &Query<'_>, item: u32, scratch: &mut ScoreScratch) -> Explanation {
        let place = item as usize;
        if place >= query.binding.len() {
            return Explanation::default();
        }
        features::compute(&self.generators, query, scratch);
        let spreads: Vec<f32> = scratch.columns.iter().map(|column| spread(column)).collect();
        let mut terms: Vec<Term> = (0..NAMES.len())
            .map(|column| Term {
                source: NAMES[column],
                value: scratch.columns[column][place],
                contribution: self.params.blend.weight(column, query) * scratch.columns[column][place]
                    / spreads[column],
            })
            .filter(|term| term.contribution != 0.0)
            .collect();
        terms.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));

        let mut best: Option<(f32, HistoryEntry)> = None;
        let mut total = 0.0;
        for entry in query.context.history.iter().rev().take(ASKED) {
            let alone = [HistoryEntry {
                time_ms: query.now_ms,
                ..*entry
            }];
            let alone = Query {
                context: Context::of_history(&alone),
                ..*query
            };
            features::compute_pairwise(&self.generators, &alone, scratch);
            let part: f32 = PAIRWISE
                .map(|column| {
                    self.params.blend.weight(column, query) * scratch.columns[column][place] / spreads[column]
                })
                .sum();
            total += part.max(0.0);
            if part > 0.0 && best.is_none_or(|(most, _)| part > most) {
                best = Some((part, *entry));
            }
        }
        Explanation {
            terms,
            because: best.map(|(part, entry)| Reason {
                item: entry.item,
                share: part / total,
            }),
        }
    }
}
