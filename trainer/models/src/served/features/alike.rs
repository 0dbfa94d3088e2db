//! What people alike did at this point.
//!
//! Session-based nearest neighbours: Jannach, Ludewig, "When recurrent neural networks meet the neighborhood for
//! session-based recommendation" (RecSys 2017, §3.1), with the recency of STAN (Garg, Gupta, Malhotra, Vig, Shroff,
//! SIGIR 2019, §3): of those who lately came to the items of the recent history, the ones with the most and the
//! nearest in common speak for what they met around the common item.

use super::Column;
use crate::live::HistoryEntry;
use crate::metrics::{rank_key, ranked_index};
use crate::served::context::{Query, ScoreScratch};
use crate::transitions::Distance;

/// Newest entries of the history that are matched.
const MATCHED: usize = 20;
/// Weight lost per moment into the past.
const MATCH_DECAY: f32 = 0.9;
/// Weight of a match on which opinions differ.
const DISAGREEMENT: f32 = 0.5;
/// Neighbours that speak.
const NEIGHBOURS: usize = 100;
/// Entries around the common item that are looked at, on each side; what lies further away said nothing more.
const REACH: usize = 60;
/// Weight lost per entry after the common item: what comes next.
const NEXT_DECAY: f32 = 0.85;
/// Weight lost per entry on either side of it: what is near.
const NEAR_DECAY: f32 = 0.96;
/// Weight of what a neighbour did not like.
const UNLIKED: f32 = 0.4;
/// Half-life of a neighbour's word where only the news counts, milliseconds: one week.
const FRESH_HALF_LIFE_MS: f32 = 7.0 * 24.0 * 3_600_000.0;

/// What is known of one person while neighbours are looked for.
#[derive(Debug, Clone, Copy, Default)]
struct Likeness {
    sum: f32,
    /// Time of the neighbour's visit to the newest common item.
    met_ms: i64,
}

/// Buffers of the search.
#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbours {
    /// By user; all zero between searches.
    likeness: Vec<Likeness>,
    /// Users who have something in common, as sort keys: likeness, then index.
    found: Vec<u64>,
}

impl Neighbours {
    /// Leaves in `found` whoever has something in common.
    fn find(&mut self, query: &Query<'_>) {
        self.found.clear();
        let live = query.live;
        if self.likeness.len() < live.users() {
            self.likeness.resize(live.users(), Likeness::default());
        }
        let Some(last) = query.context.history.last() else {
            return;
        };
        let users = live.users() as f32;
        let mut distance = Distance::from(last.time_ms);
        for entry in query.context.history.iter().rev().take(MATCHED) {
            let visits = live.visits(entry.item);
            let rarity = (1.0 + users / (1.0 + visits.len() as f32)).ln();
            let weight = MATCH_DECAY.powi(distance.of(entry.time_ms)) * rarity;
            let like = entry.is_like();
            for visit in visits {
                if Some(visit.user) == query.context.user {
                    continue;
                }
                let Some(likeness) = self.likeness.get_mut(visit.user as usize) else {
                    continue;
                };
                if likeness.sum == 0.0 {
                    likeness.met_ms = visit.time_ms;
                    self.found.push(u64::from(visit.user));
                }
                likeness.sum += if visit.like == like {
                    weight
                } else {
                    weight * DISAGREEMENT
                };
            }
        }
    }

    /// Keeps the [`NEIGHBOURS`] people most alike, in a fixed order.
    fn choose(&mut self) {
        if self.found.len() <= NEIGHBOURS {
            self.found.sort_unstable();
            return;
        }
        for key in &mut self.found {
            *key = rank_key(self.likeness[*key as usize].sum, ranked_index(*key));
        }
        self.found.select_nth_unstable(NEIGHBOURS - 1);
        for key in self.found.drain(NEIGHBOURS..) {
            self.likeness[ranked_index(key) as usize] = Likeness::default();
        }
        for key in &mut self.found {
            *key = u64::from(ranked_index(*key));
        }
        self.found.sort_unstable();
    }

    fn clear(&mut self) {
        for user in self.found.drain(..) {
            self.likeness[user as usize] = Likeness::default();
        }
    }
}

