//! The champion: the one model that serves, followed through `model-events`, verified, bound, warmed, then swapped in
//! by one pointer. A bundle that fails any of this is refused and alerted, and the old champion serves on.

mod follow;
mod loader;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use marquee_models::live::LiveParams;
use marquee_models::served::{Binding, Context, Query, ScoreScratch, ServedModel};
use marquee_schemas::ModelVersion;
use marquee_trainer::GenreVocabulary;

pub(crate) use follow::{FollowModels, follow, refuse};
pub use loader::{BundleLoader, LoadError, Loaded, RegistryBundles};

use crate::view::{Generation, View, ViewState};

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
    generation: Generation,
}

/// Why a verified bundle may still not serve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum RefusedModel {
    /// It gives scores that are no numbers.
    #[error("gives scores that are not finite")]
    NotFinite,
    /// It knows none of the movies it is to rank.
    #[error("knows none of the catalogue's movies")]
    Stranger,
}

/// A model that is being rolled out.
#[derive(Debug, Clone)]
pub struct Challenger {
    /// The model.
    pub serving: Arc<Serving>,
    /// The share of users it serves, 0 to 1.
    pub share: f64,
}

/// The slots of the models in memory: the champion, the one before it, the one being rolled out, and those that an
/// experiment names. Reading is one atomic load.
#[derive(Debug, Default)]
pub struct Champion {
    serving: ArcSwapOption<Serving>,
    previous: ArcSwapOption<Serving>,
    challenger: ArcSwapOption<Challenger>,
    named: ArcSwap<BTreeMap<ModelVersion, Arc<Serving>>>,
    /// Held by whoever replaces a pointer, so that a new model, a new binding and an end do not overtake each other.
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

    /// The model that is being rolled out.
    #[must_use]
    pub fn challenger(&self) -> Option<Arc<Challenger>> {
        self.challenger.load_full()
    }

    /// A model that an experiment asked to keep.
    #[must_use]
    pub fn named(&self, version: &ModelVersion) -> Option<Arc<Serving>> {
        self.named.load().get(version).cloned()
    }

    /// The models that an experiment asked to keep.
    #[must_use]
    pub fn all_named(&self) -> Vec<Arc<Serving>> {
        self.named.load().values().cloned().collect()
    }

    /// Any model in memory of this version.
    fn find(&self, version: &ModelVersion) -> Option<Arc<Serving>> {
        [
            self.serving(),
            self.challenger()
                .map(|challenger| Arc::clone(&challenger.serving)),
            self.previous(),
            self.named(version),
        ]
        .into_iter()
        .flatten()
        .find(|serving| &serving.version == version)
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
        self.swap_in(Parts::of(version, loaded), view)
    }

    /// Binds and warms `model` and gives it a share of the users. The live state stays as the champion wants it.
    ///
    /// # Errors
    /// As [`Champion::install`]; the challenger before it then stays.
    pub fn challenge(
        &self,
        version: ModelVersion,
        loaded: Loaded,
        share: f64,
        view: &View,
    ) -> Result<(), RefusedModel> {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = Arc::new(Parts::of(version, loaded).bind(|| view.read()));
        warm_up(&serving, || view.read())?;
        self.challenger
            .store(Some(Arc::new(Challenger { serving, share })));
        Ok(())
    }

    /// Changes the share of the challenger if it is `version`; `false` when it is another.
    #[must_use]
    pub fn change_share(&self, version: &ModelVersion, share: f64) -> bool {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(challenger) = self
            .challenger()
            .filter(|challenger| &challenger.serving.version == version)
        else {
            return false;
        };
        let serving = Arc::clone(&challenger.serving);
        self.challenger
            .store(Some(Arc::new(Challenger { serving, share })));
        true
    }

    /// Ends the rollout, whichever way.
    pub fn end_challenge(&self) {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        self.challenger.store(None);
    }

    /// Binds and warms `model` and keeps it under its version, for experiments.
    ///
    /// # Errors
    /// As [`Champion::install`].
    pub fn keep(&self, version: ModelVersion, loaded: Loaded, view: &View) -> Result<(), RefusedModel> {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = Parts::of(version, loaded).bind(|| view.read());
        warm_up(&serving, || view.read())?;
        let mut named = BTreeMap::clone(&self.named.load());
        named.insert(serving.version.clone(), Arc::new(serving));
        self.named.store(Arc::new(named));
        Ok(())
    }

