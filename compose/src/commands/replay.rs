//! `marquee replay`: what the served lists led to, per model version, surface, position, warm and cold.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate};
use marquee_replay::{Estimate, Evaluation, EvaluationOptions, Slice, SliceEvaluation, evaluate};
use marquee_runtime::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::cli::{Common, ReplayArgs, ReplayOutput};
use crate::config::Config;
use crate::instance::StateDir;

pub(crate) async fn run(common: &Common, args: ReplayArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    let (from, to) = period(args.from.as_deref(), args.to.as_deref())?;
    let configured = Config::load(common)?.replay.evaluation.attribution_window_ms;
    let options = EvaluationOptions {
        k: args.k.max(1),
        attribution_window_ms: args
            .window
            .map_or(configured, |minutes| i64::from(minutes) * 60_000),
        as_of_ms: SystemClock.now_ms(),
        ..EvaluationOptions::default()
    };
    let evaluation = evaluate(&state.lake(), from, to, options).await?;
    let slices = evaluation.slices();
    if slices.is_empty() {
        println!("no list was served in this period");
        return Ok(());
    }
    match args.output {
        ReplayOutput::Table => print_tables(&slices, options.k),
        ReplayOutput::Json => slices
            .iter()
            .for_each(|slice| println!("{}", to_json(slice, options.k))),
    }
    if let Some((from, to)) = args.compare {
        compare(&evaluation, &from, &to, args.output, options.k)?;
    }
    Ok(())
}

fn interval(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "-".to_owned(),
        Some(Estimate {
            value,
            interval: Some((lo, hi)),
            ..
        }) => format!("{value:.4} ({lo:.4} to {hi:.4})"),
        Some(Estimate { value, .. }) => format!("{value:.4}"),
    }
}

fn print_tables(slices: &[SliceEvaluation], k: usize) {
    println!("intervals are at 95%, with users as the independent units\n");
    for slice in slices {
        let version = slice.model_version.as_deref().unwrap_or("no model");
        println!(
            "{version}, {}: {} lists of {} users, {} answered, {} too young to count",
            slice.slice, slice.lists, slice.users, slice.answered, slice.censored
        );
        let figures = [
            (format!("next-interaction hit rate@{k}"), slice.hit_rate),
            (format!("precision@{k}"), slice.precision),
            (format!("ndcg@{k}"), slice.ndcg),
            (format!("mrr@{k}"), slice.mrr),
            ("click-through rate".to_owned(), slice.ctr),
            ("seconds to the first answer".to_owned(), slice.seconds_to_answer),
        ];
        for (name, estimate) in figures {
            println!("  {name:<32} {}", interval(estimate));
        }
        let share = slice.coverage.map_or_else(String::new, |share| {
            format!(", {:.1}% of the catalogue", share * 100.0)
        });
        println!(
            "  {:<32} {}{share}",
            format!("movies in the first {k}"),
            slice.distinct_movies
        );
        if slice.slice == Slice::All {
            for (at, &estimate) in slice.by_position.iter().enumerate() {
                println!(
                    "  {:<32} {}",
                    format!("taken at position {}", at + 1),
                    interval(Some(estimate))
                );
            }
        }
        println!();
    }
    if slices.iter().all(|slice| slice.ctr.is_none()) {
        println!("no click names the list it answers, so there is no click-through rate");
    }
}

fn estimate_json(estimate: Option<Estimate>) -> Value {
    estimate.map_or(Value::Null, |estimate| {
        json!({
            "value": estimate.value,
            "lo": estimate.interval.map(|interval| interval.0),
            "hi": estimate.interval.map(|interval| interval.1),
            "n": estimate.n,
        })
    })
}

fn to_json(slice: &SliceEvaluation, k: usize) -> Value {
    json!({
        "model_version": slice.model_version,
        "slice": slice.slice.to_string(),
        "k": k,
        "lists": slice.lists,
        "censored": slice.censored,
        "answered": slice.answered,
        "users": slice.users,
        "next_interaction_hit_rate": estimate_json(slice.hit_rate),
        "precision": estimate_json(slice.precision),
        "ndcg": estimate_json(slice.ndcg),
        "mrr": estimate_json(slice.mrr),
        "ctr": estimate_json(slice.ctr),
        "seconds_to_answer": estimate_json(slice.seconds_to_answer),
        "distinct_movies": slice.distinct_movies,
        "coverage": slice.coverage,
        "taken_by_position": slice.by_position.iter().map(|&at| estimate_json(Some(at))).collect::<Vec<_>>(),
    })
}

fn compare(evaluation: &Evaluation, from: &str, to: &str, output: ReplayOutput, k: usize) -> Result<()> {
    let Some(comparison) = evaluation.compare(from, to) else {
        bail!("{from} or {to} served no list in this period");
    };
    match output {
        ReplayOutput::Table => {
            println!("{to} less {from} (as observed; who got which model was not drawn by lot):");
            for (name, difference) in comparison.differences {
                let verdict = match difference.interval {
                    Some((lo, _)) if lo > 0.0 => "better",
                    Some((_, hi)) if hi < 0.0 => "worse",
                    _ => "not told apart",
                };
                println!("  {name:<12} {:<32} {verdict}", interval(Some(difference)));
            }
        }
        ReplayOutput::Json => {
            let differences: serde_json::Map<String, Value> = comparison
                .differences
                .into_iter()
                .map(|(name, difference)| (name.replace(' ', "_"), estimate_json(Some(difference))))
                .collect();
            println!(
                "{}",
                json!({ "from": from, "to": to, "k": k, "difference": differences })
            );
        }
    }
    Ok(())
}

/// A date (its first moment in UTC) or an RFC 3339 time, as ms since the epoch.
/// The period asked for, from and to (exclusive), ms; everything where an end is not named.
pub(super) fn period(from: Option<&str>, to: Option<&str>) -> Result<(i64, i64)> {
    Ok((
        from.map_or(Ok(0), time_ms).context("--from")?,
        to.map_or(Ok(i64::MAX / 2), time_ms).context("--to")?,
    ))
}

pub(super) fn time_ms(text: &str) -> Result<i64> {
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
