//! Lists that are owed to somebody, and logged also when they come to nothing.
//!
//! How often a model fails can be told from the request log only if failures are in it. Once it is decided which model
//! makes a list, the list is [`Owed`]; whatever ends it unanswered drops that, and it is known then why: a panic unwinds
//! the thread, the time limit has passed. A client who went away is no failure, nor is a request that is refused or shed:
//! the shed are many when there is least room for them, and no model's doing. The metrics count them.

use axum::http::StatusCode;

use super::admit::RequestMeta;
use super::list::Asked;
use super::{AppState, ListAnswer};
use crate::engine::Answer;
use crate::traffic::Assignment;

/// A list for which it is decided who makes it.
#[derive(Debug)]
pub(crate) struct Owed {
    app: AppState,
    pub(crate) meta: RequestMeta,
    pub(crate) asked: Asked,
    pub(crate) assigned: Assignment,
    is_settled: bool,
}

impl Owed {
    pub(crate) fn new(app: &AppState, meta: RequestMeta, asked: Asked, assigned: Assignment) -> Self {
        Self {
            app: app.clone(),
            meta,
            asked,
            assigned,
            is_settled: false,
        }
    }

    /// Makes the answer's document and logs it; one that comes after the time limit reaches nobody any more, and remains
    /// owed.
    pub(crate) fn settle(&mut self, answer: Answer) -> ListAnswer {
        self.is_settled = !self.is_late();
        if self.is_settled {
            self.app.log(&self.meta, &self.asked, &self.assigned, &answer);
        }
        ListAnswer::of(&self.meta, &self.asked, &self.assigned, answer)
    }

    fn is_late(&self) -> bool {
        self.meta.started.elapsed() >= self.app.config.request_timeout()
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let status = if std::thread::panicking() {
            StatusCode::INTERNAL_SERVER_ERROR
        } else if self.is_late() {
            StatusCode::REQUEST_TIMEOUT
        } else {
            return;
        };
        self.app
            .log_failure(&self.meta, &self.asked, &self.assigned, status.as_u16());
    }
}
