//! `marquee report`: one day as a document.

use std::fs;

use anyhow::{Context, Result};
use marquee_replay::{EvaluationOptions, daily};
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
    let date = chrono::DateTime::from_timestamp_millis(day_ms)
        .context("--date lies outside the calendar")?
        .format("%Y-%m-%d")
        .to_string();
    let folder = args.out.unwrap_or_else(|| state.reports());
    let pictures = folder.join(&date);
    fs::create_dir_all(&pictures).with_context(|| format!("creating {}", pictures.display()))?;
    let mut files = vec![
        (folder.join(format!("{date}.html")), report.to_html()),
        (folder.join(format!("{date}.md")), report.to_markdown(&date)),
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
