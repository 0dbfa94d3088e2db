//! Features and what is decided on them.

use clap::{Args, Subcommand};

use super::DatasetArgs;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct FeaturesArgs {
    #[command(subcommand)]
    pub(crate) action: Option<FeaturesAction>,

    /// A user's features and history; without it the counters
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeaturesAction {
    /// Features at an offset or a time, folded anew from the log by the code that folds it live
    AsOf(AsOfArgs),
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("about").required(true))]
#[command(group = clap::ArgGroup::new("point").required(true))]
pub(crate) struct AsOfArgs {
    /// The features of a user
    #[arg(long, value_name = "ID", group = "about")]
    pub(crate) user: Option<u64>,

    /// The features of a movie
    #[arg(long, value_name = "ID", group = "about")]
    pub(crate) movie: Option<u32>,

    /// The state's hash by partition, which two folds of the same log share
    #[arg(long, group = "about")]
    pub(crate) hash: bool,

    /// Next offsets of `interactions`, as in a model's positions; a partition that is not named counts whole
    #[arg(long, value_name = "PARTITION:OFFSET", value_delimiter = ',', value_parser = partition_offset, group = "point")]
    pub(crate) offsets: Vec<(i32, i64)>,

    /// What had happened by this event time: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = event_time, group = "point")]
    pub(crate) time: Option<i64>,
}

fn partition_offset(text: &str) -> Result<(i32, i64), String> {
    let parts = text.split_once(':');
    parts
        .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)))
        .ok_or_else(|| format!("{text:?} is not PARTITION:OFFSET, for example 0:1500"))
}

fn event_time(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_millis())
        .map_err(|error| format!("{text:?}: {error}; for example 1998-04-22T21:00:00Z"))
}

#[derive(Debug, Args)]
pub(crate) struct TriggersArgs {
    #[command(subcommand)]
    pub(crate) action: TriggersAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TriggersAction {
    /// Show the newest decisions with the numbers that they rest on
    Explain {
        /// How many decisions
        #[arg(long, default_value_t = 1, value_name = "N")]
        last: usize,

        /// Only decisions that asked for a training
        #[arg(long)]
        asked: bool,

        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DriftArgs {
    #[command(subcommand)]
    pub(crate) action: DriftAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DriftAction {
    /// False alarms on stationary streams, and how soon planted shifts are found, under the settings in force
    Calibrate {
        #[command(flatten)]
        dataset: DatasetArgs,

        /// Streams per table row
        #[arg(long, default_value_t = 100, value_name = "N")]
        seeds: u64,

        /// Users active at a time
        #[arg(long, default_value_t = 8, value_name = "N")]
        lanes: usize,

        /// Genre of the movies that are injected
        #[arg(long, default_value = "Horror", value_name = "NAME")]
        genre: String,

        /// Print one JSON line instead of a table
        #[arg(long)]
        json: bool,
    },
}
