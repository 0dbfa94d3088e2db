//! Why an entry is on the list.

use marquee_models::served::Query;

use super::recommend::{person, seeds_of};
use super::scratch::Scratch;
use super::{Engine, ListItem, Reason, RecommendAsk, event_now};
use crate::champion::Serving;

/// Terms of a score that are told.
const TERMS: usize = 5;

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
        for entry in items {
            entry.reasons = Some(self.reasons(ask, serving, entry, scratch));
        }
    }

    fn reasons(
        &self,
        ask: &RecommendAsk,
        serving: Option<&Serving>,
        entry: &ListItem,
        scratch: &mut Scratch,
    ) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let state = self.view.read();
        let Some((item, _)) = state.movies.find(entry.movie.movie_id) else {
            return reasons;
        };
        let now = event_now(&state);
        // A seed that left the catalogue meanwhile no longer explains anything.
        let seeds = seeds_of(&ask.seeds, "context.seeds", &state).unwrap_or_default();
        if let Some(serving) = serving {
            let person = person(ask, &seeds, Some(serving), &state, &mut scratch.history);
            let query = Query {
                binding: &serving.binding,
                live: &state.live,
                context: person.context,
                now_ms: now,
            };
            let explanation = serving.model.explain(&query, item, &mut scratch.score);
            if let Some(because) = explanation.because
                && let Some(movie) = state.movies.at(because.item)
            {
                let seed = seeds.contains(&because.item);
                let liked = person
                    .context
                    .history
                    .iter()
                    .any(|past| past.item == because.item && past.is_like());
                let verb = match (seed, liked) {
                    (true, _) => "chose",
                    (false, true) => "liked",
                    (false, false) => "watched",
                };
                reasons.push(Reason::Because {
                    movie_id: movie.movie_id,
                    title: movie.title.clone(),
                    share: because.share,
                    text: format!("because you {verb} {}", movie.title),
                });
            }
            reasons.extend(
                explanation
                    .terms
                    .into_iter()
                    .take(TERMS)
                    .map(|term| Reason::Term {
                        source: term.source,
                        value: term.value,
                        contribution: term.contribution,
                    }),
            );
        }
        let stats = state.live.item_stats(item, now);
        if stats.like_count > 0 {
            reasons.push(Reason::Popular {
                likes: stats.like_count,
                interactions: stats.count,
                text: format!("liked {} of {} times", stats.like_count, stats.count),
            });
        }
        reasons
    }
}
