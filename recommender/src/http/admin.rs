//! `/admin`: models and retraining, behind a key.
//!
//! The configuration holds the key's SHA-256, so that neither a settings file nor its print-out gives it away; since
//! digests are compared, the time it takes tells nothing of the key.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::{Extension, Json};
use marquee_runtime::bus::Outgoing;
use marquee_schemas::{ModelAction, ModelCommand, ModelVersion, MovieId, SchemaVersion};
use marquee_trainer::{manual_retrain_event, registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::extract::JsonBody;
use super::{AppState, Problem, RequestMeta, Work};

/// The longest reason, in bytes.
const LONGEST_REASON: usize = 1_000;
/// The longest version or alias, in bytes.
const LONGEST_VERSION: usize = 64;
/// Unknown movies told.
const UNKNOWN_MOVIES: usize = 1_000;

/// Proof that the request carried the key.
#[derive(Debug)]
pub(super) struct Admin;

impl FromRequestParts<AppState> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let expected = &state.config.admin_key_sha256;
        if expected.is_empty() {
            return Err(Problem::admin_off());
        }
        let key = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(Problem::unauthorised)?;
        let digest: String = Sha256::digest(key.trim().as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if &digest == expected {
            Ok(Self)
        } else {
            Err(Problem::unauthorised())
        }
    }
}

/// The models of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ModelsAnswer {
    /// The model that this process serves; null before the first one.
    serving: Option<ModelVersion>,
    /// Oldest first.
    models: Vec<ModelRow>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ModelRow {
    /// Its version.
    version: ModelVersion,
    /// `none`, `staging`, `production` or `archived`.
    state: String,
    /// When it was stored, ms.
    created_at_ms: i64,
    /// Its measured quality.
    metrics: BTreeMap<String, f64>,
    /// Why it stands where it stands.
    reason: String,
}

pub(super) async fn models(_: Admin, State(state): State<AppState>) -> Result<Json<ModelsAnswer>, Problem> {
    let entries = state
        .compute(Work::Long, |app| registry::list(&app.config.registry_dir))
        .await?
        .map_err(|error| Problem::internal(&error))?;
    let models = entries
        .into_iter()
        .map(|entry| ModelRow {
            state: serde_json::to_value(entry.state)
                .ok()
                .and_then(|name| name.as_str().map(str::to_owned))
                .unwrap_or_default(),
            reason: entry
                .steps
                .last()
                .map(|step| step.reason.clone())
                .unwrap_or_default(),
            version: entry.version,
            created_at_ms: entry.created_at_ms,
            metrics: entry.metrics,
        })
        .collect();
    let serving = state.engine.champion().serving();
    Ok(Json(ModelsAnswer {
        serving: serving.map(|serving| serving.version.clone()),
        models,
    }))
}

/// Asks for a training.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetrainBody {
    /// Why; becomes part of the model's history.
    #[schemars(length(min = 1, max = 1000))]
    reason: String,
}

/// A request that the trainer will answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct RetrainAnswer {
    /// Of the event in `retrain-events`; the model events of the training name it.
    event_id: String,
}

pub(super) async fn retrain(
    _: Admin,
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<RetrainBody>,
) -> Result<(StatusCode, Json<RetrainAnswer>), Problem> {
    let reason = within("reason", &body.reason, LONGEST_REASON)?;
    let event = manual_retrain_event(reason, state.clock.as_ref());
    state.publish(Outgoing::of(&event)).await?;
    tracing::info!(event_id = %event.event_id, request_id = %meta.id, reason, "a retraining was asked for");
    let event_id = event.event_id;
    Ok((StatusCode::ACCEPTED, Json(RetrainAnswer { event_id })))
}

/// Asks for a version to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteBody {
    /// The version, or an alias such as `previous`.
    #[schemars(length(min = 1, max = 64))]
    version: String,
    /// Why; becomes part of the model's history.
    #[schemars(length(min = 1, max = 1000))]
    reason: String,
}

/// Asks for a step of a rollout, back or ahead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandBody {
    /// Why; becomes part of the model's history.
    #[schemars(length(min = 1, max = 1000))]
    reason: String,
}

/// A command that the trainer, the registry's only writer, will answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct CommandAnswer {
    /// The `model-events` record that tells the outcome carries it.
    command_id: String,
}

/// Trimmed text of 1 to `longest` bytes.
fn within<'a>(field: &'static str, text: &'a str, longest: usize) -> Result<&'a str, Problem> {
    let text = text.trim();
    if (1..=longest).contains(&text.len()) {
        return Ok(text);
    }
    Err(Problem::invalid_parameter(
        field,
        format!("{} bytes, allowed are 1 to {longest}", text.len()),
    ))
}

pub(super) async fn promote(
    _: Admin,
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<PromoteBody>,
) -> Result<(StatusCode, Json<CommandAnswer>), Problem> {
    let version = within("version", &body.version, LONGEST_VERSION)?;
    command(&state, &meta, ModelAction::Promote, Some(version), &body.reason).await
}

pub(super) async fn rollback(
    _: Admin,
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<CommandBody>,
) -> Result<(StatusCode, Json<CommandAnswer>), Problem> {
    command(&state, &meta, ModelAction::Rollback, None, &body.reason).await
}

pub(super) async fn advance(
    _: Admin,
    State(state): State<AppState>,
    Extension(meta): Extension<RequestMeta>,
    JsonBody(body): JsonBody<CommandBody>,
) -> Result<(StatusCode, Json<CommandAnswer>), Problem> {
    command(&state, &meta, ModelAction::AdvanceRollout, None, &body.reason).await
}

async fn command(
    state: &AppState,
    meta: &RequestMeta,
    action: ModelAction,
    version: Option<&str>,
    reason: &str,
) -> Result<(StatusCode, Json<CommandAnswer>), Problem> {
    let reason = within("reason", reason, LONGEST_REASON)?;
    let command = ModelCommand {
        schema_version: SchemaVersion,
        command_id: format!("http/{}", meta.id),
        action,
        version: version.map(|version| ModelVersion(version.to_owned())),
        reason: reason.to_owned(),
        issued_by: Some("http".to_owned()),
        issued_at_ms: meta.received_ms,
    };
    state.publish(Outgoing::of(&command)).await?;
    tracing::info!(command_id = %command.command_id, ?action, version, reason, "a command to the trainer");
    let command_id = command.command_id;
    Ok((StatusCode::ACCEPTED, Json(CommandAnswer { command_id })))
}

/// Movies that clients asked for and the catalogue does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct UnknownMoviesAnswer {
    /// Requests for such movies since the start.
    requests: u64,
    /// The movies asked for most often.
    movies: Vec<UnknownMovie>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct UnknownMovie {
    /// Its id.
    movie_id: MovieId,
    /// Requests that named it.
    requests: u64,
    /// The last of them, ms.
    last_ms: i64,
}

pub(super) async fn unknown_movies(_: Admin, State(state): State<AppState>) -> Json<UnknownMoviesAnswer> {
    let asked = state.unknown.most_asked(UNKNOWN_MOVIES).into_iter();
    Json(UnknownMoviesAnswer {
        requests: state.unknown.total(),
        movies: asked
            .map(|asked| UnknownMovie {
                movie_id: asked.movie_id,
                requests: asked.count,
                last_ms: asked.last_ms,
            })
            .collect(),
    })
}
