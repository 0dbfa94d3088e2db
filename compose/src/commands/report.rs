//! `marquee report`: one day as a document.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use marquee_replay::{EvaluationOptions, Report, daily};
use marquee_runtime::{Clock, SystemClock};

use super::replay::time_ms;
use crate::cli::{Common, ReportArgs};
use crate::config::Config;
use crate::instance::StateDir;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(crate) async fn run(common: &Common, args: ReportArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    let now = SystemClock.now_ms();
    let asked = args.date.as_deref().map_or(Ok(now), time_ms).context("--date")?;
    let day_ms = asked.div_euclid(DAY_MS) * DAY_MS;
    let options = EvaluationOptions {
        attribution_window_ms: Config::load(common)?.replay.evaluation.attribution_window_ms,
        as_of_ms: now,
        ..EvaluationOptions::default()
    };
    let report = daily(&state.lake(), day_ms, options).await?;
    let date = date_of(day_ms)?;
    let folder = args.out.unwrap_or_else(|| state.reports());
    write(&report, &folder, &date)
}

/// The date of a moment, as files are named by it.
pub(super) fn date_of(ms: i64) -> Result<String> {
    let time = chrono::DateTime::from_timestamp_millis(ms).context("the date lies outside the calendar")?;
    Ok(time.format("%Y-%m-%d").to_string())
}

/// Writes both forms of a report below `folder`, and says where.
pub(super) fn write(report: &Report, folder: &Path, date: &str) -> Result<()> {
    let pictures = folder.join(date);
    fs::create_dir_all(&pictures).with_context(|| format!("creating {}", pictures.display()))?;
    let mut files = vec![
        (folder.join(format!("{date}.html")), report.to_html()),
        (folder.join(format!("{date}.md")), report.to_markdown(date)),
    ];
    files.extend(
        report
            .charts()
            .map(|chart| (pictures.join(format!("{}.svg", chart.name)), chart.svg.clone())),
    );
    for (path, text) in files {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
