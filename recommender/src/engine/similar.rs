//! Movies like other movies.

use super::filter::Filter;
use super::recommend::seeds_of;
use super::stopwatch::Stopwatch;
use super::{Answer, Engine, Fallback, ListItem, Refused, SimilarAsk, Window, event_now};
use crate::view::ViewState;

/// Most popular movies whose genres are compared.
const LOOKED_AT: usize = 20_000;

impl Engine {
    /// Movies that people treat like the given ones. Where behaviour connects too few, movies that share most genres
    /// with them follow, the popular ones first, and say so by their source.
    ///
    /// # Errors
    /// [`Refused`] for a restriction no movie can meet or a movie that is not in the catalogue.
    pub fn similar(&self, ask: &SimilarAsk) -> Result<Answer, Refused> {
        let mut watch = Stopwatch::start();
        self.pool.with(|scratch| {
            let serving = self.champion.serving();
            let state = self.view.read();
            let serving = serving.filter(|serving| serving.fits(&state));
            let filter = Filter::compile(&ask.filters, &state)?;
            let seeds = seeds_of(&ask.movies, "movie_ids", &state)?;
            let allowed = &mut scratch.allowed;
            let mut candidates = filter.mask(&state, allowed);
            for &seed in &seeds {
                if let Some(allowed) = allowed.get_mut(seed as usize) {
                    candidates -= u32::from(std::mem::replace(allowed, false));
                }
            }
            watch.lap("filter");
            let mut items = Vec::with_capacity(ask.k);
            if let Some(serving) = &serving {
                // The model knows no restrictions: it gives its whole order where there are some.
                let open = candidates as usize + seeds.len() >= state.movies.present();
                let depth = if open {
                    // Movies that left the catalogue may take places in its order.
                    ask.k + state.movies.len() - state.movies.present()
                } else {
                    state.movies.len()
                };
                let order = serving.model.similar(
                    &serving.binding,
                    &state.live,
                    &seeds,
                    event_now(&state),
                    depth,
                    &mut scratch.score,
                );
                for best in order {
                    if items.len() == ask.k {
                        break;
                    }
                    if let Some(flag) = allowed.get_mut(best.item as usize)
                        && std::mem::replace(flag, false)
                        && let Some(movie) = state.movies.at(best.item)
                    {
                        items.push(ListItem::ranked(movie, best.score, "item_item"));
                    }
                }
            }
            let fallback = match (&serving, items.is_empty()) {
                (None, _) => Some(Fallback::NoModel),
                (Some(_), true) => Some(Fallback::NoEvidence),
                (Some(_), false) => None,
            };
            let wanted = ask.k - items.len();
            if wanted > 0 {
                items.extend(self.alike(&state, &seeds, wanted, allowed));
            }
            watch.lap("rank");
            Ok(Answer {
                model_version: serving.as_ref().map(|serving| serving.version.clone()),
                fallback,
                as_of_ms: state.as_of_ms(),
                candidates,
                items,
                stages: watch.finish(),
                ..Answer::default()
            })
        })
    }

    /// By the share of common genres (Jaccard), equal ones by popularity. Looks no further than it must: at the
    /// [`LOOKED_AT`] most popular ones, and at all others only where those are not enough.
    fn alike(&self, state: &ViewState, seeds: &[u32], k: usize, allowed: &[bool]) -> Vec<ListItem> {
        let rows = state.movies.rows();
        let genres_of = |item: u32| rows.get(item as usize).map_or(&[][..], |row| &row.genres[..]);
        let mut wanted: Vec<u32> = seeds.iter().flat_map(|&seed| genres_of(seed)).copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let share = |item: u32| {
            let genres = genres_of(item);
            let common = genres.iter().filter(|genre| wanted.contains(genre)).count();
            let union = wanted.len() + genres.len() - common;
            if union == 0 {
                0.0
            } else {
                common as f32 / union as f32
            }
        };
        let ranking = self.popular.ranking(state, Window::All);
        let open = ranking
            .iter()
            .filter(|(item, _)| allowed.get(*item as usize).copied().unwrap_or(false));
        let mut ranked: Vec<(u32, f32)> = Vec::new();
        let mut same = 0;
        for (looked, &(item, _)) in open.enumerate() {
            if same == k || (looked >= LOOKED_AT && ranked.len() >= k) {
                break;
            }
            let share = share(item);
            same += usize::from(share == 1.0);
            if share > 0.0 {
                ranked.push((item, share));
            }
        }
        // Stable: the order by popularity stays within equal shares.
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
            .into_iter()
            .take(k)
            .filter_map(|(item, score)| Some(ListItem::ranked(state.movies.at(item)?, score, "genre")))
            .collect()
    }
}
