//! Where one window ends and the next begins.

use std::collections::HashSet;

use super::monitor::DriftConfig;
use super::observation::Observation;

/// How many times the usual history a window may hold while it waits for users.
const MOST_HISTORY: u64 = 8;
/// The same of records of all kinds, while it waits for history: a stream may hold a score of impressions for each act.
/// By default about as many as one partition keeps.
const LONGEST: u64 = 32;

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
    /// Whether it holds enough users, and enough history of them, to be judged.
    #[must_use]
    pub fn is_sufficient(&self, config: &DriftConfig) -> bool {
        self.users >= config.window_users && self.history >= config.window_events
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
        // Neither few users nor records that are no history must make a window endless.
        let bound = |times: u64| config.window_events.saturating_mul(times);
        let endless = self.history >= bound(MOST_HISTORY) || self.observations.len() as u64 >= bound(LONGEST);
        if !full && !endless {
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

#[cfg(test)]
mod tests {
    use marquee_schemas::Kind;

    use super::*;
    use crate::drift::Fate;

    fn config() -> DriftConfig {
        DriftConfig {
            window_events: 100,
            window_users: 10,
            ..DriftConfig::default()
        }
    }

    /// The first window of a stream with `impressions` for each rating, of `users` users in turn.
    fn first_window(impressions: usize, users: u64) -> CutWindow {
        let mut cutter = Cutter::default();
        (0..)
            .find_map(|user| {
                let seen = |kind| {
                    let mut seen = Observation::not_applied(Fate::Applied(kind), None);
                    seen.user = user % users;
                    seen
                };
                let mut some = vec![seen(Kind::Impression); impressions];
                some.push(seen(Kind::Rating));
                cutter.push(&config(), &some)
            })
            .unwrap()
    }

    #[test]
    fn a_stream_rich_in_impressions_is_judged_on_as_much_history_as_any_other() {
        for impressions in [0, 5, 20] {
            let window = first_window(impressions, 50);
            assert_eq!(window.history, 100, "{impressions}");
            assert!(window.is_sufficient(&config()), "{impressions}");
        }
    }

    #[test]
    fn a_window_that_does_not_fill_up_ends_and_is_not_judged() {
        for (impressions, users, records) in [(199, 50, 3_200), (0, 9, 800)] {
            let window = first_window(impressions, users);
            assert_eq!(window.observations.len(), records);
            assert!(!window.is_sufficient(&config()), "{impressions} {users}");
        }
    }
}
