//! Sums over lists, by user, and the figures that follow from them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use marquee_schemas::Kind;
use marquee_statistics::cluster::{self, Estimate, Z_95};

use super::attribution::{Attribution, By};
use super::list::{Answer, List};

/// One user's part.
#[derive(Debug, Clone, Default)]
struct OfUser {
    answered: f64,
    hits: f64,
    precision: f64,
    ndcg: f64,
    reciprocal_rank: f64,
    log_seconds: f64,
    /// Items shown, and clicked by a click that names the request.
    shown: f64,
    clicked: f64,
    /// Lists, and those with such a click.
    lists: f64,
    clicked_lists: f64,
    /// Per position: lists that were answered and had it, and those answered by the movie there.
    positions: Vec<(f64, f64)>,
}

/// Sums over some lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) lists: u64,
    pub(super) censored: u64,
    pub(super) answered: u64,
    pub(super) clicks: u64,
    movies: HashSet<u32>,
    users: BTreeMap<u64, OfUser>,
}

/// The movies by which one list was answered, with what is known of the acts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    movies: BTreeSet<u32>,
    clicked: BTreeSet<u32>,
    first_ms: Option<i64>,
}

impl Outcome {
    pub(crate) fn add(&mut self, answer: &Answer, found: &Attribution) {
        self.movies.insert(answer.movie_id);
        if answer.kind == Kind::Click && found.by == By::RequestId && found.rank.is_some() {
            self.clicked.insert(answer.movie_id);
        }
        self.first_ms = Some(
            self.first_ms
                .map_or(answer.time_ms, |first| first.min(answer.time_ms)),
        );
    }

    /// Whether anything answered the list.
    pub(crate) fn is_answered(&self) -> bool {
        !self.movies.is_empty()
    }

    /// Whether the movie at a position was taken up.
    pub(crate) fn took(&self, movie_id: u32) -> bool {
        self.movies.contains(&movie_id)
    }

    /// Whether the movie at a position was clicked by a click that names the request.
    pub(crate) fn clicked(&self, movie_id: u32) -> bool {
        self.clicked.contains(&movie_id)
    }
}

/// Anonymous lists are independent of one another.
pub(crate) fn cluster_of(list: &List) -> u64 {
    cluster_of_request(list.user_id, &list.request_id)
}

/// The user, or a cluster of its own for an anonymous request.
pub(crate) fn cluster_of_request(user_id: Option<u64>, request_id: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    user_id.unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        request_id.hash(&mut hasher);
        // Beyond every user id.
        hasher.finish() | 1 << 63
    })
}

impl Tally {
    /// A list too young for all its answers to be there.
    pub(super) fn censor(&mut self) {
        self.censored += 1;
    }

    pub(super) fn add(&mut self, list: &List, outcome: &Outcome, k: usize) {
        self.lists += 1;
        let first: Vec<u32> = list.items.iter().take(k).map(|item| item.movie_id).collect();
        self.movies.extend(&first);
        let user = self.users.entry(cluster_of(list)).or_default();
        user.shown += list.items.len() as f64;
        user.clicked += outcome.clicked.len() as f64;
        user.lists += 1.0;
        user.clicked_lists += f64::from(u8::from(!outcome.clicked.is_empty()));
        self.clicks += outcome.clicked.len() as u64;
        if outcome.movies.is_empty() {
            return;
        }
        self.answered += 1;
        user.answered += 1.0;
        let taken: Vec<usize> = (0..first.len()).filter(|&at| outcome.took(first[at])).collect();
        user.hits += f64::from(u8::from(!taken.is_empty()));
        user.precision += taken.len() as f64 / k.max(1) as f64;
        user.ndcg += ndcg(&taken, outcome.movies.len(), k);
        user.reciprocal_rank += taken.first().map_or(0.0, |&at| 1.0 / (at as f64 + 1.0));
        let delay_ms = outcome
            .first_ms
            .map_or(0, |first| first.saturating_sub(list.time_ms).max(0));
        user.log_seconds += (delay_ms as f64 / 1_000.0).ln_1p();
        if user.positions.len() < first.len() {
            user.positions.resize(first.len(), (0.0, 0.0));
        }
        for (at, (shown, taken)) in user.positions.iter_mut().enumerate().take(first.len()) {
            *shown += 1.0;
            *taken += f64::from(u8::from(outcome.took(first[at])));
        }
    }

    /// Users with a list that counts.
    pub(super) fn users(&self) -> u64 {
        self.users.len() as u64
    }

    /// Distinct movies among the first k of all lists.
    pub(super) fn distinct_movies(&self) -> u64 {
        self.movies.len() as u64
    }