pub(super) fn fill(query: &Query<'_>, scratch: &mut ScoreScratch) {
    if query.context.history.is_empty() {
        return;
    }
    scratch.begin_fours();
    let (search, fours) = (&mut scratch.alike, &mut scratch.fours);
    search.find(query);
    search.choose();
    // The columns side by side: next, near, fresh, ever.
    let mut add = |item: u32, word: f32, weights: [f32; 4]| {
        if let Some(scores) = fours.get_mut(item as usize) {
            for (score, weight) in scores.iter_mut().zip(weights) {
                *score += word * weight;
            }
        }
    };
    for &user in &search.found {
        let Likeness { sum, met_ms } = search.likeness[user as usize];
        let history = query.live.history(user as u32);
        let (before, after) = history.split_at(history.partition_point(|entry| entry.time_ms <= met_ms));
        let age = (query.now_ms - met_ms).max(0) as f32 / FRESH_HALF_LIFE_MS;
        let freshness = (-age).exp2();
        let word = |entry: &HistoryEntry| if entry.is_like() { sum } else { sum * UNLIKED };
        let (mut next, mut near) = (1.0, 1.0);
        for entry in after.iter().take(REACH) {
            add(entry.item, word(entry), [next, near, near * freshness, 1.0]);
            next *= NEXT_DECAY;
            near *= NEAR_DECAY;
        }
        near = 1.0;
        for entry in before.iter().rev().take(REACH) {
            add(entry.item, word(entry), [0.0, near, near * freshness, 1.0]);
            near *= NEAR_DECAY;
        }
    }
    search.clear();
    scratch.end_fours(Column::AlikeNext as usize);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Interaction, LiveParams, LiveState};
    use crate::served::context::Context;
    use crate::served::{Binding, Catalogue, CatalogueItem};

    fn live(walks: &[(u32, &[u32])]) -> LiveState {
        let mut live = LiveState::new(LiveParams::default()).unwrap();
        for &(user, items) in walks {
            for (step, &item) in items.iter().enumerate() {
                live.observe(&Interaction {
                    user,
                    item,
                    rating: Some(5.0),
                    weight: 1.0,
                    time_ms: i64::from(user) * 1_000_000 + step as i64 * 1000,
                });
            }
        }
        live
    }

    fn columns(live: &LiveState, user: u32) -> Vec<Vec<f32>> {
        let item = |id| CatalogueItem {
            external_id: id,
            ..CatalogueItem::default()
        };
        let catalogue = Catalogue::new((0..10).map(item).collect());
        let binding = Binding::new(&catalogue, &catalogue.external_ids(), Some(&catalogue));
        let query = Query {
            binding: &binding,
            live,
            context: Context::of_user(live, user),
            now_ms: 100_000_000,
        };
        let mut scratch = ScoreScratch::new();
        scratch.reset(10);
        fill(&query, &mut scratch);
        let likeness = &scratch.alike.likeness;
        assert!(likeness.iter().all(|likeness| likeness.sum == 0.0), "left clean");
        scratch.columns
    }

    #[test]
    fn who_shares_more_speaks_louder_and_what_follows_the_common_item_comes_next() {
        // 1 shares two items and goes on to 5, then 6; 2 shares one and goes on to 7; 3 shares nothing.
        let live = live(&[(1, &[0, 1, 5, 6]), (2, &[1, 7]), (3, &[8, 9]), (4, &[0, 1])]);
        let columns = columns(&live, 4);
        let next = &columns[Column::AlikeNext as usize];
        assert!(
            next[5] > next[6] && next[5] > next[7] && next[7] > 0.0,
            "{next:?}"
        );
        assert_eq!((next[8], next[9]), (0.0, 0.0));
        // What came before the common item is near, not next.
        assert_eq!(next[0], 0.0);
        assert!(columns[Column::AlikeNear as usize][0] > 0.0);
    }

    #[test]
    fn nobody_is_their_own_neighbour() {
        let live = live(&[(1, &[0, 1, 2])]);
        assert!(
            columns(&live, 1)[Column::AlikeEver as usize]
                .iter()
                .all(|&score| score == 0.0)
        );
    }

    #[test]
    fn without_a_history_nobody_is_alike() {
        let live = live(&[(1, &[0, 1, 2])]);
        assert!(columns(&live, 99).iter().flatten().all(|&score| score == 0.0));
    }
}
