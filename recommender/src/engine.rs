//! Makes lists: candidates, scores, filters, explanations. Knows nothing of HTTP.
//!
//! One answer is one read lock on the [`View`], one pointer load of the [`Champion`], and one scoring pass over the
//! catalogue with buffers from a pool. Explanations are made afterwards, each under a lock of its own, because they
//! cost several passes and a waiting writer must not wait for them.

mod ask;
mod explain;
mod filter;
mod popular;
mod recommend;
mod scratch;
mod similar;
mod stopwatch;

use std::sync::Arc;

pub use ask::{Answer, Fallback, ListItem, PopularAsk, Reason, RecommendAsk, Refused, SimilarAsk};
pub use popular::Window;

use crate::champion::Champion;
use crate::view::{View, ViewState};
use popular::PopularCache;
use scratch::Pool;

/// Makes lists from a view and a champion.
#[derive(Debug)]
pub struct Engine {
    view: Arc<View>,
    champion: Arc<Champion>,
    pool: Pool,
    popular: PopularCache,
}

impl Engine {
    /// An engine that may reuse a ranking by popularity for `popular_ttl_ms`.
    #[must_use]
    pub fn new(view: Arc<View>, champion: Arc<Champion>, popular_ttl_ms: u64) -> Self {
        Self {
            view,
            champion,
            pool: Pool::default(),
            popular: PopularCache::new(popular_ttl_ms),
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
