//! Makes lists: candidates, scores, filters, shape, exploration, explanations. Knows nothing of HTTP.
//!
//! One answer is one read lock on the [`View`], one pointer load of the [`Champion`], and one scoring pass over the
//! catalogue with buffers from a pool. Explanations are made afterwards, under a lock of their own, because they cost
//! a pass per history entry and a waiting writer must not wait for both. A model that is not bound to the view which is
//! read counts as none: for a moment while a view that was loaded anew is shown.

mod ask;
mod deadline;
mod explain;
mod explore;
mod filter;
mod popular;
mod recommend;
mod scratch;
mod search;
mod shape;
mod similar;
mod stopwatch;

use std::sync::Arc;

pub use ask::{
    Answer, Explain, Fallback, ListItem, Policy, PopularAsk, Reason, RecommendAsk, Refused, SimilarAsk,
};
pub use deadline::{Deadlines, LeftOut};
pub use explore::{Explore, ExploreConfig};
pub use popular::Window;
pub use search::Found;
pub use shape::Shape;

use crate::champion::Champion;
use crate::view::{View, ViewState};
use popular::PopularCache;
use scratch::Pool;
use search::SearchCache;

/// Settings of an [`Engine`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EngineSettings {
    /// How long a ranking by popularity may be reused while new events come in, ms.
    pub popular_ttl_ms: u64,
    /// The exploration slice.
    pub explore: ExploreConfig,
    /// When a stage is too late.
    pub deadlines: Deadlines,
}

/// Makes lists from a view and a champion.
#[derive(Debug)]
pub struct Engine {
    view: Arc<View>,
    champion: Arc<Champion>,
    settings: EngineSettings,
    pool: Pool,
    popular: PopularCache,
    titles: SearchCache,
}

impl Engine {
    /// An engine over a view and a champion.
    #[must_use]
    pub fn new(view: Arc<View>, champion: Arc<Champion>, settings: EngineSettings) -> Self {
        Self {
            view,
            champion,
            pool: Pool::default(),
            popular: PopularCache::new(settings.popular_ttl_ms),
            titles: SearchCache::default(),
            settings,
        }
    }

    /// The view it reads.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The champion it asks.
    #[must_use]
    pub fn champion(&self) -> &Champion {
        &self.champion
    }
}

/// Moment of the stream at which decays are read, ms.
fn event_now(state: &ViewState) -> i64 {
    state.as_of_ms().unwrap_or(0)
}

#[cfg(test)]
mod tests;
