//! The queries that run now: how many, under which ids, and how to stop one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

type Tokens = Arc<Mutex<HashMap<String, CancellationToken>>>;

/// The running queries. At most so many run at once; another one is refused, not queued.
#[derive(Debug)]
pub(super) struct Running {
    tokens: Tokens,
    most: usize,
}

/// Why a query cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many as may are running.
    Full,
    /// A running query has this id.
    Taken,
}

/// A query's place among the running ones; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    tokens: Tokens,
    id: String,
    token: CancellationToken,
}

impl Running {
    pub(super) fn new(most: usize) -> Self {
        Self {
            tokens: Tokens::default(),
            most,
        }
    }

    pub(super) fn begin(&self, id: String) -> Result<Place, Refused> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.contains_key(&id) {
            return Err(Refused::Taken);
        }
        if tokens.len() >= self.most {
            return Err(Refused::Full);
        }
        let token = CancellationToken::new();
        tokens.insert(id.clone(), token.clone());
        Ok(Place {
            tokens: Arc::clone(&self.tokens),
            id,
            token,
        })
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Stops a query; false if none of this id runs.
    pub(super) fn cancel(&self, id: &str) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(id).map(CancellationToken::cancel).is_some()
    }
}

impl Place {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.remove(&self.id);
    }
}
