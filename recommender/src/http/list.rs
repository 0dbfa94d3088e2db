//! What the calls that answer with lists have in common.

use std::sync::Arc;

use marquee_schemas::{
    Endpoint, Filters, LoggedItem, ModelVersion, MovieId, RequestLog, SchemaVersion, UserId,
};
use serde::{Deserialize, Serialize};

use super::admit::RequestMeta;
use super::{App, Problem};
use crate::engine::{Answer, ListItem, Reason};

/// Where and when a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextBody {
    /// Where the list is shown, at most 128 bytes.
    pub surface: Option<String>,
    /// The client's session, at most 128 bytes.
    pub session_id: Option<String>,
    /// Movies that count as liked for this request.
    pub seeds: Vec<MovieId>,
}

/// A list, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    pub fallback_reason: Option<&'static str>,
    /// The user's applied interactions that the list rests on; null for an unknown user.
    pub feature_version: Option<u64>,
    /// Newest event that the list rests on, event time, ms; null before the first one.
    pub as_of_ms: Option<i64>,
    /// Best first.
    pub items: Vec<ListEntry>,
}

/// One entry, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    fn of(rank: usize, item: &ListItem) -> Self {
        let movie = Arc::clone(&item.movie);
        Self {
            movie_id: movie.movie_id,
            title: movie.title.clone(),
            year: movie.year,
            genres: movie.genres.clone(),
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            score: item.score,
            source: item.source,
            reasons: item.reasons.clone(),
        }
    }
}

/// What the request log wants to know beyond the answer.
pub(super) struct Asked {
    pub(super) endpoint: Endpoint,
    pub(super) user_id: Option<UserId>,
    pub(super) surface: Option<String>,
    pub(super) k: u32,
    pub(super) seeds: Vec<MovieId>,
    pub(super) filters: Filters,
}

impl App {
    /// Makes the answer's document and logs it.
    pub(super) fn answer(&self, meta: &RequestMeta, asked: Asked, answer: Answer) -> ListAnswer {
        let items: Vec<ListEntry> = answer
            .items
            .iter()
            .enumerate()
            .map(|(rank, item)| ListEntry::of(rank, item))
            .collect();
        let fallback_reason = answer.fallback.map(crate::engine::Fallback::as_str);
        self.logs.log(RequestLog {
            schema_version: SchemaVersion,
            request_id: meta.id.clone(),
            timestamp: meta.received_ms,
            endpoint: asked.endpoint,
            status: 200,
            user_id: asked.user_id,
            surface: asked.surface,
            model_version: answer.model_version.clone(),
            policy: "ranked".to_owned(),
            experiment: None,
            arm: None,
            assignment_hash: None,
            feature_version: answer.feature_version,
            k: asked.k,
            candidates: answer.candidates,
            seeds: asked.seeds,
            filters: asked.filters,
            items: items
                .iter()
                .map(|entry| LoggedItem {
                    movie_id: entry.movie_id,
                    rank: entry.rank,
                    score: entry.score,
                    source: entry.source.to_owned(),
                    // A deterministic policy puts this movie here with certainty.
                    propensity: 1.0,
                    explored: false,
                })
                .collect(),
            fallback_reason: fallback_reason.map(str::to_owned),
            latency_ms: meta.started.elapsed().as_secs_f64() * 1e3,
            stages: answer.stages,
        });
        ListAnswer {
            request_id: meta.id.clone(),
            user_id: asked.user_id,
            model_version: answer.model_version,
            is_fallback: fallback_reason.is_some(),
            fallback_reason,
            feature_version: answer.feature_version,
            as_of_ms: answer.as_of_ms,
            items,
        }
    }

    pub(super) fn check_k(&self, k: Option<u32>) -> Result<u32, Problem> {
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

    pub(super) fn check_user(user: Option<UserId>) -> Result<(), Problem> {
        match user {
            Some(user) if user > UserId::MAX => Err(Problem::invalid_parameter(
                "user_id",
                format!("{user} is above 2^53 - 1"),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn check_filters(&self, filters: &Filters) -> Result<(), Problem> {
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

    pub(super) fn check_seeds(&self, field: &'static str, seeds: &[MovieId]) -> Result<(), Problem> {
        if seeds.len() > self.config.max_seeds {
            return Err(Problem::invalid_parameter(
                field,
                format!("{} movies, allowed are {}", seeds.len(), self.config.max_seeds),
            ));
        }
        Ok(())
    }
}

pub(super) fn check_text(field: &'static str, text: Option<&String>) -> Result<(), Problem> {
    match text {
        Some(text) if !(1..=128).contains(&text.len()) => Err(Problem::invalid_parameter(
            field,
            format!("{} bytes, allowed are 1 to 128", text.len()),
        )),
        _ => Ok(()),
    }
}
