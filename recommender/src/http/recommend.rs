//! `POST /recommend`

use axum::extract::State;
use axum::{Extension, Json};
use marquee_schemas::{Endpoint, Filters, UserId};
use serde::Deserialize;

use super::extract::JsonBody;
use super::list::{Asked, ContextBody, ListAnswer, check_text};
use super::{App, AppState, Problem, RequestMeta};
use crate::engine::RecommendAsk;

/// The request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecommendBody {
    /// For whom; nobody in particular when absent.
    pub user_id: Option<UserId>,
    /// Entries wanted.
    pub k: Option<u32>,
    /// Restrictions.
    pub filters: Filters,
    /// Where and when.
    pub context: ContextBody,
    /// Whether movies the user has seen may be listed.
    pub include_seen: bool,
    /// Whether to say why each entry is on the list.
    pub explain: bool,
}

pub(super) async fn recommend(
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<RecommendBody>,
) -> Result<Json<ListAnswer>, Problem> {
    let k = state.check_k(body.k)?;
    App::check_user(body.user_id)?;
    state.check_filters(&body.filters)?;
    state.check_seeds("context.seeds", &body.context.seeds)?;
    check_text("context.surface", body.context.surface.as_ref())?;
    check_text("context.session_id", body.context.session_id.as_ref())?;
    let ask = RecommendAsk {
        user: body.user_id,
        k: k as usize,
        filters: body.filters,
        seeds: body.context.seeds,
        include_seen: body.include_seen,
        explain: body.explain,
    };
    // Taking scores apart costs many scoring passes.
    let (ask, answer) = state
        .compute(ask.explain, move |app| {
            let answer = app.engine.recommend(&ask);
            (ask, answer)
        })
        .await?;
    let asked = Asked {
        endpoint: Endpoint::Recommend,
        user_id: ask.user,
        surface: body.context.surface,
        k,
        seeds: ask.seeds,
        filters: ask.filters,
    };
    Ok(Json(state.answer(&meta, asked, answer?)))
}
