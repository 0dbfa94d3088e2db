//! From windows to verdicts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::feature::{Binner, Feature, GenresOf};
use super::homogeneity::{Homogeneity, compare, holm};
use super::observation::Observation;
use super::tally::Tally;
use crate::wire::{Reader, Writer};

/// How many windows a change has to be seen in two of, and how many the longer test spans.
const SPAN: usize = 3;

/// When drift is drift.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftConfig {
    /// A window closes at this many history events ...
    pub window_events: u64,
    /// ... of at least this many users. One with too few users after eight times the events is not judged.
    pub window_users: usize,
    /// History events of the reference: the newest that the champion was trained on.
    pub reference_events: u64,
    /// The largest chance of a false alarm in a window, over all features (Holm).
    pub max_p: f64,
    /// The smallest effect that matters: population stability index beyond what sampling makes of it.
    pub min_psi_excess: f64,
    /// The same for the genres of watchlists: total variation (watchlist policy).
    pub min_watchlist_shift: f64,
    /// Windows without a further alarm after one.
    pub cooldown_windows: u32,
    /// A user counts as at most this many events in a comparison.
    pub max_user_events: f64,
    /// Users kept per window and feature; of more, a uniform sample.
    pub max_users: usize,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self {
            window_events: 2_000,
            window_users: 50,
            reference_events: 40_000,
            max_p: 0.001,
            min_psi_excess: 0.02,
            min_watchlist_shift: 0.15,
            cooldown_windows: 6,
            max_user_events: 20.0,
            max_users: 10_000,
        }
    }
}

impl DriftConfig {
    /// A finding's effect as a multiple of the smallest that matters.
    fn excess(&self, finding: &Finding) -> f64 {
        match finding.feature {
            Feature::WatchlistGenre => finding.test.total_variation / self.min_watchlist_shift,
            _ => finding.test.psi_excess / self.min_psi_excess,
        }
    }

    /// What cannot work, by name.
    pub(crate) fn faults(&self) -> Option<&'static str> {
        let share = |value: f64| value > 0.0 && value < 1.0;
        let checks = [
            (self.window_events == 0, "drift.window_events is zero"),
            (self.window_users < 2, "drift.window_users is below 2"),
            (self.reference_events == 0, "drift.reference_events is zero"),
            (!share(self.max_p), "drift.max_p is not between 0 and 1"),
            (
                !share(self.min_psi_excess),
                "drift.min_psi_excess is not between 0 and 1",
            ),
            (
                !share(self.min_watchlist_shift),
                "drift.min_watchlist_shift is not between 0 and 1",
            ),
            (
                !(self.max_user_events >= 1.0 && self.max_user_events.is_finite()),
                "drift.max_user_events is below 1",
            ),
            (
                self.max_users < self.window_users,
                "drift.max_users is below drift.window_users",
            ),
        ];
        checks.iter().find(|(broken, _)| *broken).map(|&(_, what)| what)
    }
}

/// Counts of one stretch of observations, by feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    tallies: Vec<Tally>,
}

impl Window {
    fn new(binner: &Binner, max_users: usize) -> Self {
        Self {
            tallies: Feature::ALL
                .into_iter()
                .map(|feature| Tally::new(binner.bins(feature), max_users))
                .collect(),
        }
    }

    fn of(
        binner: &Binner,
        observations: &[Observation],
        reference: bool,
        genres_of: GenresOf<'_>,
        max_users: usize,
    ) -> Self {
        let mut window = Self::new(binner, max_users);
        for observation in observations {
            binner.bin(observation, reference, genres_of, |feature, bin| {
                window.tallies[feature as usize].add(observation.user, bin);
            });
        }
        window
    }

    fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.tallies.iter_mut().zip(&other.tallies) {
            ours.merge(theirs);
        }
    }

    fn encode(&self, writer: &mut Writer) {
        for tally in &self.tallies {
            tally.encode(writer);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let tallies = Feature::ALL
            .into_iter()
            .map(|_| Tally::decode(reader))
            .collect::<Option<_>>()?;
        Some(Self { tallies })
    }
}

/// What later windows are compared with.
#[derive(Debug, Clone, PartialEq)]
struct Reference {
    binner: Binner,
    window: Window,
}

/// How a feature has fared since the reference was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// Its last windows, newest in bit 0: whether the change was seen.
    seen: u8,
    /// Whether it may raise an alarm: not between one and the effect's fall below half the floor.
    armed: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { seen: 0, armed: true }
    }
}

/// One feature in one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// Which.
    pub feature: Feature,
    /// Windows that the comparison spans.
    pub windows: usize,
    /// Users in it.
    pub users: usize,
    /// Counts in it.
    pub events: u64,
    /// The comparison.
    pub test: Homogeneity,
    /// Its p-value after Holm, over everything compared in this window.
    pub adjusted_p: f64,
    /// Whether it is smaller than the configuration allows chance to be.
    pub is_significant: bool,
    /// Whether the change is seen: significant, and large enough to matter.
    pub seen: bool,
}

/// What a window showed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WindowReport {
    /// Everything that could be compared.
    pub findings: Vec<Finding>,
    /// Features that raise an alarm now.
    pub alarms: Vec<Feature>,
    /// Features whose change was seen in two of three windows, but which are cooling down or not armed again.
    pub withheld: Vec<Feature>,
}

