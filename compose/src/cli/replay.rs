//! Questions to the log of what was served.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use marquee_ingestor::Scenario;

use super::DatasetArgs;

#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// The question, for example "SELECT endpoint, count(*) FROM request_logs GROUP BY endpoint"; without it, questions
    /// are read from standard input, each to its semicolon
    pub(crate) query: Option<String>,

    /// How the answer looks
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: SqlOutput,

    /// List the tables and what their columns mean
    #[arg(long)]
    pub(crate) tables: bool,

    /// Leave out rows that are not in Parquet yet
    #[arg(long)]
    pub(crate) cold: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SqlOutput {
    /// For people
    Table,
    /// With a header line
    Csv,
    /// One object a line
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Only requests at or after this time (RFC 3339 or a date)
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,

    /// Only requests before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,

    /// Positions that count
    #[arg(long, default_value_t = 10, value_name = "K")]
    pub(crate) k: usize,

    /// How long after a list an interaction may answer it, minutes; by default what the service is configured with
    #[arg(long, value_name = "MINUTES")]
    pub(crate) window: Option<u32>,

    /// Compare two models, for example `v000001,v000002`
    #[arg(long, value_name = "FROM,TO", value_parser = two_versions)]
    pub(crate) compare: Option<(String, String)>,

    /// How the answer looks
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: ReplayOutput,
}

#[derive(Debug, Args)]
pub(crate) struct WhatIfArgs {
    /// The model: a version, or an alias such as challenger
    pub(crate) version: String,

    /// Only requests at or after this time (RFC 3339 or a date)
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,

    /// Only requests before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,

    /// Positions that count
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub(crate) k: usize,

    /// Best-ranked movies that the drawn lists were drawn from; by default as the recommender is configured now
    #[arg(long, value_name = "N")]
    pub(crate) pool: Option<usize>,

    /// How strongly the drawn lists kept the ranking; by default as the recommender is configured now
    #[arg(long, value_name = "S")]
    pub(crate) steepness: Option<f64>,

    /// Weights above this are cut by the clipped estimator
    #[arg(long, default_value_t = 20.0, value_name = "W")]
    pub(crate) clip: f64,
}

#[derive(Debug, Args)]
pub(crate) struct ExperimentArgs {
    /// Its name, as the request log has it
    pub(crate) experiment: String,

    /// The arm that the others are compared with
    #[arg(long, default_value = "control", value_name = "ARM")]
    pub(crate) control: String,

    /// Intended share of an arm's users, for example `control=0.9`; may be repeated, the other arms divide the rest. By
    /// default as the recommender is configured, if it is for this experiment
    #[arg(long = "share", value_name = "ARM=SHARE", value_parser = arm_share)]
    pub(crate) shares: Vec<(String, f64)>,

    /// Only requests at or after this time (RFC 3339 or a date); those before the experiment's first list tell what its
    /// users did before
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,

    /// Only requests before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,

    /// Error over all looks
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    pub(crate) alpha: f64,

    /// The difference that matters, absolute: the looks are sharpest around it
    #[arg(long, default_value_t = 0.01, value_name = "D")]
    pub(crate) effect: f64,

    /// Users per arm below which a look does not count
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) least_users: u32,
}

fn arm_share(text: &str) -> Result<(String, f64), String> {
    let (arm, share) = super::key_value(text)?;
    match share.parse() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok((arm, share)),
        _ => Err("a share lies between 0 and 1".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// The instance's HTTP address; found in the state directory if not given
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// Sessions, of about three lists each
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) sessions: u64,

    /// Sessions per second, at most
    #[arg(long, default_value_t = 20.0, value_name = "N")]
    pub(crate) rate: f64,

    /// Simulated users
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) users: u64,

    /// Entries of a list
    #[arg(long, default_value_t = 10, value_name = "K")]
    pub(crate) k: u32,

    /// What changes: `steady`, `trend:GENRE:STARS:SESSIONS` (everyone likes a genre better after so many sessions), or
    /// `shift:SHARE:SESSIONS` (a share of the users gets the taste of others)
    #[arg(long, default_value = "steady", value_name = "SCENARIO")]
    pub(crate) scenario: Scenario,

    /// Everything that users do follows from it and from what they are served
    #[arg(long, default_value_t = 42, value_name = "SEED")]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The day (UTC), for example 2026-01-31; today without it
    #[arg(long, value_name = "DATE")]
    pub(crate) date: Option<String>,

    /// Folder for the documents; by default `reports` in the state directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

fn two_versions(text: &str) -> Result<(String, String), String> {
    match text.split_once(',') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() && !to.contains(',') => {
            Ok((from.to_owned(), to.to_owned()))
        }
        _ => Err("expected two versions, FROM,TO".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayOutput {
    /// For people
    Table,
    /// One JSON object per model and slice, then one per comparison
    Json,
}
