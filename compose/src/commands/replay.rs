//! `marquee replay`: what the served lists led to, per model version.

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDate};
use marquee_replay::{EvaluationOptions, evaluate};

use crate::cli::{Common, ReplayArgs};
use crate::config::Config;
use crate::instance::StateDir;

pub(crate) async fn run(common: &Common, args: ReplayArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    let from = args.from.as_deref().map_or(Ok(0), time_ms).context("--from")?;
    let to = args
        .to
        .as_deref()
        .map_or(Ok(i64::MAX / 2), time_ms)
        .context("--to")?;
    let options = EvaluationOptions {
        attribution_window_ms: Config::load(common)?.replay.evaluation.attribution_window_ms,
        ..EvaluationOptions::default()
    };
    let models = evaluate(&state.lake(), from, to, options).await?;
    if models.is_empty() {
        println!("no list was served in this period");
        return Ok(());
    }
    let k = options.k;
    println!(
        "{:<12} {:>8} {:>9} {:>7}   {:>26}   {:>26}",
        "model",
        "lists",
        "answered",
        "users",
        format!("next-interaction hit@{k}"),
        format!("ndcg@{k}")
    );
    for model in models {
        let estimate = |estimate: &Option<marquee_replay::Estimate>| {
            estimate.as_ref().map_or_else(
                || "-".to_owned(),
                |e| match e.interval {
                    Some((lo, hi)) => format!("{:.4} ({lo:.4} to {hi:.4})", e.value),
                    None => format!("{:.4}", e.value),
                },
            )
        };
        println!(
            "{:<12} {:>8} {:>9} {:>7}   {:>26}   {:>26}",
            model.model_version.as_deref().unwrap_or("none"),
            model.lists,
            model.answered,
            model.users,
            estimate(&model.hit_rate),
            estimate(&model.ndcg)
        );
    }
    Ok(())
}

/// A date (its first moment in UTC) or an RFC 3339 time, as ms since the epoch.
fn time_ms(text: &str) -> Result<i64> {
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis());
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_millis())
        .with_context(|| format!("{text:?} is neither a date (2026-01-31) nor a time (2026-01-31T12:00:00Z)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_and_anything_else_is_explained() {
        assert_eq!(time_ms("1970-01-02").unwrap(), 86_400_000);
        assert_eq!(time_ms("1970-01-01T00:00:01Z").unwrap(), 1_000);
        assert!(
            time_ms("yesterday")
                .unwrap_err()
                .to_string()
                .contains("yesterday")
        );
    }
}
