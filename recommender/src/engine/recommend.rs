//! A list for a user, known or not.

use std::sync::Arc;

use marquee_models::live::HistoryEntry;
use marquee_models::served::{Context, Query};
use marquee_schemas::MovieId;

use super::filter::Filter;
use super::scratch::Scratch;
use super::stopwatch::Stopwatch;
use super::{Answer, Engine, Fallback, ListItem, RecommendAsk, Refused, Window, event_now};
use crate::champion::Serving;
use crate::view::ViewState;

/// A seen list of its own that holds no movie: tells the model to leave nothing out. (Given an empty one it would
/// leave out the history.)
const NOTHING_SEEN: [u32; 1] = [u32::MAX];

/// What is known of the person at the time of the request.
pub(super) struct Person<'a> {
    pub(super) context: Context<'a>,
    pub(super) seen: &'a [u32],
    feature_version: Option<u64>,
    fallback: Option<Fallback>,
}

impl Engine {
    /// A list for somebody: by the champion from the user's history and the seeds; by popularity where neither is
    /// there or no model serves.
    ///
    /// # Errors
    /// [`Refused`] for a restriction no movie can meet or a seed that is not in the catalogue.
    pub fn recommend(&self, ask: &RecommendAsk) -> Result<Answer, Refused> {
        let mut watch = Stopwatch::start();
        self.pool.with(|scratch| {
            let serving = self.champion.serving();
            let mut answer = {
                let state = self.view.read();
                let Scratch {
                    score,
                    allowed,
                    history,
                } = &mut *scratch;
                let filter = Filter::compile(&ask.filters, &state.movies)?;
                let seeds = seeds_of(&ask.seeds, "context.seeds", &state)?;
                let person = person(ask, &seeds, serving.as_deref(), &state, history);
                watch.lap("features");

                let mut candidates = filter.mask(&state.movies, allowed);
                let mut leave_out = |items: &[u32]| {
                    for &item in items {
                        if let Some(allowed) = allowed.get_mut(item as usize) {
                            candidates -= u32::from(std::mem::replace(allowed, false));
                        }
                    }
                };
                if !ask.include_seen {
                    leave_out(person.seen);
                }
                leave_out(&seeds);
                watch.lap("filter");

                let mut fallback = person.fallback;
                let items = match serving.as_deref() {
                    None => {
                        fallback = Some(Fallback::NoModel);
                        self.most_popular(&state, Window::default(), ask.k, |item| allowed[item as usize])
                    }
                    Some(serving) => {
                        let query = Query {
                            binding: &serving.binding,
                            live: &state.live,
                            context: person.context,
                            now_ms: event_now(&state),
                        };
                        serving.model.score_all(&query, score);
                        let source = if fallback.is_some() { "popularity" } else { "blend" };
                        score
                            .top(ask.k, |item| {
                                !allowed.get(item as usize).copied().unwrap_or(false)
                            })
                            .into_iter()
                            .filter_map(|best| {
                                Some(ListItem {
                                    movie: Arc::clone(state.movies.at(best.item)?),
                                    score: best.score,
                                    source,
                                    reasons: None,
                                })
                            })
                            .collect()
                    }
                };
                watch.lap("rank");
                Answer {
                    model_version: serving.as_ref().map(|serving| serving.version.clone()),
                    fallback,
                    feature_version: person.feature_version,
                    as_of_ms: state.as_of_ms(),
                    candidates,
                    items,
                    stages: Vec::new(),
                }
            };
            if ask.explain {
                self.explain(ask, serving.as_deref(), &mut answer.items, scratch);
                watch.lap("explain");
            }
            answer.stages = watch.finish();
            Ok(answer)
        })
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
    // What may be listed is decided by the mask alone.
    context.seen = &NOTHING_SEEN;
    let mut fallback = None;
    if context.history.is_empty() {
        fallback = Some(match (ask.user, known) {
            (None, _) => Fallback::Anonymous,
            (Some(_), None) => Fallback::UnknownUser,
            (Some(_), Some(_)) => Fallback::NoHistory,
        });
        if let (Some((_, row)), Some(serving)) = (known, serving) {
            let preferred: Vec<&String> = row.preferred().collect();
            let genres = serving.genres.mask(&preferred);
            if genres != 0 {
                context = context.with_genres(genres);
                fallback = Some(Fallback::PreferredGenres);
            }
        }
    }
    Person {
        context,
        seen,
        feature_version: known.map(|(_, row)| row.feature_version()),
        fallback,
    }
}
