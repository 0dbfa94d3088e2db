//! A list for a user, known or not.

use marquee_models::live::HistoryEntry;
use marquee_models::served::{Context, Query};
use marquee_schemas::MovieId;

use super::explore::plackett_luce;
use super::filter::{Filter, numbers};
use super::scratch::{Candidate, Scratch};
use super::shape::shape;
use super::stopwatch::Stopwatch;
use super::{
    Answer, Engine, Explain, Fallback, LeftOut, ListItem, Policy, RecommendAsk, Refused, Window, event_now,
};
use crate::champion::Serving;
use crate::view::ViewState;

/// Candidates that diversity and recency choose from, per entry of the list, and in all.
const SHAPED_PER_ENTRY: usize = 5;
const SHAPED_AT_LEAST: usize = 50;

/// What is known of the person at the time of the request.
pub(super) struct Person<'a> {
    pub(super) context: Context<'a>,
    pub(super) seen: &'a [u32],
    feature_version: Option<u64>,
    fallback: Option<Fallback>,
}

impl Engine {
    /// A list for somebody: by the champion from the user's history and the seeds; by popularity where neither is
    /// there or no model serves. Then shaped, drawn and explained as asked.
    ///
    /// # Errors
    /// [`Refused`] for a restriction no movie can meet or a seed that is not in the catalogue.
    pub fn recommend(&self, ask: &RecommendAsk) -> Result<Answer, Refused> {
        self.recommend_by(self.champion.serving().as_deref(), ask)
    }

    /// [`Engine::recommend`] by another model than the champion.
    ///
    /// # Errors
    /// As [`Engine::recommend`].
    pub fn recommend_by(&self, serving: Option<&Serving>, ask: &RecommendAsk) -> Result<Answer, Refused> {
        let mut watch = Stopwatch::start();
        self.pool.with(|scratch| {
            let mut answer = self.rank(serving, ask, scratch, &mut watch)?;
            if ask.explain != Explain::No {
                if self.settings.deadlines.missed(LeftOut::Explanations, ask.arrived) {
                    answer.left_out.push(LeftOut::Explanations);
                } else {
                    self.explain(ask, serving, &mut answer.items, scratch);
                    watch.lap("explain");
                }
            }
            answer.stages = watch.finish();
            Ok(answer)
        })
    }

    /// Everything that needs one moment of the view.
    fn rank(
        &self,
        serving: Option<&Serving>,
        ask: &RecommendAsk,
        scratch: &mut Scratch,
        watch: &mut Stopwatch,
    ) -> Result<Answer, Refused> {
        let state = self.view.read();
        let serving = serving.filter(|serving| serving.fits(&state));
        let filter = Filter::compile(&ask.filters, &state)?;
        let seeds = seeds_of(&ask.seeds, "context.seeds", &state)?;
        let wanted = numbers("context.genres", &ask.genres, &state.movies)?;
        let Scratch {
            score,
            allowed,
            history,
            candidates,
        } = scratch;
        let person = person(ask, &seeds, serving, &state, history);
        watch.lap("features");

        let mut passed = filter.mask(&state, allowed);
        let mut leave_out = |items: &[u32]| {
            for &item in items {
                if let Some(allowed) = allowed.get_mut(item as usize) {
                    passed -= u32::from(std::mem::replace(allowed, false));
                }
            }
        };
        if !ask.include_seen {
            leave_out(person.seen);
        }
        leave_out(&seeds);
        watch.lap("filter");

        let mut left_out = Vec::new();
        let mut fallback = person.fallback;
        let ranked_by = match serving {
            None => {
                fallback = Some(Fallback::NoModel);
                None
            }
            Some(_)
                if self
                    .settings
                    .deadlines
                    .missed(LeftOut::PersonalRanking, ask.arrived) =>
            {
                left_out.push(LeftOut::PersonalRanking);
                fallback = Some(Fallback::Late);
                None
            }
            Some(serving) => Some(serving),
        };
        let mut generator = ask.explore.draw(self.settings.explore.share);
        let mut depth = ask.k;
        if generator.is_some() {
            depth = depth.max(self.settings.explore.pool);
        }
        let shown = depth;
        if !ask.shape.is_plain() {
            depth = depth.max(SHAPED_AT_LEAST).max(ask.k * SHAPED_PER_ENTRY);
        }
        candidates.clear();
        match ranked_by {
            None => candidates.extend(self.most_popular(&state, &wanted, depth, allowed)),
            Some(serving) => {
                let query = Query {
                    binding: &serving.binding,
                    live: &state.live,
                    context: person.context,
                    now_ms: event_now(&state),
                };
                let may = |item: u32| allowed.get(item as usize).copied().unwrap_or(false);
                let best = serving.model.best(&query, depth, may, score);
                candidates.extend(best.iter().map(|best| Candidate::new(best.item, best.score)));
            }
        }
        watch.lap("rank");

        if !ask.shape.is_plain() {
            if self.settings.deadlines.missed(LeftOut::Shaping, ask.arrived) {
                left_out.push(LeftOut::Shaping);
            } else {
                shape(candidates, ask.shape, shown, &state.movies);
                watch.lap("shape");
            }
        }
        let source = if fallback.is_some() { "popularity" } else { "blend" };
        let entry = |candidate: &Candidate| {
            let movie = state.movies.at(candidate.item)?;
            Some(ListItem::ranked(movie, candidate.score, source))
        };
        let (policy, items) = match &mut generator {
            None => (
                Policy::Ranked,
                candidates.iter().take(ask.k).filter_map(entry).collect(),
            ),
            Some(generator) => {
                let pool = shown.min(candidates.len());
                let drawn = plackett_luce(pool, ask.k, self.settings.explore.steepness, generator);
                watch.lap("explore");
                let items = drawn.iter().filter_map(|drawn| {
                    Some(ListItem {
                        propensity: drawn.propensity,
                        ..entry(candidates.get(drawn.place)?)?
                    })
                });
                (Policy::PlackettLuce, items.collect())
            }
        };
        Ok(Answer {
            model_version: serving.map(|serving| serving.version.clone()),
            policy,
            fallback,
            left_out,
            feature_version: person.feature_version,
            as_of_ms: state.as_of_ms(),
            candidates: passed,
            items,
            stages: Vec::new(),
        })
    }