    /// Lets a model in memory serve, the previous champion or the challenger for example; `false` when there is none
    /// of this version.
    ///
    /// # Errors
    /// As [`Champion::install`].
    pub fn restore(&self, version: &ModelVersion, view: &View) -> Result<bool, RefusedModel> {
        let Some(known) = self.find(version) else {
            return Ok(false);
        };
        self.swap_in(known.parts(), view)?;
        Ok(true)
    }

    fn swap_in(&self, parts: Parts, view: &View) -> Result<(), RefusedModel> {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = parts.bind(|| view.read());
        warm_up(&serving, || view.read())?;
        view.want_params(&serving.model.params().live);
        let old = self.serving.swap(Some(Arc::new(serving)));
        self.previous.store(old);
        Ok(())
    }

    /// Binds every model anew where the catalogue changed since. Returns those that are let go, with the reason, see
    /// [`Champion::show`].
    pub fn rebind(&self, view: &View) -> Vec<(ModelVersion, RefusedModel)> {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let rebound = self.rebound(|| view.read());
        self.put(rebound)
    }

    /// Lets the readers of `view` see `state`, which was loaded anew, with every model bound to it. A model may have been
    /// installed while there was nothing to try it on: each is checked and warmed first, and let go where it may not
    /// serve. Returns those, with the reason.
    pub fn show(&self, view: &View, state: ViewState) -> Vec<(ModelVersion, RefusedModel)> {
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let rebound = self.rebound(|| &state);
        view.replace(state);
        self.put(rebound)
    }

    fn rebound<S: Deref<Target = ViewState>>(&self, now: impl Fn() -> S) -> Rebound {
        let mut refused = Vec::new();
        let mut renew = |old: &Arc<Serving>| {
            let renewed = old.renewed(&now);
            renewed
                .map_err(|reason| refused.push((old.version.clone(), reason)))
                .ok()
        };
        Rebound {
            serving: self.serving().as_ref().and_then(&mut renew),
            previous: self.previous().as_ref().and_then(&mut renew),
            challenger: self.challenger().and_then(|challenger| {
                let serving = renew(&challenger.serving)?;
                let share = challenger.share;
                Some(Arc::new(Challenger { serving, share }))
            }),
            named: self
                .named
                .load()
                .iter()
                .filter_map(|(version, old)| Some((version.clone(), renew(old)?)))
                .collect(),
            refused,
        }
    }

    fn put(&self, rebound: Rebound) -> Vec<(ModelVersion, RefusedModel)> {
        self.serving.store(rebound.serving);
        self.previous.store(rebound.previous);
        self.challenger.store(rebound.challenger);
        self.named.store(Arc::new(rebound.named));
        rebound.refused
    }
}

/// What is to stand in the slots.
struct Rebound {
    serving: Option<Arc<Serving>>,
    previous: Option<Arc<Serving>>,
    challenger: Option<Arc<Challenger>>,
    named: BTreeMap<ModelVersion, Arc<Serving>>,
    refused: Vec<(ModelVersion, RefusedModel)>,
}

/// A champion before it is bound.
struct Parts {
    version: ModelVersion,
    model: Arc<ServedModel>,
    genres: Arc<GenreVocabulary>,
    sha256: String,
}

impl Parts {
    fn of(version: ModelVersion, loaded: Loaded) -> Self {
        Self {
            version,
            model: Arc::new(loaded.model),
            genres: Arc::new(loaded.genres),
            sha256: loaded.sha256,
        }
    }

    fn bind<S: Deref<Target = ViewState>>(self, now: impl Fn() -> S) -> Serving {
        let (catalogue, generation) = {
            let state = now();
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
    /// Whether its binding speaks of the movies of `state`. It may not know the newest ones yet, but takes none for
    /// another.
    pub(crate) fn fits(&self, state: &ViewState) -> bool {
        self.generation.shares_indices(state.movies.generation())
    }

    /// The same, bound to the catalogue of now.
    fn renewed<S: Deref<Target = ViewState>>(
        self: &Arc<Self>,
        now: impl Fn() -> S,
    ) -> Result<Arc<Self>, RefusedModel> {
        let generation = now().movies.generation();
        if self.generation == generation {
            return Ok(Arc::clone(self));
        }
        let renewed = self.parts().bind(&now);
        if !renewed.generation.shares_indices(self.generation) {
            warm_up(&renewed, &now)?;
        }
        Ok(Arc::new(renewed))
    }

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
fn warm_up<S: Deref<Target = ViewState>>(serving: &Serving, now: impl Fn() -> S) -> Result<(), RefusedModel> {
    let users: Vec<u32> = now().users.indices().take(WARM_UP_USERS).collect();
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
    let mut good = finite(&now(), Context::default());
    for user in users {
        let state = now();
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
