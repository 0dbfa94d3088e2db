//! What was served, and what may answer it.

use std::sync::Arc;

use marquee_schemas::Kind;

/// One position of a served list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shown {
    pub(crate) movie_id: u32,
    /// Probability of this movie here under the logging policy, given the positions above.
    pub(crate) propensity: f64,
}

/// A served list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List {
    pub(crate) request_id: String,
    pub(crate) time_ms: i64,
    pub(crate) endpoint: Arc<str>,
    pub(crate) user_id: Option<u64>,
    pub(crate) surface: Option<Arc<str>>,
    pub(crate) model_version: Option<Arc<str>>,
    pub(crate) policy: Arc<str>,
    pub(crate) experiment: Option<Arc<str>>,
    pub(crate) arm: Option<Arc<str>>,
    pub(crate) feature_version: Option<u64>,
    pub(crate) candidates: u32,
    /// Whether the client asked for filters or gave seeds.
    pub(crate) is_restricted: bool,
    /// In order of rank.
    pub(crate) items: Vec<Shown>,
}

impl List {
    pub(crate) fn rank_of(&self, movie_id: u32) -> Option<usize> {
        self.items.iter().position(|item| item.movie_id == movie_id)
    }

    /// Whether the list rests on a history that was erased since, together with the user's name.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.user_id.is_none() && self.feature_version.is_some()
    }

    /// Whether the list rests on nothing that its user did.
    pub(crate) fn is_cold(&self) -> bool {
        self.feature_version.is_none_or(|version| version == 0)
    }
}

/// Lists that only compete for interactions, with nothing but what that takes.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    entries: Vec<Rival>,
    /// Of all of them, one after the other.
    movies: Vec<u32>,
}

#[derive(Debug)]
struct Rival {
    time_ms: i64,
    user_id: Option<u64>,
    /// Where an interaction names it.
    request_id: Option<Box<str>>,
    /// Where its movies begin and end.
    movies: (usize, usize),
}

impl Rivals {
    /// Bytes that one takes beside its movies.
    pub(crate) const BYTES: usize = size_of::<Rival>();

    pub(crate) fn push(
        &mut self,
        time_ms: i64,
        user_id: Option<u64>,
        request_id: Option<Box<str>>,
        movies: &[u32],
    ) {
        let start = self.movies.len();
        self.movies.extend(movies);
        self.entries.push(Rival {
            time_ms,
            user_id,
            request_id,
            movies: (start, self.movies.len()),
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn time_ms(&self, at: usize) -> i64 {
        self.entries[at].time_ms
    }

    pub(crate) fn user_id(&self, at: usize) -> Option<u64> {
        self.entries[at].user_id
    }

    pub(crate) fn request_id(&self, at: usize) -> Option<&str> {
        self.entries[at].request_id.as_deref()
    }

    pub(crate) fn holds(&self, at: usize, movie_id: u32) -> bool {
        let (start, end) = self.entries[at].movies;
        self.movies[start..end].contains(&movie_id)
    }
}

/// An interaction that may answer a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) event_id: String,
    pub(crate) user_id: u64,
    pub(crate) movie_id: u32,
    pub(crate) kind: Kind,
    pub(crate) rating: Option<f32>,
    pub(crate) time_ms: i64,
    pub(crate) request_id: Option<String>,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn list(request: &str, user: u64, time_ms: i64, movies: &[u32]) -> List {
        List {
            request_id: request.into(),
            time_ms,
            endpoint: "recommend".into(),
            user_id: Some(user),
            surface: None,
            model_version: None,
            policy: "ranked".into(),
            experiment: None,
            arm: None,
            feature_version: Some(1),
            candidates: 100,
            is_restricted: false,
            items: movies
                .iter()
                .map(|&movie_id| Shown {
                    movie_id,
                    propensity: 1.0,
                })
                .collect(),
        }
    }

    pub(crate) fn answer(event: &str, user: u64, movie: u32, time_ms: i64, request: Option<&str>) -> Answer {
        Answer {
            event_id: event.into(),
            user_id: user,
            movie_id: movie,
            kind: Kind::View,
            rating: None,
            time_ms,
            request_id: request.map(Into::into),
        }
    }
}
