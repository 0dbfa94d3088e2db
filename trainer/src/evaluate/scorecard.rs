//! What an exam says of one model.

use std::collections::BTreeMap;

/// Names of the figures, in the order of [`Figures`]. The prequential protocol has the first three: with a single
/// target the others follow from them.
pub const METRICS: [&str; 7] = [
    "ndcg@10",
    "hr@10",
    "mrr",
    "precision@10",
    "recall@10",
    "recall@20",
    "map@10",
];

/// How many of [`METRICS`] the prequential protocol has.
pub(super) const STREAM_METRICS: usize = 3;

/// One value per metric.
pub type Figures = [f64; METRICS.len()];

/// How a panel was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// One list per warm user and cutoff.
    Static,
    /// One prediction per positive.
    Prequential,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Static, Self::Prequential];

    /// As in metric names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Prequential => "prequential",
        }
    }

    /// The metrics that it has.
    #[must_use]
    pub fn metrics(self) -> &'static [&'static str] {
        match self {
            Self::Static => &METRICS,
            Self::Prequential => &METRICS[..STREAM_METRICS],
        }
    }
}

/// All cases of one user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UserFigures {
    /// Dense user index.
    pub user: u32,
    /// Lists or predictions.
    pub cases: u64,
    /// Sums over them.
    pub sums: Figures,
}

/// One protocol's figures.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Panel {
    /// By ascending user.
    pub users: Vec<UserFigures>,
    /// Share of the known movies in anybody's top 100, where it was measured.
    pub coverage: Option<f64>,
}

impl Panel {
    /// Lists or predictions.
    #[must_use]
    pub fn cases(&self) -> u64 {
        self.users.iter().map(|user| user.cases).sum()
    }

    /// Mean over the cases of the metric with this index in [`METRICS`]; `None` without a case.
    #[must_use]
    pub fn mean(&self, metric: usize) -> Option<f64> {
        let cases = self.cases();
        // Summed in the users' order, so that the result does not depend on the threads.
        let sum: f64 = self.users.iter().map(|user| user.sums[metric]).sum();
        (cases > 0).then(|| sum / cases as f64)
    }
}

#[derive(Debug, Default)]
pub(super) struct PanelBuilder(BTreeMap<u32, (u64, Figures)>);

impl PanelBuilder {
    pub(super) fn add(&mut self, user: u32, figures: &Figures) {
        let (cases, sums) = self.0.entry(user).or_default();
        *cases += 1;
        for (sum, value) in sums.iter_mut().zip(figures) {
            *sum += value;
        }
    }

    pub(super) fn finish(self, coverage: Option<f64>) -> Panel {
        Panel {
            coverage: coverage.filter(|_| !self.0.is_empty()),
            users: self
                .0
                .into_iter()
                .map(|(user, (cases, sums))| UserFigures { user, cases, sums })
                .collect(),
        }
    }
}

/// A model's figures.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scorecard {
    /// Static, over all cutoffs.
    pub fixed: Panel,
    /// Prequential.
    pub stream: Panel,
    /// Scores that were not finite.
    pub unsound: usize,
}

impl Scorecard {
    /// The figures of one protocol.
    #[must_use]
    pub fn panel(&self, protocol: Protocol) -> &Panel {
        match protocol {
            Protocol::Static => &self.fixed,
            Protocol::Prequential => &self.stream,
        }
    }

    /// Every figure by name: static ones under the metric's own name, prequential ones behind `prequential_`; `n` and
    /// `prequential_n` count users, `prequential_events` predictions. What was not measured is absent.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        for protocol in Protocol::ALL {
            let panel = self.panel(protocol);
            let prefix = match protocol {
                Protocol::Static => "",
                Protocol::Prequential => "prequential_",
            };
            metrics.insert(format!("{prefix}n"), panel.users.len() as f64);
            for (index, name) in protocol.metrics().iter().enumerate() {
                if let Some(value) = panel.mean(index) {
                    metrics.insert(format!("{prefix}{name}"), value);
                }
            }
            if let Some(coverage) = panel.coverage {
                metrics.insert(format!("{prefix}coverage@100"), coverage);
            }
        }
        metrics.insert("prequential_events".into(), self.stream.cases() as f64);
        metrics
    }

    /// The static figures alone.
    #[must_use]
    pub fn fixed_metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = self.metrics();
        metrics.retain(|name, _| name != "n" && !name.starts_with("prequential"));
        metrics
    }

    /// Whether all scores and metrics are finite.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.unsound == 0 && self.metrics().values().all(|value| value.is_finite())
    }
}
