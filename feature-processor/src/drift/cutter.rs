//! Where one window ends and the next begins.

use std::collections::HashSet;

use super::monitor::DriftConfig;
use super::observation::Observation;

/// How many times the usual number of events a window may grow to while it waits for users.
const LONGEST: u64 = 8;

/// Observations gathered for a window.
#[derive(Debug, Default)]
pub struct Cutter {
    observations: Vec<Observation>,
    history: u64,
    users: HashSet<u64>,
}

/// A window that is complete.
#[derive(Debug, Clone, PartialEq)]
pub struct CutWindow {
    /// What lies in it, records that were not applied included.
    pub observations: Vec<Observation>,
    /// Of those: history.
    pub history: u64,
    /// Users with history.
    pub users: usize,
}

impl CutWindow {
    /// Whether it holds enough users to be judged.
    #[must_use]
    pub fn is_sufficient(&self, config: &DriftConfig) -> bool {
        self.users >= config.window_users
    }
}

impl Cutter {
    /// Adds observations; gives the window that they complete, if they do. They are never divided between windows.
    pub fn push(&mut self, config: &DriftConfig, observations: &[Observation]) -> Option<CutWindow> {
        for observation in observations.iter().filter(|observation| observation.is_history()) {
            self.history += 1;
            self.users.insert(observation.user);
        }
        self.observations.extend_from_slice(observations);
        let full = self.history >= config.window_events && self.users.len() >= config.window_users;
        // Records that are no history must not make a window endless.
        let longest = config.window_events.saturating_mul(LONGEST);
        if !full && (self.observations.len() as u64) < longest {
            return None;
        }
        let done = std::mem::take(self);
        Some(CutWindow {
            observations: done.observations,
            history: done.history,
            users: done.users.len(),
        })
    }

    /// Observations gathered so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.observations.len()
    }

    /// Whether nothing has been gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.observations.is_empty()
    }
}
