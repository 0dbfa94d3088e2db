//! A window's data, against the windows before it.

use std::collections::{BTreeMap, VecDeque};

use marquee_schemas::Reason;
use serde::{Deserialize, Serialize};

use crate::drift::{CutWindow, Fate, Feature, Monitor, WindowReport};

/// Windows that the next one is compared with.
const HISTORY: usize = 8;

/// Fewer say nothing about what is usual.
const ENOUGH: usize = 4;

/// From a median absolute deviation to the standard deviation of a normal distribution.
const MAD_TO_SIGMA: f64 = 1.4826;

/// What makes a window's data anomalous. Shares are fractions; the defaults are those of the data-quality policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityConfig {
    /// How far the events per hour of event time may lie from the median of the windows before, relative to it. It must
    /// also lie outside three robust standard deviations of theirs.
    pub volume_change: f64,
    /// How far the shares of new users and of new movies may lie from that median, relative to it. The change must also
    /// be one that drift detection finds significant.
    pub new_share_change: f64,
    /// The largest share of refused records, unless three times the median is more.
    pub refused_share: f64,
    /// The largest share of repeated event ids, unless three times the median is more.
    pub duplicate_share: f64,
}

impl Default for QualityConfig {
    fn default() -> Self {
        Self {
            volume_change: 0.30,
            new_share_change: 0.25,
            refused_share: 0.01,
            duplicate_share: 0.05,
        }
    }
}

/// What a window's data looked like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QualityReport {
    /// Figures by name; shares are of all records unless their name says otherwise.
    pub numbers: BTreeMap<String, f64>,
    /// What is anomalous, in words.
    pub anomalies: Vec<String>,
    /// Oldest event time, ms.
    pub start_ms: i64,
    /// Just after the newest event time, ms.
    pub end_ms: i64,
    /// Records in the window.
    pub records: u64,
}

/// The figures of the windows before.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct QualityHistory {
    before: BTreeMap<String, VecDeque<f64>>,
    /// Anomalous windows running, and what the last of them showed.
    pub(super) running: u32,
    pub(super) anomalies: Vec<String>,
    pub(super) numbers: BTreeMap<String, f64>,
}

/// Shares of records refused for each family of reasons.
fn family(reason: Reason) -> &'static str {
    match reason {
        Reason::MalformedJson | Reason::UnknownSchemaVersion | Reason::UnknownKind | Reason::WrongType => {
            "schema_share"
        }
        Reason::MissingField | Reason::Empty => "missing_share",
        Reason::OutOfRange | Reason::TimestampOutOfRange | Reason::TooLarge | Reason::TooLate => {
            "out_of_range_share"
        }
        Reason::UnknownMovie => "unknown_movie_share",
    }
}

/// Describes a window; whether it is anomalous depends on those before it and is decided by [`QualityHistory::judge`].
pub(super) fn describe(window: &CutWindow, monitor: &Monitor) -> QualityReport {
    let records = window.observations.len() as u64;
    let mut counts: BTreeMap<&'static str, u64> = [
        "refused_share",
        "schema_share",
        "missing_share",
        "out_of_range_share",
        "unknown_movie_share",
        "duplicate_share",
        "late_share",
    ]
    .map(|name| (name, 0))
    .into();
    let mut unknown_movies = std::collections::BTreeSet::new();
    let (mut applied, mut first) = (0_u64, 0_u64);
    let mut count = |name| *counts.entry(name).or_default() += 1;
    for observation in &window.observations {
        match observation.fate {
            Fate::Applied(_) => {
                applied += 1;
                first += u64::from(observation.first);
                if observation.late {
                    count("late_share");
                }
            }
            Fate::Duplicate => count("duplicate_share"),
            Fate::Erasure => {}
            Fate::Refused(reason) => {
                count("refused_share");
                count(family(reason));
                if reason == Reason::UnknownMovie {
                    unknown_movies.insert(observation.movie);
                }
            }
        }
    }
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let mut numbers: BTreeMap<String, f64> = counts
        .into_iter()
        .map(|(name, part)| (name.to_owned(), share(part, records)))
        .collect();
    numbers.insert("records".into(), records as f64);
    numbers.insert("users".into(), window.users as f64);
    numbers.insert("unknown_movies".into(), unknown_movies.len() as f64);
    numbers.insert("new_user_share_of_applied".into(), share(first, applied));
    if let Some(share) = monitor.new_movie_share(&window.observations) {
        numbers.insert("new_movie_share_of_history".into(), share);
    }
    let mut times: Vec<i64> = window
        .observations
        .iter()
        .filter(|observation| observation.is_history())
        .map(|observation| observation.timestamp_ms)
        .collect();
    times.sort_unstable();
    if let Some(rate) = events_per_hour(&times) {
        numbers.insert("events_per_hour".into(), rate);
    }
    QualityReport {
        numbers,
        anomalies: Vec::new(),
        start_ms: times.first().copied().unwrap_or(0),
        end_ms: times.last().map_or(0, |last| last + 1),
        records,
    }
}

