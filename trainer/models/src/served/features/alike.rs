//! What people alike did at this point.
//!
//! Session-based nearest neighbours: Jannach, Ludewig, "When recurrent neural networks meet the neighborhood for
//! session-based recommendation" (RecSys 2017, §3.1), with the recency of STAN (Garg, Gupta, Malhotra, Vig, Shroff,
//! SIGIR 2019, §3): of those who lately came to the items of the recent history, the ones with the most and the
//! nearest in common speak for what they met around the common item.

use super::Column;
use crate::kernels::widest;
use crate::live::Step;
use crate::metrics::{rank_key, ranked_index};
use crate::served::context::{Query, ScoreScratch};
use crate::served::places::Places;
use crate::transitions::Distance;

/// What people alike say.
pub(super) const COLUMNS: [Column; 4] = [
    Column::AlikeNext,
    Column::AlikeNear,
    Column::AlikeFresh,
    Column::AlikeEver,
];
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

/// Of what memory hands over at a time, 64 bytes.
const STEPS_PER_LINE: usize = 64 / size_of::<Step>();

/// Buffers of the search.
#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbours {
    /// By user, how alike; all zero between searches.
    likeness: Vec<f32>,
    /// By user, the time of the visit to the newest common item; stale for who has nothing in common.
    met_ms: Vec<i64>,
    /// Users who have something in common; nobody between searches.
    found: Vec<u32>,
    /// For each of those who speak, the number of steps until they met the newest common item.
    until_met: Vec<u32>,
    /// Sort keys of these: likeness, then index.
    keys: Vec<u64>,
}

impl Neighbours {
    /// Finds those who speak, until [`Self::clear`].
    pub(super) fn search(&mut self, query: &Query<'_>) {
        self.find(query);
        self.choose();
        // Reading their steps is waiting for memory. Touching them first, with nothing in between, lets the waits overlap.
        let (found, met_ms) = (&self.found, &self.met_ms);
        let touched = found.iter().fold(0, |all, &user| {
            let lines = query.live.steps(user).iter().step_by(STEPS_PER_LINE);
            lines.fold(all, |all, step| all ^ step.time_s())
        });
        std::hint::black_box(touched);
        // For the same reason they are counted: a binary search would wait at each of its jumps.
        self.until_met.clear();
        self.until_met.extend(found.iter().map(|&user| {
            let (steps, met_s) = (query.live.steps(user), Step::second(met_ms[user as usize]));
            widest(
                #[inline(always)]
                || {
                    steps
                        .iter()
                        .map(|step| u32::from(step.time_s() <= met_s))
                        .sum::<u32>()
                },
            )
        }));
    }

    /// The items they speak for, some of them repeatedly.
    pub(super) fn name(&self, query: &Query<'_>, mut name: impl FnMut(u32)) {
        self.speak(query, |step, _, _| name(step.item()));
    }

    /// What they say of an item: a word for not liking it and one for liking it, which weighs as next, near, fresh and
    /// ever.
    #[inline(always)]
    fn speak(&self, query: &Query<'_>, mut say: impl FnMut(Step, [f32; 2], [f32; 4])) {
        for (&user, &until_met) in self.found.iter().zip(&self.until_met) {
            let (sum, met_ms) = (self.likeness[user as usize], self.met_ms[user as usize]);
            let (before, after) = query.live.steps(user).split_at(until_met as usize);
            let age = (query.now_ms - met_ms).max(0) as f32 / FRESH_HALF_LIFE_MS;
            let freshness = (-age).exp2();
            let words = [sum * UNLIKED, sum];
            let (mut next, mut near) = (1.0, 1.0);
            for &step in after.iter().take(REACH) {
                say(step, words, [next, near, near * freshness, 1.0]);
                next *= NEXT_DECAY;
                near *= NEAR_DECAY;
            }
            near = 1.0;
            for &step in before.iter().rev().take(REACH) {
                say(step, words, [0.0, near, near * freshness, 1.0]);
                near *= NEAR_DECAY;
            }
        }
    }

