//! Which interaction answers which list.

use std::collections::{HashMap, HashSet};

use marquee_schemas::Kind;

use super::list::{Answer, List, Rivals};

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

/// Lists and rivals as one sequence: the lists come first.
struct Field<'a> {
    lists: &'a [List],
    rivals: &'a Rivals,
}

impl Field<'_> {
    fn len(&self) -> usize {
        self.lists.len() + self.rivals.len()
    }

    /// The list, or its place among the rivals.
    fn list(&self, at: usize) -> Result<&List, usize> {
        self.lists.get(at).ok_or_else(|| at - self.lists.len())
    }

    fn request_id(&self, at: usize) -> Option<&str> {
        match self.list(at) {
            Ok(list) => Some(&list.request_id),
            Err(at) => self.rivals.request_id(at),
        }
    }

    fn user_id(&self, at: usize) -> Option<u64> {
        self.list(at)
            .map_or_else(|at| self.rivals.user_id(at), |list| list.user_id)
    }

    fn time_ms(&self, at: usize) -> i64 {
        self.list(at)
            .map_or_else(|at| self.rivals.time_ms(at), |list| list.time_ms)
    }

    fn holds(&self, at: usize, movie_id: u32) -> bool {
        match self.list(at) {
            Ok(list) => list.rank_of(movie_id).is_some(),
            Err(at) => self.rivals.holds(at, movie_id),
        }
    }
}

/// The list that each answer answers, in the order of `answers`; one that answers none, answers a rival, or repeats an
/// event of its user or a movie and kind of its list, is not in it.
pub(crate) fn attribute(
    lists: &[List],
    rivals: &Rivals,
    answers: &[Answer],
    window_ms: i64,
) -> Vec<Attribution> {
    let field = Field { lists, rivals };
    let mut by_request: HashMap<&str, usize> = HashMap::with_capacity(lists.len());
    let mut by_user: HashMap<u64, Vec<usize>> = HashMap::new();
    for at in 0..field.len() {
        if let Some(request) = field.request_id(at) {
            by_request.entry(request).or_insert(at);
        }
        if let Some(user) = field.user_id(at) {
            by_user.entry(user).or_default().push(at);
        }
    }
    for of_user in by_user.values_mut() {
        of_user.sort_by_key(|&at| (field.time_ms(at), at));
    }
    let named = |answer: &Answer| {
        let at = *by_request.get(answer.request_id.as_deref()?)?;
        let since = answer.time_ms.saturating_sub(field.time_ms(at));
        let same_user = field.user_id(at).is_none_or(|user| user == answer.user_id);
        (same_user && (-SKEW_MS..=window_ms).contains(&since)).then_some((at, By::RequestId))
    };
    let latest = |answer: &Answer| {
        let of_user = by_user.get(&answer.user_id)?;
        let end = of_user.partition_point(|&at| field.time_ms(at) <= answer.time_ms);
        let start =
            of_user.partition_point(|&at| field.time_ms(at) < answer.time_ms.saturating_sub(window_ms));
        let open = of_user.get(start..end)?;
        let touched = open.iter().rev().find(|&&at| field.holds(at, answer.movie_id));
        match touched {
            Some(&at) => Some((at, By::LastTouch)),
            None => open.last().map(|&at| (at, By::LastList)),
        }
    };
    let mut events = HashSet::with_capacity(answers.len());
    let mut acts: HashSet<(usize, u32, Kind)> = HashSet::new();
    let mut found = Vec::new();
    for (at, answer) in answers.iter().enumerate() {
        if !events.insert((answer.user_id, answer.event_id.as_str())) {
            continue;
        }
        if let Some((list, by)) = named(answer).or_else(|| latest(answer))
            && let Some(served) = lists.get(list)
            && acts.insert((list, answer.movie_id, answer.kind))
        {
            found.push(Attribution {
                list,
                answer: at,
                by,
                rank: served.rank_of(answer.movie_id),
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
        for found in attribute(lists, &Rivals::default(), answers, 1_000) {
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
        let got = attribute(&[anonymous], &Rivals::default(), &answers, 1_000);
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
        let found = attribute(&lists, &Rivals::default(), &answers, 1_000);
        assert_eq!((found[0].by, found[0].rank), (By::LastTouch, Some(0)));
        assert_eq!((found[1].by, found[1].rank), (By::LastList, None));
    }

    #[test]
    fn a_rival_takes_what_is_its_own_and_leaves_the_rest() {
        let lists = [list("a", 1, 100, &[7, 8])];
        let mut rivals = Rivals::default();
        rivals.push(200, Some(1), Some("b".into()), &[7]);
        rivals.push(50, None, Some("c".into()), &[8]);
        let answers = [
            answer("e", 1, 7, 300, None),
            answer("f", 1, 8, 300, None),
            answer("g", 1, 8, 300, Some("c")),
            answer("h", 1, 8, 300, Some("b")),
            answer("i", 1, 9, 300, None),
            answer("j", 1, 9, 150, None),
        ];
        let found: Vec<(usize, By)> = attribute(&lists, &rivals, &answers, 1_000)
            .iter()
            .map(|found| (found.answer, found.by))
            .collect();
        assert_eq!(found, [(1, By::LastTouch), (5, By::LastList)]);
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