/// From the middle 90% of sorted event times: a few late events must not stretch the window.
fn events_per_hour(times: &[i64]) -> Option<f64> {
    let cut = times.len() / 20;
    let (first, last) = (times.get(cut)?, times.get(times.len() - 1 - cut)?);
    let hours = (last - first) as f64 / 3_600_000.0;
    (hours > 0.0).then(|| (times.len() - 2 * cut) as f64 / hours)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

impl QualityHistory {
    /// Says what is anomalous about the window, counts anomalous windows running, and remembers its figures.
    pub(super) fn judge(&mut self, config: &QualityConfig, report: &mut QualityReport, drift: &WindowReport) {
        let significant = |feature: Feature| {
            drift
                .findings
                .iter()
                .any(|finding| finding.feature == feature && finding.is_significant)
        };
        let mut anomalies = Vec::new();
        for (name, &value) in &report.numbers {
            let (usual, deviation) = match self.usual(name) {
                Some(usual) => usual,
                None if name == "refused_share" || name == "duplicate_share" => (0.0, 0.0),
                None => continue,
            };
            let relative = if usual > 0.0 {
                (value / usual - 1.0).abs()
            } else {
                0.0
            };
            let anomalous = match name.as_str() {
                "events_per_hour" => {
                    relative > config.volume_change && (value - usual).abs() > 3.0 * deviation
                }
                "new_user_share_of_applied" => {
                    relative > config.new_share_change && significant(Feature::NewUser)
                }
                "new_movie_share_of_history" => {
                    relative > config.new_share_change && significant(Feature::NewMovie)
                }
                "refused_share" => value > config.refused_share.max(3.0 * usual),
                "duplicate_share" => value > config.duplicate_share.max(3.0 * usual),
                _ => false,
            };
            if anomalous {
                anomalies.push(format!("{name} is {value:.4}, usual is {usual:.4}"));
            }
        }
        for (name, &value) in &report.numbers {
            let before = self.before.entry(name.clone()).or_default();
            if before.len() == HISTORY {
                before.pop_front();
            }
            before.push_back(value);
        }
        self.running = if anomalies.is_empty() {
            0
        } else {
            self.running.saturating_add(1)
        };
        self.anomalies.clone_from(&anomalies);
        self.numbers.clone_from(&report.numbers);
        report.anomalies = anomalies;
    }

    /// Median and robust standard deviation of the windows before, once there are enough.
    fn usual(&self, name: &str) -> Option<(f64, f64)> {
        let before = self.before.get(name).filter(|before| before.len() >= ENOUGH)?;
        let mut values: Vec<f64> = before.iter().copied().collect();
        let middle = median(&mut values);
        let mut deviations: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
        Some((middle, MAD_TO_SIGMA * median(&mut deviations)))
    }
}

#[cfg(test)]
mod tests {
    use marquee_schemas::Kind;

    use super::*;
    use crate::drift::Observation;

    /// A window of `events` views by 60 users, `gap_ms` apart, of which every `refused`-th is refused.
    fn window(events: usize, gap_ms: i64, refused: usize) -> CutWindow {
        let observations: Vec<Observation> = (0..events)
            .map(|n| {
                let mut observation = Observation::not_applied(Fate::Applied(Kind::View), None);
                observation.user = (n % 60) as u64;
                observation.movie = 1 + (n % 40) as u32;
                observation.timestamp_ms = 1_000_000 + n as i64 * gap_ms;
                if refused > 0 && n % refused == 0 {
                    observation.fate = Fate::Refused(if n % (2 * refused) == 0 {
                        Reason::UnknownMovie
                    } else {
                        Reason::OutOfRange
                    });
                }
                observation
            })
            .collect();
        CutWindow {
            history: observations
                .iter()
                .filter(|observation| observation.is_history())
                .count() as u64,
            users: 60,
            observations,
        }
    }

    fn judged(history: &mut QualityHistory, window: &CutWindow) -> QualityReport {
        let mut report = describe(window, &Monitor::default());
        history.judge(&QualityConfig::default(), &mut report, &WindowReport::default());
        report
    }

    #[test]
    fn usual_windows_are_no_anomaly_and_a_jump_in_volume_is_one() {
        let mut history = QualityHistory::default();
        for gap in [1_000, 1_020, 980, 1_010, 990] {
            assert_eq!(judged(&mut history, &window(2_000, gap, 0)).anomalies, [""; 0]);
        }
        assert_eq!(
            judged(&mut history, &window(2_000, 800, 0)).anomalies,
            [""; 0],
            "25% more"
        );
        let report = judged(&mut history, &window(2_000, 600, 0));
        assert!(report.anomalies[0].starts_with("events_per_hour"), "{report:?}");
        assert_eq!(history.running, 1);
        judged(&mut history, &window(2_000, 1_000, 0));
        assert_eq!(history.running, 0);
    }

    #[test]
    fn a_spike_of_refused_records_is_an_anomaly_from_the_first_window_on() {
        let mut history = QualityHistory::default();
        assert!(
            judged(&mut history, &window(2_000, 1_000, 150))
                .anomalies
                .is_empty()
        );
        let report = judged(&mut history, &window(2_000, 1_000, 20));
        assert_eq!(report.anomalies.len(), 1, "{report:?}");
        assert_eq!(report.numbers["refused_share"], 0.05);
        assert_eq!(report.numbers["unknown_movie_share"], 0.025);
        assert_eq!(report.numbers["out_of_range_share"], 0.025);
        assert!(report.numbers["unknown_movies"] >= 1.0);
    }

    #[test]
    fn one_late_event_does_not_change_the_rate() {
        let rate = |window: &CutWindow| describe(window, &Monitor::default()).numbers["events_per_hour"];
        let usual = window(2_000, 1_000, 0);
        let mut late = usual.clone();
        late.observations[7].timestamp_ms = 1;
        assert!((rate(&usual) / rate(&late) - 1.0).abs() < 0.01);
    }
}