    fn answered(&self) -> impl Iterator<Item = &OfUser> {
        self.users.values().filter(|user| user.answered > 0.0)
    }

    fn mean(&self, of: impl Fn(&OfUser) -> f64) -> Option<Estimate> {
        cluster::mean(self.answered().map(|user| (of(user), user.answered)))
    }

    pub(super) fn hit_rate(&self) -> Option<Estimate> {
        cluster::proportion(self.answered().map(|user| (user.hits, user.answered)))
    }

    pub(super) fn precision(&self) -> Option<Estimate> {
        self.mean(|user| user.precision)
    }

    pub(super) fn ndcg(&self) -> Option<Estimate> {
        self.mean(|user| user.ndcg)
    }

    pub(super) fn mrr(&self) -> Option<Estimate> {
        self.mean(|user| user.reciprocal_rank)
    }

    /// Clicked items over shown items. Means nothing where nothing reports clicks.
    pub(super) fn ctr(&self) -> Option<Estimate> {
        cluster::proportion(self.users.values().map(|user| (user.clicked, user.shown)))
    }

    /// Lists with a click over all lists. Means nothing where nothing reports clicks.
    pub(super) fn clicked_lists(&self) -> Option<Estimate> {
        cluster::proportion(self.users.values().map(|user| (user.clicked_lists, user.lists)))
    }

    /// Geometric mean of the seconds (plus one) to the first answer, less one.
    pub(super) fn seconds_to_answer(&self) -> Option<Estimate> {
        let logs = self.answered().map(|user| (user.log_seconds, user.answered));
        let logs = cluster::mean_within(logs, 0.0, f64::INFINITY)?;
        Some(Estimate {
            value: logs.value.exp_m1(),
            interval: logs.interval.map(|(lo, hi)| (lo.exp_m1(), hi.exp_m1())),
            n: logs.n,
        })
    }

    /// Share of the answered lists that were answered by the movie at each position.
    pub(super) fn by_position(&self) -> Vec<Estimate> {
        let longest = self
            .users
            .values()
            .map(|user| user.positions.len())
            .max()
            .unwrap_or(0);
        (0..longest)
            .filter_map(|at| {
                let of_users = self.users.values().filter_map(move |user| user.positions.get(at));
                cluster::proportion(
                    of_users
                        .filter(|(shown, _)| *shown > 0.0)
                        .map(|&(shown, taken)| (taken, shown)),
                )
            })
            .collect()
    }
}

/// A figure of two tallies, to be compared.
#[derive(Debug, Clone, Copy)]
pub(super) enum Figure {
    HitRate,
    Ndcg,
    Mrr,
    Ctr,
}

/// The second tally's figure less the first's, with its 95% interval. A user may be in both, so that both are
/// linearised together and users are the clusters.
pub(super) fn difference(a: &Tally, b: &Tally, figure: Figure) -> Option<Estimate> {
    let parts = |user: &OfUser| match figure {
        Figure::HitRate => (user.hits, user.answered),
        Figure::Ndcg => (user.ndcg, user.answered),
        Figure::Mrr => (user.reciprocal_rank, user.answered),
        Figure::Ctr => (user.clicked, user.shown),
    };
    let whole = |tally: &Tally| cluster::ratio(tally.users.values().map(parts));
    let (of_a, of_b) = (whole(a)?, whole(b)?);
    let mut influence: BTreeMap<u64, f64> = BTreeMap::new();
    for (tally, ratio, sign) in [(a, &of_a, -1.0), (b, &of_b, 1.0)] {
        for (&id, user) in &tally.users {
            let (total, size) = parts(user);
            *influence.entry(id).or_default() += sign * (total - ratio.value * size) / ratio.n;
        }
    }
    let m = influence.len() as f64;
    let variance = m / (m - 1.0).max(1.0) * influence.values().map(|value| value * value).sum::<f64>();
    let value = of_b.value - of_a.value;
    let half = Z_95 * variance.sqrt();
    Some(Estimate {
        value,
        interval: (m >= 2.0 && half > 0.0).then_some((value - half, value + half)),
        n: influence.len() as u64,
    })
}

/// Normalised discounted cumulative gain over the first `k` with binary relevance (Järvelin and Kekäläinen 2002):
/// `Σ 1 / log2(i + 2)` over the relevant positions `i` (from 0), over that of the best order of `relevant` movies.
pub(crate) fn ndcg(positions: &[usize], relevant: usize, k: usize) -> f64 {
    let discount = |at: usize| 1.0 / (at as f64 + 2.0).log2();
    let ideal: f64 = (0..relevant.min(k)).map(discount).sum();
    if ideal == 0.0 {
        return 0.0;
    }
    // Folded from 0: the sum of nothing would be -0.
    let gain = positions
        .iter()
        .filter(|&&at| at < k)
        .fold(0.0, |gain, &at| gain + discount(at));
    gain / ideal
}

