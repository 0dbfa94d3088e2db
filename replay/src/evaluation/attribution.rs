//! Which interaction answers which list.

use std::collections::{BTreeMap, HashMap, HashSet};

use marquee_schemas::Kind;

use super::list::{Answer, List};

/// How far a client's clock may lag behind the server's, ms: an interaction that names its request may carry a time
/// this much before it.
pub(crate) const SKEW_MS: i64 = 5 * 60 * 1000;

/// By what an interaction was found to answer a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// It names the request.
    RequestId,
    /// The user's latest list that holds its movie.
    LastTouch,
    /// The user's latest list, which does not hold its movie.
    LastList,
}

impl By {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RequestId => "request_id",
            Self::LastTouch => "last_touch",
            Self::LastList => "last_list",
        }
    }
}

/// An interaction that answers a list, by their places in the slices that were joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attribution {
    pub(crate) list: usize,
    pub(crate) answer: usize,
    pub(crate) by: By,
    /// Position of its movie in the list, from 0; absent where the list does not hold it.
    pub(crate) rank: Option<usize>,
}

/// The list that each answer answers, in the order of `answers`; one that answers none, or repeats an event or a movie
/// and kind of its list, is not in it.
pub(crate) fn attribute(lists: &[List], answers: &[Answer], window_ms: i64) -> Vec<Attribution> {
    let mut by_request: HashMap<&str, usize> = HashMap::with_capacity(lists.len());
    let mut by_user: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, list) in lists.iter().enumerate() {
        by_request.entry(&list.request_id).or_insert(at);
        if let Some(user) = list.user_id {
            by_user.entry(user).or_default().push(at);
        }
    }
    for of_user in by_user.values_mut() {
        of_user.sort_by_key(|&at| (lists[at].time_ms, at));
    }
    let named = |answer: &Answer| {
        let at = *by_request.get(answer.request_id.as_deref()?)?;
        let since = answer.time_ms.saturating_sub(lists[at].time_ms);
        let same_user = lists[at].user_id.is_none_or(|user| user == answer.user_id);
        (same_user && (-SKEW_MS..=window_ms).contains(&since)).then_some((at, By::RequestId))
    };
    let latest = |answer: &Answer| {
        let of_user = by_user.get(&answer.user_id)?;
        let end = of_user.partition_point(|&at| lists[at].time_ms <= answer.time_ms);
        let start =
            of_user.partition_point(|&at| lists[at].time_ms < answer.time_ms.saturating_sub(window_ms));
        let open = of_user.get(start..end)?;
        let touched = open
            .iter()
            .rev()
            .find(|&&at| lists[at].rank_of(answer.movie_id).is_some());
        match touched {
            Some(&at) => Some((at, By::LastTouch)),
            None => open.last().map(|&at| (at, By::LastList)),
        }
    };
    let mut events = HashSet::with_capacity(answers.len());
    let mut acts: HashSet<(usize, u32, Kind)> = HashSet::new();
    let mut found = Vec::new();
    for (at, answer) in answers.iter().enumerate() {
        if !events.insert(answer.event_id.as_str()) {
            continue;
        }
        if let Some((list, by)) = named(answer).or_else(|| latest(answer))
            && acts.insert((list, answer.movie_id, answer.kind))
        {
            found.push(Attribution {
                list,
                answer: at,
                by,
                rank: lists[list].rank_of(answer.movie_id),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::list::testing::{answer, list};
    use super::*;

    /// Movies by which each list was answered.
    fn outcome(lists: &[List], answers: &[Answer]) -> Vec<Vec<u32>> {
        let mut movies = vec![Vec::new(); lists.len()];
        for found in attribute(lists, answers, 1_000) {
            movies[found.list].push(answers[found.answer].movie_id);
        }
        movies
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
    fn an_anonymous_list_is_answered_by_whoever_names_it_and_by_nobody_else() {
        let mut anonymous = list("a", 1, 0, &[7]);
        anonymous.user_id = None;
        let answers = [answer("e", 5, 7, 10, Some("a")), answer("f", 1, 7, 10, None)];
        let got = attribute(&[anonymous], &answers, 1_000);
        assert_eq!(got.len(), 1);
        assert_eq!(
            (got[0].answer, got[0].by, got[0].rank),
            (0, By::RequestId, Some(0))
        );
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
        let found = attribute(&lists, &answers, 1_000);
        assert_eq!((found[0].by, found[0].rank), (By::LastTouch, Some(0)));
        assert_eq!((found[1].by, found[1].rank), (By::LastList, None));
    }

    #[test]
    fn the_window_closes_after_its_length_and_nothing_answers_a_later_list() {
        let lists = [list("a", 1, 1_000, &[7])];
        let at = |time| outcome(&lists, &[answer("e", 1, 7, time, None)])[0].len();
        assert_eq!((at(999), at(1_000), at(2_000), at(2_001)), (0, 1, 1, 0));
    }

    #[test]
    fn repeated_events_and_repeated_acts_on_a_movie_count_once() {
        let lists = [list("a", 1, 0, &[7])];
        let answers = [
            answer("e", 1, 7, 1, None),
            answer("e", 1, 8, 1, None),
            answer("f", 1, 7, 2, None),
        ];
        assert_eq!(outcome(&lists, &answers), [vec![7]]);
    }
}
