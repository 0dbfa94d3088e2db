//! What a window showed, as records of `quality-metrics`.

use std::collections::BTreeMap;

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{ModelVersion, QualityMetric, SchemaVersion};

use super::QualityReport;
use crate::drift::{Feature, Finding, WindowReport};

fn figures(finding: &Finding) -> [(&'static str, f64); 7] {
    [
        ("adjusted_p", finding.adjusted_p),
        ("psi", finding.test.psi),
        ("psi_excess", finding.test.psi_excess),
        ("kl", finding.test.kl),
        ("js", finding.test.js),
        ("total_variation", finding.test.total_variation),
        ("design_effect", finding.test.design_effect),
    ]
}

/// The figures of these features, as the numbers of a decision.
pub(super) fn findings(report: &WindowReport, features: &[Feature]) -> BTreeMap<String, f64> {
    report
        .findings
        .iter()
        .filter(|finding| features.contains(&finding.feature))
        .flat_map(|finding| {
            let prefix = format!("{} over {}", finding.feature, finding.windows);
            figures(finding)
                .into_iter()
                .chain([("users", finding.users as f64), ("events", finding.events as f64)])
                .map(move |(name, value)| (format!("{prefix} {name}"), value))
        })
        .collect()
}

/// The window's data quality, and every drift figure of the longest stretch of windows it was compared over.
pub(super) fn window(
    id: &str,
    champion: Option<&ModelVersion>,
    quality: &QualityReport,
    drift: &WindowReport,
) -> Vec<Outgoing> {
    let metric = |scope: &str, name: String, value: f64, n: u64| QualityMetric {
        schema_version: SchemaVersion,
        metric_id: format!("features/{scope}/{name}/{id}"),
        name,
        scope: scope.into(),
        population: "all".into(),
        model_version: (scope == "drift").then(|| champion.cloned()).flatten(),
        value,
        lo: None,
        hi: None,
        n,
        window_start_ms: quality.start_ms,
        window_end_ms: quality.end_ms,
    };
    let longest = drift.findings.iter().map(|finding| finding.windows).max();
    let of_data = quality
        .numbers
        .iter()
        .map(|(name, &value)| metric("data", name.clone(), value, quality.records));
    let anomalies = metric(
        "data",
        "anomalies".into(),
        quality.anomalies.len() as f64,
        quality.records,
    );
    let of_drift = drift
        .findings
        .iter()
        .filter(|finding| Some(finding.windows) == longest)
        .flat_map(|finding| {
            figures(finding).map(|(name, value)| {
                metric(
                    "drift",
                    format!("{}.{name}", finding.feature),
                    value,
                    finding.events,
                )
            })
        });
    of_data
        .chain([anomalies])
        .chain(of_drift)
        .map(|record| Outgoing::of(&record))
        .collect()
}
