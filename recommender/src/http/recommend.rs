//! `POST /recommend` and `POST /recommend/batch`

use std::time::Instant;

use axum::extract::State;
use axum::{Extension, Json};
use marquee_schemas::{Endpoint, Filters, UserId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::{JsonBody, object, objects};
use super::list::{Asked, ContextBody, ListAnswer, check_text};
use super::{App, AppState, Owed, Problem, RequestMeta, Work};
use crate::engine::{Explain, Explore, RecommendAsk, Refused, Shape};
use crate::shadow::Task;
use crate::traffic::Unit;

/// Genres asked for at most.
const MOST_GENRES: usize = 32;

/// A list asked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(default)]
pub struct RecommendBody {
    /// For whom; nobody in particular when absent.
    pub user_id: Option<UserId>,
    /// Entries wanted.
    #[schemars(range(min = 1))]
    pub k: Option<u32>,
    /// Restrictions.
    #[serde(deserialize_with = "object")]
    pub filters: Filters,
    /// Where and when.
    #[serde(deserialize_with = "object")]
    pub context: ContextBody,
    /// Whether movies the user has seen may be listed.
    pub include_seen: bool,
    /// How different the entries should be, 0 (as ranked) to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub diversity: Option<f32>,
    /// How strongly newer movies come first, 0 (not at all) to 1 (half the relevance per ten years).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub recency: Option<f32>,
    /// Whether to say why each entry is on the list.
    pub explain: bool,
    /// With `explain`: also the numbers behind the reasons.
    pub numbers: bool,
    /// Whether the list is drawn at random: `false` never, `true` always, absent: where it falls into the exploration
    /// slice.
    pub explore: Option<bool>,
    /// The arm of the running experiment that is to answer, for tests and demonstrations; absent: the user's own.
    pub arm: Option<String>,
}

/// Several lists asked for at once.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    /// The lists, answered in this order.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    pub requests: Vec<RecommendBody>,
}

/// What became of one list of a batch.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchResult {
    /// The list.
    List(ListAnswer),
    /// Why there is none.
    Problem(Problem),
}

/// Several lists.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BatchAnswer {
    /// In the order of the requests.
    pub results: Vec<BatchResult>,
}

impl RecommendBody {
    /// Checks everything that can be checked without the catalogue.
    pub(super) fn prepare(self, app: &AppState, meta: &RequestMeta) -> Result<Prepared, Problem> {
        let k = app.check_k(self.k)?;
        App::check_user("user_id", self.user_id)?;
        app.check_filters(&self.filters)?;
        app.check_seeds("context.seeds", &self.context.seeds)?;
        check_text("context.surface", self.context.surface.as_ref())?;
        check_text("context.session_id", self.context.session_id.as_ref())?;
        check_strength("diversity", self.diversity)?;
        check_strength("recency", self.recency)?;
        if self.context.genres.len() > MOST_GENRES {
            return Err(Problem::invalid_parameter(
                "context.genres",
                format!("{} genres, allowed are {MOST_GENRES}", self.context.genres.len()),
            ));
        }
        let unit = Unit {
            user: self.user_id,
            session: self.context.session_id.as_deref(),
            request: meta.id.as_bytes(),
        };
        let assigned = app
            .traffic
            .assign(app.engine.champion(), unit, self.arm.as_deref())
            .map_err(|unknown| Problem::invalid_parameter("arm", unknown.to_string()))?;
        let asked = Asked {
            endpoint: Endpoint::Recommend,
            user_id: self.user_id,
            surface: self.context.surface,
            k,
            seeds: self.context.seeds.clone(),
            filters: self.filters.clone(),
        };
        let ask = RecommendAsk {
            user: self.user_id,
            k: k as usize,
            filters: self.filters,
            seeds: self.context.seeds,
            genres: self.context.genres,
            include_seen: self.include_seen,
            explain: match (self.explain, self.numbers) {
                (false, _) => Explain::No,
                (true, false) => Explain::Words,
                (true, true) => Explain::Numbers,
            },
            shape: Shape {
                diversity: self.diversity.unwrap_or(assigned.diversity),
                recency: self.recency.unwrap_or(assigned.recency),
            },
            explore: match self.explore {
                Some(false) => Explore::Never,
                Some(true) => Explore::Always(meta.id.into_bytes()),
                None => Explore::Slice(meta.id.into_bytes()),
            },
            arrived: Some(meta.started),
        };
        Ok(Prepared {
            ask,
            owed: Owed::new(app, *meta, asked, assigned),
        })
    }
}

fn check_strength(field: &'static str, strength: Option<f32>) -> Result<(), Problem> {
    match strength {
        Some(strength) if !(0.0..=1.0).contains(&strength) => Err(Problem::invalid_parameter(
            field,
            format!("{strength} is outside 0 to 1"),
        )),
        _ => Ok(()),
    }
}

/// A list asked for, checked, with who is to make it.
pub(crate) struct Prepared {
    pub(crate) ask: RecommendAsk,
    pub(crate) owed: Owed,
}

impl App {
    /// Makes a list, logs it, and lets a model on trial make one on the side.
    pub(crate) fn serve(&self, prepared: Prepared) -> Result<ListAnswer, Refused> {
        let Prepared { ask, mut owed } = prepared;
        let answer = self.engine.recommend_by(owed.assigned.serving.as_deref(), &ask)?;
        let list = owed.settle(answer);
        if let Some(serving) = self.traffic.shadow(self.engine.champion())
            && self.falls_into_shadow(&owed.meta)
        {
            self.shadow.offer(Task {
                serving,
                meta: owed.meta,
                ask,
                asked: owed.asked.clone(),
            });
        }
        Ok(list)
    }

    /// By the random end of the request's id.
    fn falls_into_shadow(&self, meta: &RequestMeta) -> bool {
        let [.., a, b, c, d] = *meta.id.as_bytes();
        f64::from(u32::from_be_bytes([a, b, c, d])) < self.config.shadow_share * 4_294_967_296.0
    }
}

pub(super) async fn recommend(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<RecommendBody>,
) -> Result<Json<ListAnswer>, Problem> {
    let prepared = body.prepare(&state, &meta)?;
    // Taking scores apart costs many scoring passes.
    let work = match prepared.ask.explain {
        Explain::No => Work::Short,
        Explain::Words | Explain::Numbers => Work::Long,
    };
    let list = state.compute(work, move |app| app.serve(prepared)).await?;
    list.map(Json).map_err(|refused| state.refusal(refused))
}

/// Each list is logged under an id of its own, and a request that is refused does not touch the others.
pub(super) async fn batch(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<BatchBody>,
) -> Result<Json<BatchAnswer>, Problem> {
    let (requests, most) = (body.requests, state.config.max_batch);
    if !(1..=most).contains(&requests.len()) {
        return Err(Problem::invalid_parameter(
            "requests",
            format!("{} requests, allowed are 1 to {most}", requests.len()),
        ));
    }
    let results = state
        .compute(Work::Batch, move |app| {
            requests
                .into_iter()
                .map(|request| {
                    // Its time is its own: the lists before it do not make it late.
                    let meta = RequestMeta {
                        id: app.ids.next(meta.received_ms),
                        started: Instant::now(),
                        ..meta
                    };
                    let prepared = request.prepare(app, &meta)?;
                    app.serve(prepared).map_err(|refused| app.refusal(refused))
                })
                .map(|outcome| outcome.map_or_else(BatchResult::Problem, BatchResult::List))
                .collect()
        })
        .await?;
    Ok(Json(BatchAnswer { results }))
}
