//! The champion: the one model that serves, followed through `model-events`, verified, bound, warmed, then swapped in
//! by one pointer. A bundle that fails any of this is refused and alerted, and the old champion serves on.

mod follow;
mod loader;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use marquee_models::live::LiveParams;
use marquee_models::served::{Binding, Context, Query, ScoreScratch, ServedModel};
use marquee_schemas::ModelVersion;
use marquee_trainer::GenreVocabulary;

pub(crate) use follow::{FollowModels, follow};
pub use loader::{BundleLoader, LoadError, Loaded, RegistryBundles};

use crate::view::{View, ViewState};

/// Users scored before a model may serve.
const WARM_UP_USERS: usize = 32;

/// A model in service, bound to the catalogue of the view.
#[derive(Debug)]
pub struct Serving {
    /// Its version.
    pub version: ModelVersion,
    /// The model.
    pub model: Arc<ServedModel>,
    /// Which genre is which bit for it.
    pub genres: Arc<GenreVocabulary>,
    /// How the view's movies map to the model's.
    pub binding: Binding,
    /// SHA-256 of its bundle, lower-case hex.
    pub sha256: String,
    generation: u64,
}

/// Why a verified bundle may still not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedModel {
    /// It gives scores that are no numbers.
    #[error("gives scores that are not finite")]
    NotFinite,
    /// It knows none of the movies it is to rank.
    #[error("knows none of the catalogue's movies")]
    Stranger,
}

/// The slot of the champion, and of the one before it. Reading is one atomic load.
#[derive(Debug, Default)]
pub struct Champion {
    serving: ArcSwapOption<Serving>,
    previous: ArcSwapOption<Serving>,
    /// Held by whoever replaces the pointer, so that a new model and a new binding do not overtake each other.
    swap: Mutex<()>,
}

impl Champion {
    /// The model that serves now; `None` before the first promotion.
    #[must_use]
    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    /// The champion before this one, still loaded.
    #[must_use]
    pub fn previous(&self) -> Option<Arc<Serving>> {
        self.previous.load_full()
    }

    /// The settings of the live state that the champion was trained with.
    #[must_use]
    pub fn params(&self) -> Option<LiveParams> {
        self.serving().map(|serving| serving.model.params().live.clone())
    }

    /// Binds `model` to the view, warms it, and swaps it in.
    ///
    /// # Errors
    /// [`RefusedModel`]; the old champion then serves on.
    pub fn install(&self, version: ModelVersion, loaded: Loaded, view: &View) -> Result<(), RefusedModel> {
        self.swap_in(
            Parts {
                version,
                model: Arc::new(loaded.model),
                genres: Arc::new(loaded.genres),
                sha256: loaded.sha256,
            },
            view,
        )
    }

    /// Lets the previous champion serve again if it is `version`; `false` when it is another.
    ///
    /// # Errors
    /// As [`Champion::install`].
    pub fn restore(&self, version: &ModelVersion, view: &View) -> Result<bool, RefusedModel> {
        let Some(previous) = self.previous().filter(|previous| &previous.version == version) else {
            return Ok(false);
        };
        self.swap_in(previous.parts(), view)?;
        Ok(true)
    }

    fn swap_in(&self, parts: Parts, view: &View) -> Result<(), RefusedModel> {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = parts.bind(view);
        warm_up(&serving, view)?;
        view.want_params(&serving.model.params().live);
        let old = self.serving.swap(Some(Arc::new(serving)));
        self.previous.store(old);
        Ok(())
    }

    /// Binds the champion anew where the catalogue changed since.
    pub fn rebind(&self, view: &View) {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = self.serving()
            && old.generation != view.read().movies.generation()
        {
            self.serving.store(Some(Arc::new(old.parts().bind(view))));
        }
    }
}

/// A champion before it is bound.
struct Parts {
    version: ModelVersion,
    model: Arc<ServedModel>,
    genres: Arc<GenreVocabulary>,
    sha256: String,
}

impl Parts {
    fn bind(self, view: &View) -> Serving {
        let (catalogue, generation) = {
            let state = view.read();
            (state.movies.catalogue(&self.genres), state.movies.generation())
        };
        Serving {
            version: self.version,
            binding: self.model.bind_catalogue(&catalogue),
            model: self.model,
            genres: self.genres,
            sha256: self.sha256,
            generation,
        }
    }
}

impl Serving {
    fn parts(&self) -> Parts {
        Parts {
            version: self.version.clone(),
            model: Arc::clone(&self.model),
            genres: Arc::clone(&self.genres),
            sha256: self.sha256.clone(),
        }
    }
}

/// Scores nobody and some users, so that a model which cannot does not serve and the first request meets warm caches.
fn warm_up(serving: &Serving, view: &View) -> Result<(), RefusedModel> {
    let users: Vec<u32> = view.read().users.indices().take(WARM_UP_USERS).collect();
    let binding = &serving.binding;
    if !binding.is_empty() && (0..binding.len() as u32).all(|item| binding.model_index(item).is_none()) {
        return Err(RefusedModel::Stranger);
    }
    let mut scratch = ScoreScratch::new();
    let mut finite = |state: &ViewState, context: Context<'_>| {
        let query = Query {
            binding,
            live: &state.live,
            context,
            now_ms: state.as_of_ms().unwrap_or(0),
        };
        serving
            .model
            .score_all(&query, &mut scratch)
            .iter()
            .all(|score| score.is_finite())
    };
    let mut good = finite(&view.read(), Context::default());
    for user in users {
        let state = view.read();
        good &= finite(&state, Context::of_user(&state.live, user));
    }
    if good {
        Ok(())
    } else {
        Err(RefusedModel::NotFinite)
    }
}

#[cfg(test)]
mod tests;