    /// Leaves in `found` whoever has something in common.
    fn find(&mut self, query: &Query<'_>) {
        self.found.clear();
        let live = query.live;
        let users = live.users();
        if self.likeness.len() < users {
            self.likeness.resize(users, 0.0);
            self.met_ms.resize(users, 0);
        }
        let Some(last) = query.context.history.last() else {
            return;
        };
        let matched = || query.context.history.iter().rev().take(MATCHED);
        // Whoever is found made one of these visits, so there are no more of them; filling places for all users would cost
        // a large community megabytes a list. One place more: what is not new is written behind the end.
        let visits: usize = matched().map(|entry| live.visits(entry.item).len()).sum();
        self.found.resize(visits.min(users) + 1, 0);
        let mut count = 0;
        let mut distance = Distance::from(last.time_ms);
        for entry in matched() {
            let visits = live.visits(entry.item);
            let rarity = (1.0 + users as f32 / (1.0 + visits.len() as f32)).ln();
            let weight = MATCH_DECAY.powi(distance.of(entry.time_ms)) * rarity;
            let like = entry.is_like();
            let (likes, others) = if like {
                (weight, weight * DISAGREEMENT)
            } else {
                (weight * DISAGREEMENT, weight)
            };
            for visit in visits {
                let user = visit.user as usize;
                let (Some(likeness), Some(met_ms)) = (self.likeness.get_mut(user), self.met_ms.get_mut(user))
                else {
                    continue;
                };
                // Without a jump: whether somebody is new is anybody's guess.
                let new = *likeness == 0.0;
                *met_ms = if new { visit.time_ms } else { *met_ms };
                *likeness += if visit.like { likes } else { others };
                if let Some(place) = self.found.get_mut(count) {
                    *place = visit.user;
                }
                count += usize::from(new);
            }
        }
        self.found.truncate(count);
        if let Some(own) = query.context.user
            && let Some(likeness) = self.likeness.get_mut(own as usize)
            && *likeness != 0.0
        {
            *likeness = 0.0;
            self.found.retain(|&user| user != own);
        }
    }

    /// Keeps the [`NEIGHBOURS`] people most alike, in a fixed order.
    fn choose(&mut self) {
        if self.found.len() > NEIGHBOURS {
            self.keys.clear();
            let keys = self
                .found
                .iter()
                .map(|&user| rank_key(self.likeness[user as usize], user));
            self.keys.extend(keys);
            self.keys.select_nth_unstable(NEIGHBOURS - 1);
            for key in self.keys.drain(NEIGHBOURS..) {
                self.likeness[ranked_index(key) as usize] = 0.0;
            }
            self.found.clear();
            self.found.extend(self.keys.iter().map(|&key| ranked_index(key)));
        }
        self.found.sort_unstable();
    }

    fn clear(&mut self) {
        for user in self.found.drain(..) {
            self.likeness[user as usize] = 0.0;
        }
    }
}

/// Fills the columns by those whom [`Neighbours::search`] found, and forgets them.
pub(super) fn fill(query: &Query<'_>, places: impl Places, scratch: &mut ScoreScratch) {
    if query.context.history.is_empty() {
        return;
    }
    scratch.begin_fours();
    let (search, fours) = (&mut scratch.alike, &mut scratch.fours);
    search.speak(query, |step, words, weights| {
        if let Some(scores) = fours.get_mut(places.place(step.item())) {
            let word = words[usize::from(step.is_like())];
            for (score, weight) in scores.iter_mut().zip(weights) {
                *score += word * weight;
            }
        }
    });
    search.clear();
    scratch.end_fours(COLUMNS[0] as usize);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Interaction, LiveParams, LiveState};
    use crate::served::context::Context;
    use crate::served::places::Whole;
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
        scratch.alike.search(&query);
        fill(&query, Whole(10), &mut scratch);
        let likeness = &scratch.alike.likeness;
        assert!(likeness.iter().all(|&likeness| likeness == 0.0), "left clean");
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

    /// Those found before the most alike are chosen, ascending.
    fn found(live: &LiveState, scratch: &mut ScoreScratch, user: u32) -> Vec<u32> {
        let binding = Binding::new(&Catalogue::default(), &[], None);
        let query = Query {
            binding: &binding,
            live,
            context: Context::of_user(live, user),
            now_ms: 100_000_000,
        };
        scratch.alike.find(&query);
        let mut found = scratch.alike.found.clone();
        scratch.alike.clear();
        found.sort_unstable();
        found
    }

    #[test]
    fn everybody_who_came_to_an_item_of_the_history_is_found_once_however_many_there_are() {
        // Everybody came to 0 and 1, a few to 2, nobody else to 3.
        let walks: Vec<(u32, &[u32])> = (0..300)
            .map(|user| {
                let walk: &[u32] = match user {
                    0 => &[3],
                    1 => &[2],
                    2..10 => &[0, 1, 2],
                    _ => &[1, 0],
                };
                (user, walk)
            })
            .collect();
        let live = live(&walks);
        // The same buffers for many and for few.
        let mut scratch = ScoreScratch::new();
        let others =
            |all: std::ops::Range<u32>, own: u32| all.filter(|&user| user != own).collect::<Vec<_>>();
        assert_eq!(found(&live, &mut scratch, 5), others(1..300, 5));
        assert!(found(&live, &mut scratch, 0).is_empty());
        assert_eq!(found(&live, &mut scratch, 1), others(1..10, 1));
        assert_eq!(found(&live, &mut scratch, 20), others(2..300, 20));
        assert!(found(&live, &mut scratch, 999).is_empty());
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
