//! What the calls that answer with lists have in common.

use std::sync::Arc;

use marquee_schemas::{
    Endpoint, Filters, LoggedItem, ModelVersion, MovieId, RequestLog, SchemaVersion, UserId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::admit::RequestMeta;
use super::{App, Problem};
use crate::engine::{Answer, Fallback, LeftOut, ListItem, Policy, Reason};
use crate::traffic::Assignment;

/// Where and when a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(default)]
pub struct ContextBody {
    /// Where the list is shown, at most 128 bytes.
    pub surface: Option<String>,
    /// The client's session, at most 128 bytes.
    pub session_id: Option<String>,
    /// Movies that count as liked for this request.
    pub seeds: Vec<MovieId>,
    /// Genres that come first; without any, a user without a history gets those chosen while signing up.
    pub genres: Vec<String>,
}

/// A list, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ListAnswer {
    /// Send it back with what the user does about the list.
    pub request_id: String,
    /// The user, where the call names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The model that made the list; null before the first one.
    pub model_version: Option<ModelVersion>,
    /// Whether the list is *not* made for this request's user or movies.
    pub is_fallback: bool,
    /// Why so; null where it is not.
    pub fallback_reason: Option<Fallback>,
    /// Stages left out because they would have been late.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How the order came about.
    pub policy: Policy,
    /// The experiment that this list is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Its arm that made the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// The user's applied interactions that the list rests on; null for an unknown user.
    pub feature_version: Option<u64>,
    /// Newest event that the list rests on, event time, ms; null before the first one.
    pub as_of_ms: Option<i64>,
    /// Best first.
    pub items: Vec<ListEntry>,
}

/// One entry, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ListEntry {
    /// The movie.
    pub movie_id: MovieId,
    /// Its title.
    pub title: String,
    /// Its year of release, where known.
    pub year: Option<u16>,
    /// Its genres.
    pub genres: Vec<String>,
    /// Position, from 0, as in the request log.
    pub rank: u32,
    /// What it is ranked by; comparable within one list.
    pub score: f32,
    /// Where it comes from.
    pub source: &'static str,
    /// Why it is here, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Vec<Reason>>,
}

impl ListEntry {
    fn of(rank: u32, item: &ListItem) -> Self {
        let movie = Arc::clone(&item.movie);
        Self {
            movie_id: movie.movie_id,
            title: movie.title.clone(),
            year: movie.year,
            genres: movie.genres.clone(),
            rank,
            score: item.score,
            source: item.source,
            reasons: item.reasons.clone(),
        }
    }
}

/// What the request log wants to know beyond the answer.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) endpoint: Endpoint,
    pub(crate) user_id: Option<UserId>,
    pub(crate) surface: Option<String>,
    pub(crate) k: u32,
    pub(crate) seeds: Vec<MovieId>,
    pub(crate) filters: Filters,
}

impl ListAnswer {
    pub(super) fn of(meta: &RequestMeta, asked: &Asked, assigned: &Assignment, answer: Answer) -> Self {
        let items = (0..).zip(&answer.items);
        Self {
            request_id: meta.id.to_string(),
            user_id: asked.user_id,
            is_fallback: answer.fallback.is_some(),
            fallback_reason: answer.fallback,
            policy: answer.policy,
            experiment: assigned.experiment.clone(),
            arm: assigned.arm.clone(),
            feature_version: answer.feature_version,
            as_of_ms: answer.as_of_ms,
            items: items.map(|(rank, item)| ListEntry::of(rank, item)).collect(),
            model_version: answer.model_version,
            left_out: answer.left_out,
        }
    }
}

/// What is logged of a request whatever became of it; nothing of a list yet.
fn record(
    meta: &RequestMeta,
    asked: &Asked,
    assigned: &Assignment,
    status: u16,
    model_version: Option<ModelVersion>,
    policy: Policy,
) -> RequestLog {
    RequestLog {
        schema_version: SchemaVersion,
        // Nobody saw a shadow list: its id is not one that an act could name.
        request_id: if asked.endpoint == Endpoint::Shadow {
            format!("{}/shadow", meta.id)
        } else {
            meta.id.to_string()
        },
        timestamp: meta.received_ms,
        endpoint: asked.endpoint,
        status,
        user_id: asked.user_id,
        surface: asked.surface.clone(),
        model_version,
        policy: policy.as_str().to_owned(),
        experiment: assigned.experiment.clone(),
        arm: assigned.arm.clone(),
        assignment_hash: assigned.hash,
        feature_version: None,
        k: asked.k,
        candidates: 0,
        seeds: asked.seeds.clone(),
        filters: asked.filters.clone(),
        items: Vec::new(),
        fallback_reason: None,
        left_out: Vec::new(),
        latency_ms: meta.started.elapsed().as_secs_f64() * 1e3,
        stages: Vec::new(),
    }
}

