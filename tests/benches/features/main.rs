//! `cargo bench --bench features [-- --parts work,growth,embedded,kafka,live --events 2000000]`: what the feature
//! processor costs.
//!
//! | part | what is measured |
//! |---|---|
//! | `work` | decode + fold + durable commit over batch sizes, without any broker; the same with everything else that the processor does (triggers, changelog encoding); peak memory and file size |
//! | `growth` | the same work for 100 thousand, 1 million and 10 million events, users and events growing together |
//! | `embedded` | from a pre-filled topic of the embedded broker to the changelog on it |
//! | `kafka` | the same with Apache Kafka, where it is to be had |
//! | `live` | at 1,000 events per second: from an event to its changelog record, and `GET /features/users/{id}` meanwhile |
//!
//! The stream is simulated at ml-1m's shape: 6,040 users whose activity is as skewed, 3,706 movies, users in sessions;
//! and once without sessions, each event by another user, which is the worst case for a batch. Every measurement is a
//! process of its own, so that memory does not leak from one into the next. Events are made before the clock starts.
//! The nearest rival's published figure is Metarank's import of 1,000 to 3,000 events per second; it was not run here.
//! Ends with one JSON line.

mod live;
mod stream;
mod topic;
mod work;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::Command;

use serde_json::{Value, json};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

const PARTS: [&str; 5] = ["work", "growth", "embedded", "kafka", "live"];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker", "work", rest @ ..] => print_json(&work::run(rest)?),
        ["worker", "topic", rest @ ..] => print_json(&topic::consume(rest)?),
        ["worker", "live", rest @ ..] => print_json(&live::run(rest)?),
        words => compare(words),
    }
}

fn print_json(value: &Value) -> Outcome<()> {
    println!("{value}");
    Ok(())
}

fn compare(words: &[&str]) -> Outcome<()> {
    let value_of = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    let parts: Vec<&str> = value_of("--parts").map_or(PARTS.to_vec(), |list| list.split(',').collect());
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        return Err(format!("no part {unknown}; there are {}", PARTS.join(", ")).into());
    }
    let events: u64 = value_of("--events").unwrap_or("2000000").parse()?;
    let mut figures = BTreeMap::from([
        ("events".to_owned(), json!(events)),
        (
            "metarank_import_published_events_per_second_low".into(),
            json!(1_000),
        ),
        (
            "metarank_import_published_events_per_second_high".into(),
            json!(3_000),
        ),
    ]);
    for part in parts {
        match part {
            "work" => work::batch_sizes(events, &mut figures)?,
            "growth" => work::growth(&mut figures)?,
            "embedded" => topic::embedded(events, &mut figures)?,
            "kafka" => topic::kafka(events, &mut figures)?,
            _ => live::measure(&mut figures)?,
        }
        println!();
    }
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// Runs one measurement in a process of its own.
pub(crate) fn worker(words: &[&str]) -> Outcome<Value> {
    let output = Command::new(std::env::current_exe()?)
        .arg("worker")
        .args(words)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{words:?} ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(crate) fn number(values: &Value, name: &str) -> Outcome<f64> {
    values[name]
        .as_f64()
        .ok_or_else(|| format!("{name} is missing in {values}").into())
}

/// The greatest resident size of this process so far, as Linux counts it.
pub(crate) fn peak_rss_mib() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM line")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib / 1024.0)
}

/// The size of all files in a folder.
pub(crate) fn files_mib(folder: &std::path::Path) -> Outcome<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}
