//! Which interaction answers which list.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// How far a client's clock may lag behind the server's, ms: an interaction that names its request may carry a time
/// this much before it.
pub(super) const SKEW_MS: i64 = 5 * 60 * 1000;

/// A served list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List {
    pub(super) request_id: String,
    pub(super) user_id: u64,
    pub(super) time_ms: i64,
    pub(super) model_version: Option<String>,
    /// In order of rank.
    pub(super) movies: Vec<u32>,
}

/// An interaction that may answer a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) event_id: String,
    pub(super) user_id: u64,
    pub(super) movie_id: u32,
    pub(super) time_ms: i64,
    pub(super) request_id: Option<String>,
}

/// The movies by which each list was answered, in the order of `lists`.
pub(super) fn attribute(lists: &[List], answers: &[Answer], window_ms: i64) -> Vec<BTreeSet<u32>> {
    let mut answered = vec![BTreeSet::new(); lists.len()];
    let mut by_request: HashMap<&str, usize> = HashMap::with_capacity(lists.len());
    let mut by_user: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, list) in lists.iter().enumerate() {
        by_request.entry(&list.request_id).or_insert(at);
        by_user.entry(list.user_id).or_default().push(at);
    }
    for of_user in by_user.values_mut() {
        of_user.sort_by_key(|&at| (lists[at].time_ms, at));
    }
    let mut seen = HashSet::with_capacity(answers.len());
    for answer in answers {
        if !seen.insert(answer.event_id.as_str()) {
            continue;
        }
        let named = answer
            .request_id
            .as_deref()
            .and_then(|request| by_request.get(request).copied())
            .filter(|&at| {
                let since = answer.time_ms.saturating_sub(lists[at].time_ms);
                lists[at].user_id == answer.user_id && (-SKEW_MS..=window_ms).contains(&since)
            });
        let list = named.or_else(|| {
            let of_user = by_user.get(&answer.user_id)?;
            let end = of_user.partition_point(|&at| lists[at].time_ms <= answer.time_ms);
            let start =
                of_user.partition_point(|&at| lists[at].time_ms < answer.time_ms.saturating_sub(window_ms));
            let open = of_user.get(start..end)?;
            open.iter()
                .rev()
                .find(|&&at| lists[at].movies.contains(&answer.movie_id))
                .or(open.last())
                .copied()
        });
        if let Some(at) = list {
            answered[at].insert(answer.movie_id);
        }
    }
    answered
}

/// Normalised discounted cumulative gain over the first `k` with binary relevance (Järvelin and Kekäläinen 2002):
/// `Σ rel(i) / log2(i + 2)` over that of the best order, positions from 0.
pub(super) fn ndcg(movies: &[u32], relevant: &BTreeSet<u32>, k: usize) -> f64 {
    let discount = |at: usize| 1.0 / (at as f64 + 2.0).log2();
    let ideal: f64 = (0..relevant.len().min(k)).map(discount).sum();
    if ideal == 0.0 {
        return 0.0;
    }
    let gain: f64 = movies
        .iter()
        .take(k)
        .enumerate()
        .filter(|(_, movie)| relevant.contains(movie))
        .map(|(at, _)| discount(at))
        .sum();
    gain / ideal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(request: &str, user: u64, time_ms: i64, movies: &[u32]) -> List {
        List {
            request_id: request.into(),
            user_id: user,
            time_ms,
            model_version: None,
            movies: movies.to_vec(),
        }
    }

    fn answer(event: &str, user: u64, movie: u32, time_ms: i64, request: Option<&str>) -> Answer {
        Answer {
            event_id: event.into(),
            user_id: user,
            movie_id: movie,
            time_ms,
            request_id: request.map(Into::into),
        }
    }

    fn outcome(lists: &[List], answers: &[Answer]) -> Vec<Vec<u32>> {
        attribute(lists, answers, 1_000)
            .into_iter()
            .map(|movies| movies.into_iter().collect())
            .collect()
    }

    #[test]
    fn a_named_request_wins_over_a_later_list() {
        let lists = [list("a", 1, 0, &[7]), list("b", 1, 500, &[7])];
        assert_eq!(
            outcome(&lists, &[answer("e", 1, 7, 600, Some("a"))]),
            [vec![7], vec![]]
        );
    }

    #[test]
    fn a_request_of_another_user_or_an_unknown_one_is_not_believed() {
        let lists = [list("a", 1, 0, &[7]), list("b", 2, 0, &[9])];
        let answers = [
            answer("e", 2, 7, 10, Some("a")),
            answer("f", 1, 7, 10, Some("zzz")),
        ];
        assert_eq!(outcome(&lists, &answers), [vec![7], vec![7]]);
    }

    #[test]
    fn the_last_list_that_holds_the_movie_is_answered_else_the_last_list() {
        let lists = [
            list("a", 1, 0, &[7, 8]),
            list("b", 1, 100, &[7]),
            list("c", 1, 200, &[9]),
        ];
        let answers = [answer("e", 1, 7, 300, None), answer("f", 1, 1, 300, None)];
        assert_eq!(outcome(&lists, &answers), [vec![], vec![7], vec![1]]);
    }

    #[test]
    fn the_window_closes_after_its_length_and_nothing_answers_a_later_list() {
        let lists = [list("a", 1, 1_000, &[7])];
        let at = |time| outcome(&lists, &[answer("e", 1, 7, time, None)])[0].len();
        assert_eq!((at(999), at(1_000), at(2_000), at(2_001)), (0, 1, 1, 0));
    }

    #[test]
    fn repeated_events_and_movies_count_once() {
        let lists = [list("a", 1, 0, &[7])];
        let answers = [
            answer("e", 1, 7, 1, None),
            answer("e", 1, 8, 1, None),
            answer("f", 1, 7, 2, None),
        ];
        assert_eq!(outcome(&lists, &answers), [vec![7]]);
    }

    #[test]
    fn ndcg_of_a_hand_computed_list() {
        let relevant = BTreeSet::from([1, 2]);
        let got = ndcg(&[9, 1, 2], &relevant, 10);
        let want = (1.0 / 3_f64.log2() + 0.5) / (1.0 + 1.0 / 3_f64.log2());
        assert!((got - want).abs() < 1e-12);
        assert_eq!(ndcg(&[1, 2], &relevant, 10), 1.0);
        assert_eq!(ndcg(&[9, 1], &relevant, 1), 0.0);
        assert_eq!(ndcg(&[9], &BTreeSet::new(), 1), 0.0);
    }
}