impl App {
    /// Makes the answer's document and logs it.
    pub(crate) fn answer(
        &self,
        meta: &RequestMeta,
        asked: &Asked,
        assigned: &Assignment,
        answer: Answer,
    ) -> ListAnswer {
        self.log(meta, asked, assigned, &answer);
        ListAnswer::of(meta, asked, assigned, answer)
    }

    /// Logs a list as it is.
    pub(crate) fn log(&self, meta: &RequestMeta, asked: &Asked, assigned: &Assignment, answer: &Answer) {
        let version = answer.model_version.clone();
        self.logs.log(RequestLog {
            feature_version: answer.feature_version,
            candidates: answer.candidates,
            items: (0..)
                .zip(&answer.items)
                .map(|(rank, item)| LoggedItem {
                    movie_id: item.movie.movie_id,
                    rank,
                    score: item.score,
                    source: item.source.to_owned(),
                    propensity: item.propensity,
                    explored: answer.policy == Policy::PlackettLuce,
                })
                .collect(),
            fallback_reason: answer.fallback.map(|reason| reason.as_str().to_owned()),
            left_out: answer
                .left_out
                .iter()
                .map(|part| part.as_str().to_owned())
                .collect(),
            stages: answer.stages.clone(),
            ..record(meta, asked, assigned, 200, version, answer.policy)
        });
    }

    /// Logs that there is no list, under the model that should have made it.
    pub(super) fn log_failure(&self, meta: &RequestMeta, asked: &Asked, assigned: &Assignment, status: u16) {
        let version = assigned.serving.as_ref().map(|serving| serving.version.clone());
        self.logs
            .log(record(meta, asked, assigned, status, version, Policy::Ranked));
    }

    pub(crate) fn check_k(&self, k: Option<u32>) -> Result<u32, Problem> {
        let k = k.unwrap_or(self.config.default_k);
        if (1..=self.config.max_k).contains(&k) {
            Ok(k)
        } else {
            Err(Problem::invalid_parameter(
                "k",
                format!("{k} is outside 1 to {}", self.config.max_k),
            ))
        }
    }

    /// Ids above this are not exact in every JSON implementation.
    pub(crate) fn check_user(field: &'static str, user: Option<UserId>) -> Result<(), Problem> {
        match user {
            Some(user) if user > UserId::MAX => Err(Problem::invalid_parameter(
                field,
                format!("{user} is above 2^53 - 1"),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_filters(&self, filters: &Filters) -> Result<(), Problem> {
        if filters.exclude.len() > self.config.max_excluded {
            return Err(Problem::invalid_parameter(
                "filters.exclude",
                format!(
                    "{} movies, allowed are {}",
                    filters.exclude.len(),
                    self.config.max_excluded
                ),
            ));
        }
        for (field, genres) in [
            ("filters.genres_any", &filters.genres_any),
            ("filters.genres_all", &filters.genres_all),
            ("filters.genres_none", &filters.genres_none),
        ] {
            if genres.len() > 32 {
                return Err(Problem::invalid_parameter(
                    field,
                    format!("{} genres, allowed are 32", genres.len()),
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn check_seeds(&self, field: &'static str, seeds: &[MovieId]) -> Result<(), Problem> {
        if seeds.len() > self.config.max_seeds {
            return Err(Problem::invalid_parameter(
                field,
                format!("{} movies, allowed are {}", seeds.len(), self.config.max_seeds),
            ));
        }
        Ok(())
    }
}

pub(crate) fn check_text(field: &'static str, text: Option<&String>) -> Result<(), Problem> {
    match text {
        Some(text) if !(1..=128).contains(&text.len()) => Err(Problem::invalid_parameter(
            field,
            format!("{} bytes, allowed are 1 to 128", text.len()),
        )),
        _ => Ok(()),
    }
}
