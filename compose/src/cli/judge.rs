//! Judging models on data sets.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DatasetArgs;

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// How to judge
    #[arg(long, default_value = "prequential", value_name = "PROTOCOL")]
    pub(crate) protocol: Protocol,

    /// Where the targets lie; look at the test segment last, and tune on validation
    #[arg(long, default_value = "test", value_name = "SEGMENT")]
    pub(crate) segment: JudgedSegment,

    /// Whom to judge: `all`, or names separated by commas; `served` is what the product serves
    #[arg(long, default_value = "served", value_delimiter = ',', value_name = "NAMES")]
    pub(crate) models: Vec<String>,

    /// Prequential: refit once this many further interactions were revealed; 0 for never
    #[arg(long, default_value_t = 3000, value_name = "N")]
    pub(crate) retrain_every: usize,

    /// Seed of fits, random splits and the bootstrap
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,

    /// Draws per bootstrap interval
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) bootstrap_draws: usize,

    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) threads: usize,

    /// Print one JSON line per model and population instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Predict each event from what came strictly before, reveal it, go on
    Prequential,
    /// Fit once, rank once per warm user
    Static,
    /// Divide each user's pairs 80/20 at random, as the literature does
    RandomSplit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JudgedSegment {
    /// For tuning
    Validation,
    /// For the final figures
    Test,
}

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Data sets, separated by commas; a trial's value is the mean over them
    #[arg(
        long,
        default_value = "ml-100k,ml-latest-small",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub(crate) datasets: Vec<String>,

    /// Folder that holds the data sets [env: MARQUEE_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Trials in all, those in the journal included
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) trials: usize,

    /// File that remembers the trials; with it a search goes on where it was interrupted
    #[arg(long, default_value = "tune.jsonl", value_name = "FILE")]
    pub(crate) journal: PathBuf,

    /// Refit once this many further interactions were revealed; 0 for never
    #[arg(long, default_value_t = 3000, value_name = "N")]
    pub(crate) retrain_every: usize,

    /// Seed of the search and of every fit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,

    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) threads: usize,
}