/// Watches the stream of windows against a reference.
///
/// A feature is judged on the window alone, which finds large changes at once, and on the last three together, which
/// finds small ones. It raises an alarm if the change was seen in two of three windows running.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Monitor {
    reference: Option<Reference>,
    /// The windows before this one, newest last.
    recent: Vec<Window>,
    standings: BTreeMap<Feature, Standing>,
    /// Windows left of the cooldown.
    cooldown: u32,
}

impl Monitor {
    /// Takes a new reference: everything seen against the old one is forgotten.
    pub fn rebase(&mut self, config: &DriftConfig, observations: &[Observation], genres_of: GenresOf<'_>) {
        let binner = Binner::fit(observations, genres_of);
        let window = Window::of(&binner, observations, true, genres_of, config.max_users);
        *self = Self {
            reference: Some(Reference { binner, window }),
            ..Self::default()
        };
    }

    /// Whether there is something to compare with.
    #[must_use]
    pub fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// Share of these observations' history that is about movies the reference did not know.
    #[must_use]
    pub fn new_movie_share(&self, observations: &[Observation]) -> Option<f64> {
        let binner = &self.reference.as_ref()?.binner;
        let (mut new, mut all) = (0_u64, 0_u64);
        for observation in observations.iter().filter(|observation| observation.is_history()) {
            all += 1;
            new += u64::from(!binner.knows(observation.movie));
        }
        (all > 0).then(|| new as f64 / all as f64)
    }

    /// Judges a window. Without a reference there is nothing to say about it.
    pub fn close(
        &mut self,
        config: &DriftConfig,
        observations: &[Observation],
        genres_of: GenresOf<'_>,
    ) -> WindowReport {
        let Some(reference) = &self.reference else {
            return WindowReport::default();
        };
        let window = Window::of(
            &reference.binner,
            observations,
            false,
            genres_of,
            config.max_users,
        );
        let mut findings = compare_all(config, reference, &window, 1);
        if self.recent.len() + 1 == SPAN {
            let mut together = window.clone();
            for earlier in &self.recent {
                together.merge(earlier);
            }
            findings.extend(compare_all(config, reference, &together, SPAN));
        }
        let p_values: Vec<f64> = findings.iter().map(|finding| finding.test.p_value).collect();
        for (finding, adjusted_p) in findings.iter_mut().zip(holm(&p_values)) {
            finding.adjusted_p = adjusted_p;
            finding.is_significant = adjusted_p < config.max_p;
            finding.seen = finding.is_significant && config.excess(finding) >= 1.0;
        }
        if self.recent.len() + 1 == SPAN {
            self.recent.remove(0);
        }
        self.recent.push(window);
        self.judge(config, findings)
    }

    fn judge(&mut self, config: &DriftConfig, findings: Vec<Finding>) -> WindowReport {
        let mut report = WindowReport::default();
        let cooling = self.cooldown > 0;
        self.cooldown = self.cooldown.saturating_sub(1);
        for feature in Feature::ALL {
            let of_feature = || findings.iter().filter(|finding| finding.feature == feature);
            let standing = self.standings.entry(feature).or_default();
            let seen = of_feature().any(|finding| finding.seen);
            standing.seen = (standing.seen << 1 | u8::from(seen)) & 0b111;
            let effect = of_feature().map(|finding| config.excess(finding));
            // A window that says nothing about the feature does not arm it.
            if !standing.armed
                && let Some(largest) = effect.reduce(f64::max)
            {
                standing.armed = largest < 0.5;
            }
            if standing.seen.count_ones() < 2 {
                continue;
            }
            if standing.armed && !cooling {
                standing.armed = false;
                report.alarms.push(feature);
            } else {
                report.withheld.push(feature);
            }
        }
        if !report.alarms.is_empty() {
            self.cooldown = config.cooldown_windows;
        }
        report.findings = findings;
        report
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.reference.is_some()));
        if let Some(reference) = &self.reference {
            reference.binner.encode(writer);
            reference.window.encode(writer);
        }
        writer.len(self.recent.len());
        for window in &self.recent {
            window.encode(writer);
        }
        for feature in Feature::ALL {
            let standing = self.standings.get(&feature).copied().unwrap_or_default();
            writer.u8(standing.seen);
            writer.u8(u8::from(standing.armed));
        }
        writer.count(u64::from(self.cooldown));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let reference = match reader.u8()? {
            0 => None,
            _ => Some(Reference {
                binner: Binner::decode(reader)?,
                window: Window::decode(reader)?,
            }),
        };
        let recent = (0..reader.len(1)?)
            .map(|_| Window::decode(reader))
            .collect::<Option<_>>()?;
        let standings = Feature::ALL
            .into_iter()
            .map(|feature| {
                let seen = reader.u8()?;
                let armed = reader.u8()? != 0;
                Some((feature, Standing { seen, armed }))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            reference,
            recent,
            standings,
            cooldown: u32::try_from(reader.count()?).ok()?,
        })
    }
}

/// Compares every feature that has enough users; `adjusted_p` and `seen` are still to be decided.
fn compare_all(config: &DriftConfig, reference: &Reference, window: &Window, windows: usize) -> Vec<Finding> {
    Feature::ALL
        .into_iter()
        .zip(reference.window.tallies.iter().zip(&window.tallies))
        .filter(|(_, (old, new))| old.users() >= config.window_users && new.users() >= config.window_users)
        .filter_map(|(feature, (old, new))| {
            Some(Finding {
                feature,
                windows,
                users: new.users(),
                events: new.totals().iter().sum(),
                test: compare(old, new, config.max_user_events)?,
                adjusted_p: 1.0,
                is_significant: false,
                seen: false,
            })
        })
        .collect()
}
