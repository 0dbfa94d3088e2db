//! One bundle put before a request of the past.

use marquee_models::live::LiveState;
use marquee_models::served::{Binding, Catalogue, CatalogueItem, Context, Query, ScoreScratch, ServedModel};
use marquee_trainer::GenreVocabulary;

use super::past::Past;
use crate::error::Error;
use crate::evaluation::List;

/// A model with the live state as it was at the request it was asked last. Requests must come in the order of time.
#[derive(Debug)]
pub(super) struct Rescorer {
    model: ServedModel,
    binding: Binding,
    live: LiveState,
    /// Events that are folded in.
    folded: usize,
    scratch: ScoreScratch,
}

impl Rescorer {
    pub(super) fn new(model: ServedModel, genres: &GenreVocabulary, past: &Past) -> Result<Self, Error> {
        let catalogue = Catalogue::new(
            past.movies
                .iter()
                .map(|movie| CatalogueItem {
                    external_id: movie.movie_id.0,
                    year: movie.year,
                    genres: genres.mask(&movie.genres),
                })
                .collect(),
        );
        let mut live = LiveState::new(model.params().live.clone())?;
        live.ensure_items(past.movies.len());
        Ok(Self {
            binding: model.bind_catalogue(&catalogue),
            model,
            live,
            folded: 0,
            scratch: ScoreScratch::new(),
        })
    }

    /// The best `depth` movies for the request of `list`, from the top, by what was known when it came in.
    pub(super) fn rank(&mut self, list: &List, past: &Past, depth: usize) -> Vec<u32> {
        while let Some(event) = past
            .events
            .get(self.folded)
            .filter(|event| event.time_ms < list.time_ms)
        {
            self.live.observe(event);
            self.folded += 1;
        }
        let (history, seen) = past.history(list.user_id, list.feature_version);
        let length = history.len();
        let newest = length.saturating_sub(self.live.params().history_limit);
        let context = Context {
            length,
            seen: &seen,
            ..Context::of_history(&history[newest..])
        };
        let query = Query {
            binding: &self.binding,
            live: &self.live,
            context,
            now_ms: self.live.last_event_ms().unwrap_or(0),
        };
        self.model.score_all(&query, &mut self.scratch);
        self.scratch
            .top(depth, |item| seen.binary_search(&item).is_ok())
            .into_iter()
            .filter_map(|best| Some(past.movies.get(best.item as usize)?.movie_id.0))
            .collect()
    }
}
