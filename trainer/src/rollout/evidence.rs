//! Figures of both models in one stage.

use std::collections::BTreeMap;

use marquee_schemas::QualityMetric;
use serde::{Deserialize, Serialize};

/// Windows kept; of more the oldest go.
const KEPT: usize = 4_096;
/// 0.975 quantile of the normal distribution: figures carry 95% intervals.
const Z_95: f64 = 1.959_963_984_540_054;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Window {
    champion: bool,
    value: f64,
    n: u64,
    /// Of `value`.
    variance: f64,
    end_ms: i64,
}

/// What was measured, by metric name and id: a figure that is published again counts once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Evidence(BTreeMap<String, BTreeMap<String, Window>>);

/// Both models' pooled figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    pub(super) challenger: f64,
    pub(super) champion: f64,
    pub(super) challenger_n: u64,
    pub(super) champion_n: u64,
    /// Of the difference.
    pub(super) standard_error: f64,
}

impl Difference {
    pub(super) fn told(&self, name: &str) -> String {
        format!(
            "{name} {:.4} on {} against {:.4} on {} (difference {:+.4}, standard error {:.4})",
            self.challenger,
            self.challenger_n,
            self.champion,
            self.champion_n,
            self.challenger - self.champion,
            self.standard_error
        )
    }
}

struct Pooled {
    value: f64,
    n: u64,
    variance: f64,
}

impl Evidence {
    /// Whether nothing was measured yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, figure: &QualityMetric, champion: bool) {
        if !figure.value.is_finite() || figure.n == 0 {
            return;
        }
        let windows = self.0.entry(figure.name.clone()).or_default();
        windows.insert(
            figure.metric_id.clone(),
            Window {
                champion,
                value: figure.value,
                n: figure.n,
                variance: variance(figure),
                end_ms: figure.window_end_ms,
            },
        );
        if windows.len() > KEPT
            && let Some(oldest) = windows
                .iter()
                .min_by_key(|(_, window)| window.end_ms)
                .map(|(id, _)| id.clone())
        {
            windows.remove(&oldest);
        }
    }

    /// The difference in a figure, if either model has at least `min_requests` behind it.
    pub(super) fn difference(&self, name: &str, min_requests: u64) -> Option<Difference> {
        let windows = self.0.get(name)?;
        let challenger = pooled(windows.values().filter(|window| !window.champion))?;
        let champion = pooled(windows.values().filter(|window| window.champion))?;
        (challenger.n >= min_requests && champion.n >= min_requests).then(|| Difference {
            challenger: challenger.value,
            champion: champion.value,
            challenger_n: challenger.n,
            champion_n: champion.n,
            standard_error: (challenger.variance + champion.variance).sqrt(),
        })
    }
}

/// From the figure's own interval, which knows its clusters; else that of a share (with one success and one failure
/// added, so that no share is certain); else none.
fn variance(figure: &QualityMetric) -> f64 {
    if let (Some(lo), Some(hi)) = (figure.lo, figure.hi)
        && hi > lo
    {
        return ((hi - lo) / (2.0 * Z_95)).powi(2);
    }
    let n = figure.n as f64;
    if (0.0..=1.0).contains(&figure.value) {
        let share = (figure.value * n + 1.0) / (n + 2.0);
        return share * (1.0 - share) / n;
    }
    0.0
}

/// Mean over windows weighted by their requests. The variance is the larger of what the windows say of themselves and
/// what they show between each other.
fn pooled<'a>(windows: impl Iterator<Item = &'a Window> + Clone) -> Option<Pooled> {
    let n: u64 = windows.clone().map(|window| window.n).sum();
    if n == 0 {
        return None;
    }
    let total = n as f64;
    let value = windows
        .clone()
        .map(|window| window.value * window.n as f64)
        .sum::<f64>()
        / total;
    let within: f64 = windows
        .clone()
        .map(|window| (window.n as f64 / total).powi(2) * window.variance)
        .sum();
    let count = windows.clone().count() as f64;
    let between = if count > 1.0 {
        let squares: f64 = windows
            .map(|window| (window.n as f64 / total * (window.value - value)).powi(2))
            .sum();
        squares * count / (count - 1.0)
    } else {
        0.0
    };
    Some(Pooled {
        value,
        n,
        variance: within.max(between),
    })
}
