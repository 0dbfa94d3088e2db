//! Which windows have been looked at, and which is next.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, OsDisk};
use crate::error::Error;
use crate::lake::manifests;
use crate::table::Table;

/// A stretch of event time, ms: start inclusive, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    evaluated_until_ms: i64,
    /// Whether a click has ever named the list that it answers.
    #[serde(default)]
    clicks_reported: bool,
    /// Windows that could not be looked at, start and end, the newest at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    skipped_ms: Vec<(i64, i64)>,
}

/// Skipped windows that are remembered.
const SKIPS: usize = 1_000;

/// What a schedule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Name of the position's file.
    pub(crate) name: &'static str,
    /// Length of a window, ms; windows are aligned to multiples of it.
    pub(crate) every_ms: i64,
    /// How long after its end a window can still change, ms.
    pub(crate) settles_ms: i64,
}

/// Windows in order, each once; the position survives restarts beside the lake.
#[derive(Debug)]
pub(crate) struct Schedule {
    lake_dir: PathBuf,
    pace: Pace,
    state: State,
}

impl Schedule {
    pub(crate) fn open(lake_dir: &Path, pace: Pace) -> Result<Self, Error> {
        let path = path(lake_dir, pace);
        let state = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::damaged(&path, e.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(Error::io("reading", &path, error)),
        };
        Ok(Self {
            lake_dir: lake_dir.to_owned(),
            pace,
            state,
        })
    }

    /// The next window that holds lists and can no longer change at `now_ms`. Windows without lists are passed over.
    pub(crate) fn due(&self, now_ms: i64) -> Result<Option<Window>, Error> {
        let until = self.state.evaluated_until_ms;
        let first = manifests(&self.lake_dir, Table::RequestLogs)?
            .iter()
            .flat_map(|manifest| &manifest.files)
            .filter_map(|file| Some((file.min_ms?, file.max_ms?)))
            .filter(|&(_, max)| max >= until)
            .map(|(min, _)| min.max(until))
            .min();
        let length = self.pace.every_ms.max(1);
        Ok(first.and_then(|first| {
            let start_ms = first.div_euclid(length) * length;
            let end_ms = start_ms + length;
            let settled = end_ms.saturating_add(self.pace.settles_ms);
            (now_ms >= settled).then_some(Window { start_ms, end_ms })
        }))
    }

    /// Whether a click named a list in any window so far.
    pub(crate) fn clicks_reported(&self) -> bool {
        self.state.clicks_reported
    }

    /// Notes that a click named a list; durable once the window is [done](Self::done).
    pub(crate) fn note_clicks(&mut self) {
        self.state.clicks_reported = true;
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Notes that everything before the end of `window` has been looked at, and what it showed published.
    pub(crate) fn done(&mut self, window: Window) -> Result<(), Error> {
        self.state.evaluated_until_ms = window.end_ms;
        self.save()
    }

    /// Notes that `window` is passed over without having been looked at.
    pub(crate) fn skip(&mut self, window: Window) -> Result<(), Error> {
        let skipped = &mut self.state.skipped_ms;
        skipped.push((window.start_ms, window.end_ms));
        skipped.drain(..skipped.len().saturating_sub(SKIPS));
        self.done(window)
    }

    fn save(&self) -> Result<(), Error> {
        let path = path(&self.lake_dir, self.pace);
        let temporary = path.with_extension("json.tmp");
        let bytes = serde_json::to_vec(&self.state).unwrap_or_default();
        OsDisk
            .write(&temporary, &bytes)
            .and_then(|()| OsDisk.rename(&temporary, &path))
            .and_then(|()| OsDisk.sync_dir(&self.lake_dir))
            .map_err(|e| Error::io("writing", &path, e))
    }
}

fn path(lake_dir: &Path, pace: Pace) -> PathBuf {
    lake_dir.join(format!("_{}.json", pace.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        name: "evaluation",
        every_ms: 10,
        settles_ms: 0,
    };

    #[test]
    fn that_clicks_are_reported_survives_a_restart_and_an_older_file_knows_of_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path(), PACE), r#"{"evaluated_until_ms": 10}"#).unwrap();
        let mut schedule = Schedule::open(dir.path(), PACE).unwrap();
        assert!(!schedule.clicks_reported());
        schedule.note_clicks();
        let window = Window {
            start_ms: 10,
            end_ms: 20,
        };
        schedule.done(window).unwrap();
        let again = Schedule::open(dir.path(), PACE).unwrap();
        assert!(again.clicks_reported());
        assert_eq!(again.state.evaluated_until_ms, 20);
    }

    #[test]
    fn a_window_that_is_passed_over_does_not_come_again_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let window = |start_ms| Window {
            start_ms,
            end_ms: start_ms + 10,
        };
        let mut schedule = Schedule::open(dir.path(), PACE).unwrap();
        schedule.done(window(0)).unwrap();
        schedule.skip(window(10)).unwrap();
        let mut schedule = Schedule::open(dir.path(), PACE).unwrap();
        assert_eq!(schedule.state.evaluated_until_ms, 20);
        assert_eq!(schedule.state.skipped_ms, [(10, 20)]);
        for start in 2..1_100 {
            schedule.skip(window(10 * start)).unwrap();
        }
        assert_eq!(schedule.state.skipped_ms.len(), SKIPS);

        // A position from before there was anything to remember.
        fs::write(path(dir.path(), PACE), r#"{"evaluated_until_ms":7}"#).unwrap();
        let old = Schedule::open(dir.path(), PACE).unwrap();
        assert_eq!((old.state.evaluated_until_ms, old.state.skipped_ms.len()), (7, 0));
    }
}
