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
    /// Takes the blended scores of `items` (live indices) apart, in their order. Where a ranker re-orders the best
    /// candidates, these are the terms that made an item a candidate. Costs one scoring pass, and for each history entry
    /// asked what it leads to.
    pub fn explain(&self, query: &Query<'_>, items: &[u32], scratch: &mut ScoreScratch) -> Vec<Explanation> {
        let weight = |column| self.params.blend.weight(column, query);
        let weighs = |column| weight(column) != 0.0;
        if self.pools(query) {
            features::compute_pool(&self.generators, query, weighs, items, scratch);
        } else {
            features::compute(&self.generators, query, weighs, scratch);
        }
        let moments = scratch.moments.iter().enumerate();
        let factors: Vec<f32> = moments
            .map(|(column, &(_, variance))| weight(column) / spread(variance))
            .collect();
        let mut parts: Vec<Parts> = items
            .iter()
            .map(|&item| Parts::of(item, &factors, scratch))
            .collect();
        for entry in query.context.history.iter().rev().take(ASKED) {
            let alone = [HistoryEntry {
                time_ms: query.now_ms,
                ..*entry
            }];
            let alone = Query {
                context: Context::of_history(&alone),
                ..*query
            };
            let reads = |column: usize| factors[column] != 0.0;
            features::compute_pairwise_of(items, &self.generators, &alone, reads, scratch);
            for parts in &mut parts {
                parts.ask(entry.item, &factors, scratch);
            }
        }
        parts.into_iter().map(Parts::explanation).collect()
    }
}

/// What is found out about one item.
struct Parts {
    item: u32,
    terms: Vec<Term>,
    /// The history item that says most for it, with how much.
    best: Option<(f32, u32)>,
    /// What all asked history items say for it.
    total: f32,
}

impl Parts {
    fn of(item: u32, factors: &[f32], scratch: &ScoreScratch) -> Self {
        let place = scratch.place(item);
        let mut terms: Vec<Term> = scratch
            .columns
            .iter()
            .zip(factors)
            .zip(NAMES)
            .filter_map(|((column, factor), &source)| {
                let value = *column.get(place)?;
                Some(Term {
                    source,
                    value,
                    contribution: factor * value,
                })
            })
            .filter(|term| term.contribution != 0.0)
            .collect();
        terms.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
        Self {
            item,
            terms,
            best: None,
            total: 0.0,
        }
    }

    /// Notes what history item `item` says, of which the columns tell alone.
    fn ask(&mut self, item: u32, factors: &[f32], scratch: &ScoreScratch) {
        let place = scratch.place(self.item);
        let part: f32 = PAIRWISE
            .filter_map(|column| Some(factors[column] * scratch.columns[column].get(place)?))
            .sum();
        self.total += part.max(0.0);
        if part > 0.0 && self.best.is_none_or(|(most, _)| part > most) {
            self.best = Some((part, item));
        }
    }

    fn explanation(self) -> Explanation {
        Explanation {
            terms: self.terms,
            because: self.best.map(|(part, item)| Reason {
                item,
                share: part / self.total,
            }),
        }
    }
}
