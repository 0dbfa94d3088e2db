//! Why an entry is on the list.

use std::cmp::Reverse;

use marquee_models::served::{Explanation, Query, Term};

use super::filter::numbers;
use super::recommend::{person, seeds_of};
use super::scratch::Scratch;
use super::{Engine, Explain, ListItem, Reason, RecommendAsk, event_now};
use crate::champion::Serving;
use crate::view::ViewState;

/// Terms of a score that are told.
const TERMS: usize = 5;
/// Newest history entries whose genres count as what somebody watches.
const RECENT: usize = 50;

/// What the reasons of one list have in common.
struct Asker<'a> {
    /// Items of the history and the seeds, with whether they were liked.
    past: Vec<(u32, bool)>,
    seeds: &'a [u32],
    /// Genres asked for or chosen while signing up.
    wanted: Vec<u32>,
    numbers: bool,
}

impl Engine {
    /// Explains each entry from the terms of its own score, taken apart again: a moment later than the list was made,
    /// so the numbers are those of now.
    pub(super) fn explain(
        &self,
        ask: &RecommendAsk,
        serving: Option<&Serving>,
        items: &mut [ListItem],
        scratch: &mut Scratch,
    ) {
        let state = self.view.read();
        let serving = serving.filter(|serving| serving.fits(&state));
        // A movie or seed that left the catalogue meanwhile no longer explains anything.
        let indices: Vec<u32> = items
            .iter()
            .map(|entry| state.movies.lookup(entry.movie.movie_id).unwrap_or(u32::MAX))
            .collect();
        let seeds = seeds_of(&ask.seeds, "context.seeds", &state).unwrap_or_default();
        let person = person(ask, &seeds, serving, &state, &mut scratch.history);
        let mut wanted = numbers("context.genres", &ask.genres, &state.movies).unwrap_or_default();
        if wanted.is_empty()
            && let Some((_, row)) = ask.user.and_then(|user| state.users.find(user))
        {
            wanted = row
                .preferred()
                .filter_map(|name| state.movies.genre(name))
                .collect();
        }
        let explanations = match serving {
            None => Vec::new(),
            Some(serving) => {
                let query = Query {
                    binding: &serving.binding,
                    live: &state.live,
                    context: person.context,
                    now_ms: event_now(&state),
                };
                serving.model.explain(&query, &indices, &mut scratch.score)
            }
        };
        let asker = Asker {
            past: person
                .context
                .history
                .iter()
                .map(|past| (past.item, past.is_like()))
                .collect(),
            seeds: &seeds,
            wanted,
            numbers: ask.explain == Explain::Numbers,
        };
        let mut explanations = explanations.into_iter();
        for (entry, item) in items.iter_mut().zip(indices) {
            let explanation = explanations.next().unwrap_or_default();
            entry.reasons = Some(asker.reasons(&state, item, &explanation));
        }
    }
}

impl Asker<'_> {
    fn reasons(&self, state: &ViewState, item: u32, explanation: &Explanation) -> Vec<Reason> {
        let mut reasons = Vec::new();
        reasons.extend(self.because(state, explanation));
        reasons.extend(self.genre(state, item, &explanation.terms));
        reasons.extend(self.popular(state, item));
        if self.numbers {
            reasons.extend(explanation.terms.iter().take(TERMS).map(|term| Reason::Term {
                source: term.source,
                value: term.value,
                contribution: term.contribution,
            }));
        }
        reasons
    }

    fn because(&self, state: &ViewState, explanation: &Explanation) -> Option<Reason> {
        let because = explanation.because?;
        let movie = state.movies.at(because.item)?;
        let liked = self
            .past
            .iter()
            .any(|&(item, liked)| item == because.item && liked);
        let verb = match (self.seeds.contains(&because.item), liked) {
            (true, _) => "chose",
            (false, true) => "liked",
            (false, false) => "watched",
        };
        Some(Reason::Because {
            movie_id: movie.movie_id,
            title: movie.title.clone(),
            text: format!("because you {verb} {}", movie.title),
            share: self.numbers.then_some(because.share),
        })
    }

    /// Where genres add to the score: those asked for, else the one of the movie's that the history holds most often.
    fn genre(&self, state: &ViewState, item: u32, terms: &[Term]) -> Option<Reason> {
        let adds = |sources: &[&str]| -> f32 {
            terms
                .iter()
                .filter(|term| sources.contains(&term.source))
                .map(|term| term.contribution)
                .sum()
        };
        let rows = state.movies.rows();
        let genres = &rows.get(item as usize)?.genres;
        let asked = adds(&["wanted-genre"]);
        let (chosen, verb, contribution) = if asked > 0.0 {
            let chosen: Vec<u32> = genres
                .iter()
                .copied()
                .filter(|genre| self.wanted.contains(genre))
                .collect();
            (chosen, "asked for", asked)
        } else {
            let watched = adds(&["genre-affinity", "genre-affinity-recent"]);
            if watched <= 0.0 {
                return None;
            }
            let often = |genre: &u32| {
                self.past
                    .iter()
                    .rev()
                    .take(RECENT)
                    .filter(|(past, _)| {
                        rows.get(*past as usize)
                            .is_some_and(|row| row.genres.contains(genre))
                    })
                    .count()
            };
            let most = genres.iter().copied().min_by_key(|genre| Reverse(often(genre)))?;
            (vec![most], "often watch", watched)
        };
        let names: Vec<String> = chosen
            .into_iter()
            .filter_map(|genre| state.movies.genre_name(genre).map(str::to_owned))
            .collect();
        (!names.is_empty()).then(|| Reason::Genre {
            text: format!("because you {verb} {}", names.join(", ")),
            genres: names,
            contribution: self.numbers.then_some(contribution),
        })
    }

    fn popular(&self, state: &ViewState, item: u32) -> Option<Reason> {
        let stats = state.live.item_stats(item, event_now(state));
        (stats.like_count > 0).then(|| Reason::Popular {
            text: format!("liked {} of {} times", stats.like_count, stats.count),
            likes: self.numbers.then_some(stats.like_count),
            interactions: self.numbers.then_some(stats.count),
        })
    }
}
