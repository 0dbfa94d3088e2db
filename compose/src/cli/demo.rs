//! Stories and checks of the whole product.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DatasetArgs;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    pub(crate) story: DemoStory,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DemoStory {
    /// How many lists are not personal while a data set's newest part streams in, and how many would be in a batch
    /// design
    Freshness(DemoFreshnessArgs),
    /// Training, comparison, rollout in steps under load, a damaged challenger, a bad one
    Retraining(DemoRetrainingArgs),
    /// Simulated users decide: a better model is found and rolled out, then tastes turn and the loop closes
    Experiment(DemoExperimentArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DemoExperimentArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// Simulated users
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub(crate) users: u64,

    /// How many of them come in a second, each for three lists on average
    #[arg(long, default_value_t = 50.0, value_name = "N")]
    pub(crate) sessions_per_s: f64,

    /// The genre that falls out of favour
    #[arg(long, default_value = "Drama", value_name = "GENRE")]
    pub(crate) from_genre: String,

    /// The genre that comes into favour
    #[arg(long, default_value = "Action", value_name = "GENRE")]
    pub(crate) to_genre: String,

    /// By how many stars
    #[arg(long, default_value_t = 2.0, value_name = "STARS")]
    pub(crate) stars: f64,

    /// Folder of the report; by default `reports` in the state directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoFreshnessArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// Share of the events, the newest ones, before each of which a list is asked for
    #[arg(long, default_value_t = 0.3, value_name = "SHARE")]
    pub(crate) share: f64,
}

#[derive(Debug, Args)]
pub(crate) struct DemoRetrainingArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// How fast the newest 30% stream in
    #[arg(long, default_value_t = 500.0, value_name = "N")]
    pub(crate) events_per_s: f64,
}

#[derive(Debug, Args)]
pub(crate) struct E2eCheckArgs {
    /// The instance's HTTP address; found in the state directory if not given
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// New users to try
    #[arg(long, default_value_t = 1000)]
    pub(crate) users: u32,

    /// Events per second of other users in the background
    #[arg(long, default_value_t = 1000)]
    pub(crate) background: u32,

    /// Print one JSON line instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Fail if the 99th percentile is above this many milliseconds
    #[arg(long, value_name = "MS")]
    pub(crate) max_p99_ms: Option<f64>,
}