#[cfg(test)]
mod tests {
    use super::super::list::testing::{answer, list};
    use super::*;

    fn outcome(list: &List, answers: &[Answer]) -> Outcome {
        let mut outcome = Outcome::default();
        for answer in answers {
            let rank = list.rank_of(answer.movie_id);
            let by = if answer.request_id.is_some() {
                By::RequestId
            } else {
                By::LastTouch
            };
            outcome.add(
                answer,
                &Attribution {
                    list: 0,
                    answer: 0,
                    by,
                    rank,
                },
            );
        }
        outcome
    }

    #[test]
    fn ndcg_of_a_hand_computed_list() {
        let want = (1.0 / 3_f64.log2() + 0.5) / (1.0 + 1.0 / 3_f64.log2());
        assert!((ndcg(&[1, 2], 2, 10) - want).abs() < 1e-12);
        assert_eq!(ndcg(&[0, 1], 2, 10), 1.0);
        assert_eq!(ndcg(&[1], 2, 1), 0.0);
        assert_eq!(ndcg(&[], 0, 1), 0.0);
    }

    #[test]
    fn the_figures_of_hand_computed_lists() {
        let mut tally = Tally::default();
        let served = list("a", 1, 0, &[7, 8, 9]);
        let click = Answer {
            kind: Kind::Click,
            ..answer("e", 1, 8, 999, Some("a"))
        };
        tally.add(
            &served,
            &outcome(&served, &[click, answer("f", 1, 5, 7_000, None)]),
            2,
        );
        let served = list("b", 2, 0, &[7, 8, 6]);
        tally.add(&served, &outcome(&served, &[]), 2);
        tally.censor();
        assert_eq!(
            (tally.lists, tally.answered, tally.censored, tally.users()),
            (2, 1, 1, 2)
        );
        assert_eq!(tally.distinct_movies(), 2);
        assert_eq!(tally.hit_rate().unwrap().value, 1.0);
        assert_eq!(tally.precision().unwrap().value, 0.5);
        assert_eq!(tally.mrr().unwrap().value, 0.5);
        let ctr = tally.ctr().unwrap();
        assert_eq!((ctr.value, ctr.n), (1.0 / 6.0, 6));
        let lists = tally.clicked_lists().unwrap();
        assert_eq!((lists.value, lists.n), (0.5, 2));
        assert!((tally.seconds_to_answer().unwrap().value - 0.999).abs() < 1e-9);
        let positions: Vec<f64> = tally.by_position().iter().map(|at| at.value).collect();
        assert_eq!(positions, [0.0, 1.0]);
    }

    #[test]
    fn only_a_click_that_names_the_list_counts_as_one() {
        let mut tally = Tally::default();
        let served = list("a", 1, 0, &[7]);
        let click = Answer {
            kind: Kind::Click,
            ..answer("e", 1, 7, 1, None)
        };
        tally.add(&served, &outcome(&served, &[click]), 10);
        assert_eq!(tally.clicks, 0);
        assert_eq!(tally.clicked_lists().unwrap().value, 0.0);
        assert_eq!(tally.hit_rate().unwrap().value, 1.0);
    }

    #[test]
    fn the_same_users_in_both_tallies_make_the_difference_sharper() {
        let tally = |shift: u64, hits: fn(u64) -> bool| {
            let mut tally = Tally::default();
            for user in 0..200 {
                let served = list("a", user + shift, 0, &[7]);
                let movie = if hits(user) { 7 } else { 1 };
                tally.add(
                    &served,
                    &outcome(&served, &[answer("e", user, movie, 1, None)]),
                    10,
                );
            }
            tally
        };
        let a = tally(0, |user| user % 2 == 0);
        let b = tally(0, |user| user % 2 == 0 || user % 20 == 1);
        let same = difference(&a, &b, Figure::HitRate).unwrap();
        assert!((same.value - 0.05).abs() < 1e-12);
        let (lo, hi) = same.interval.unwrap();
        let other = tally(10_000, |user| user % 2 == 0 || user % 20 == 1);
        let others = difference(&a, &other, Figure::HitRate).unwrap().interval.unwrap();
        assert!(hi - lo < 0.5 * (others.1 - others.0));
        assert!(lo > 0.0 && others.0 < 0.0);
    }
}