    /// What is popular, movies of wanted genres first.
    fn most_popular(
        &self,
        state: &ViewState,
        wanted: &[u32],
        depth: usize,
        allowed: &[bool],
    ) -> Vec<Candidate> {
        let ranking = self.popular.ranking(state, Window::default());
        let wished = |item: u32| {
            state
                .movies
                .rows()
                .get(item as usize)
                .is_some_and(|row| row.genres.iter().any(|genre| wanted.contains(genre)))
        };
        let open = || {
            ranking
                .iter()
                .filter(|(item, _)| allowed.get(*item as usize).copied().unwrap_or(false))
        };
        open()
            .filter(|(item, _)| wished(*item))
            .chain(open().filter(|(item, _)| !wished(*item)))
            .take(depth)
            .map(|&(item, score)| Candidate::new(item, score))
            .collect()
    }
}

/// Indices of seed movies, which must all be in the catalogue; a seed named twice counts once.
pub(super) fn seeds_of(
    seeds: &[MovieId],
    field: &'static str,
    state: &ViewState,
) -> Result<Vec<u32>, Refused> {
    let mut indices = Vec::with_capacity(seeds.len());
    for &movie_id in seeds {
        let (index, _) = state
            .movies
            .find(movie_id)
            .ok_or(Refused::UnknownMovie { field, movie_id })?;
        if !indices.contains(&index) {
            indices.push(index);
        }
    }
    Ok(indices)
}

/// Puts together what is known; `buffer` holds history and seeds where there are seeds.
pub(super) fn person<'a>(
    ask: &RecommendAsk,
    seeds: &[u32],
    serving: Option<&Serving>,
    state: &'a ViewState,
    buffer: &'a mut Vec<HistoryEntry>,
) -> Person<'a> {
    let known = ask.user.and_then(|id| state.users.find(id));
    let live = &state.live;
    let mut context = known.map_or_else(Context::default, |(index, _)| Context::of_user(live, index));
    let seen = context.seen;
    if !seeds.is_empty() {
        let now = event_now(state);
        buffer.clear();
        buffer.extend_from_slice(context.history);
        buffer.extend(seeds.iter().map(|&seed| HistoryEntry::like(seed, now)));
        context.history = buffer;
        context.length += seeds.len();
    }
    let stranger = context.history.is_empty();
    let mut fallback = stranger.then_some(match (ask.user, known) {
        (None, _) => Fallback::Anonymous,
        (Some(_), None) => Fallback::UnknownUser,
        (Some(_), Some(_)) => Fallback::NoHistory,
    });
    if let Some(serving) = serving {
        let mut genres = serving.genres.mask(&ask.genres);
        if genres == 0
            && stranger
            && let Some((_, row)) = known
        {
            let preferred: Vec<&String> = row.preferred().collect();
            genres = serving.genres.mask(&preferred);
        }
        if genres != 0 {
            context = context.with_genres(genres);
            fallback = fallback.map(|_| Fallback::PreferredGenres);
        }
    }
    Person {
        context,
        seen,
        feature_version: known.map(|(_, row)| row.feature_version()),
        fallback,
    }
}
