//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use marquee_ingestor::Scenario;
use marquee_ingestor::replay::Speed;
use marquee_runtime::telemetry::LogFormat;

/// Event-driven, real-time movie recommendations: from the click to the next list in milliseconds.
#[derive(Debug, Parser)]
#[command(name = "marquee", version, max_term_width = 100, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,

    /// What to log, as a tracing filter, for example `info,marquee_trainer=debug`
    #[arg(
        long,
        global = true,
        env = "MARQUEE_LOG",
        default_value = "info,rdkafka=off,librdkafka=off,tansu=warn,tansu_broker=off,tansu_storage=off,tansu_service=off,rama=off",
        hide_default_value = true,
        value_name = "FILTER",
        help_heading = "Everywhere"
    )]
    pub(crate) log: String,

    /// How log lines look
    #[arg(
        long,
        global = true,
        env = "MARQUEE_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Everywhere"
    )]
    pub(crate) log_format: LogStyle,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Configuration file (TOML); its keys are those that `marquee config` prints
    #[arg(
        long,
        global = true,
        env = "MARQUEE_CONFIG",
        value_name = "FILE",
        help_heading = "Everywhere"
    )]
    pub(crate) config: Option<PathBuf>,

    /// Where everything is kept
    #[arg(
        long,
        global = true,
        default_value = "./.marquee",
        value_name = "DIR",
        help_heading = "Everywhere"
    )]
    pub(crate) state_dir: PathBuf,

    /// Use this Kafka instead of the embedded broker
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Everywhere")]
    pub(crate) brokers: Option<String>,

    /// Pass an option through to librdkafka, for example `security.protocol=SSL`; may be repeated
    #[arg(long = "kafka-option", global = true, value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Everywhere")]
    pub(crate) kafka_options: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogStyle {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl From<LogStyle> for LogFormat {
    fn from(style: LogStyle) -> Self {
        match style {
            LogStyle::Text => Self::Text,
            LogStyle::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: broker, pipeline, HTTP, and a data set as traffic
    Up(UpArgs),
    /// Run one service against a Kafka
    Run(RunArgs),
    /// Run the embedded broker alone
    Broker(BrokerArgs),
    /// Load a data set and publish it as interactions
    Ingest(IngestArgs),
    /// Fetch a MovieLens data set into the cache
    Download(DownloadArgs),
    /// Ask the lake a question in SQL
    Sql(SqlArgs),
    /// What the served lists led to, per model version
    Replay(ReplayArgs),
    /// What another model would have earned on the requests that were logged
    WhatIf(WhatIfArgs),
    /// The arms of an experiment, looked at after every hour
    Experiment(ExperimentArgs),
    /// Let users with a taste of their own answer the lists of a running instance
    Simulate(SimulateArgs),
    /// One day as an HTML and a Markdown document with pictures
    Report(ReportArgs),
    /// Look at models, promote one, roll back
    Models(ModelsArgs),
    /// Look up features: as they are, or as they were at a point of the log
    Features(FeaturesArgs),
    /// Ask for a new model, with a written reason
    Retrain(RetrainArgs),
    /// Why a new model was asked for, or was not
    Triggers(TriggersArgs),
    /// Measure drift detection on streams made of a data set
    Drift(DriftArgs),
    /// Watch a story: `retraining` is a model's whole life, `experiment` is evidence at work
    Demo(DemoArgs),
    /// Write the JSON Schemas of all topics
    Schemas(SchemasArgs),
    /// Print the configuration in force
    Config,
    /// Judge models on a data set, by the code that serves
    Evaluate(EvaluateArgs),
    /// Search the served model's settings on the validation segment
    Tune(TuneArgs),
    /// Measure how fast a new user's ratings change that user's list
    E2eCheck(E2eCheckArgs),
}

/// Which data set.
#[derive(Debug, Clone, Args)]
pub(crate) struct DatasetArgs {
    /// ml-100k, ml-1m, ml-latest-small, another MovieLens folder, or `synthetic`
    #[arg(long, default_value = "ml-latest-small", value_name = "NAME")]
    pub(crate) dataset: String,

    /// Folder that holds the data set, or a folder of such folders [env: MARQUEE_DATA_DIR]; a data set that is not
    /// there is fetched from GroupLens
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// Where to serve HTTP; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,

    /// Where the embedded broker listens; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka_listen: Option<SocketAddr>,

    /// Where SQL is answered over HTTP; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) sql_listen: Option<SocketAddr>,

    /// Share of the data set that is replayed as history; the rest becomes live traffic
    #[arg(long, default_value_t = 0.85, value_name = "SHARE")]
    pub(crate) history_share: f64,

    /// How fast the history is replayed: `max`, `1000x` event time, `500/s`
    #[arg(long, default_value = "max", value_name = "SPEED")]
    pub(crate) speed: Speed,

    /// How fast the rest arrives as live traffic
    #[arg(long, default_value = "20/s", value_name = "SPEED")]
    pub(crate) live_speed: Speed,

    /// Which time the events carry
    #[arg(long, default_value = "shifted", value_name = "TIMES")]
    pub(crate) event_times: EventTimes,

    /// Publish no traffic: only run the services
    #[arg(long)]
    pub(crate) no_traffic: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventTimes {
    /// History ends now, live traffic is stamped as it is sent
    Shifted,
    /// As in the data set
    Original,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which service
    pub(crate) service: ServiceName,

    /// Where to serve HTTP: the recommender its lists, replay its SQL; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceName {
    /// Folds interactions into features, raises triggers
    FeatureProcessor,
    /// Fits and promotes models on retrain events
    Trainer,
    /// Serves HTTP
    Recommender,
    /// Writes the lake
    Replay,
}

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Where to listen; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// `max`, `1000x` event time, `500/s`
    #[arg(long, default_value = "max", value_name = "SPEED")]
    pub(crate) speed: Speed,

    /// First event to publish
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) from: usize,

    /// End before this event
    #[arg(long, value_name = "N")]
    pub(crate) to: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct DownloadArgs {
    /// ml-100k, ml-1m, ml-latest-small, ml-latest, ml-25m, ml-32m, ...
    pub(crate) dataset: String,

    /// Where to put it; by default the user's cache folder
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}

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

    /// Intended share of an arm's users, for example `control=0.9`; may be repeated, the other arms divide the rest
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
    let (arm, share) = key_value(text)?;
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

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) action: ModelsAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// All versions with their state and metrics
    List,
    /// One version's entry in the registry, as JSON
    Show {
        /// The version, or an alias: champion, previous, challenger
        version: String,
    },
    /// Why a version was promoted or kept out: every question of the gate with its numbers
    Explain {
        /// The version, or an alias
        version: String,
        /// How to tell it
        #[arg(long, default_value = "markdown", value_name = "FORMAT")]
        format: PageFormat,
        /// Write to this file instead of the terminal
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Figures side by side, as Markdown
    Compare {
        /// Versions or aliases; without any, all versions
        versions: Vec<String>,
        /// Write to this file, for example MODEL_COMPARISON.md
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a version the champion, whatever the gate said
    Promote {
        /// The version, or an alias
        version: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// End the rollout under way, or, without one, let the previous champion serve again
    Rollback {
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Take the rollout's next step now, without waiting for evidence
    Advance {
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Fit a version again from the log and compare the bytes
    Reproduce {
        /// The version, or an alias
        version: String,
    },
    /// Write a version as files for other tools: everybody's top ten with titles, factors as Parquet, id maps
    Export {
        /// The version, or an alias
        version: String,
        /// Folder in which a folder of the version's name is made
        #[arg(long, default_value = "exports", value_name = "DIR")]
        to: PathBuf,
    },
    /// Judge the champion on what has come since it was trained, now instead of on schedule
    Evaluate,
    /// How often the gate errs, by simulation
    GateRates(GateRatesArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PageFormat {
    /// For people, also in a terminal
    Markdown,
    /// For browsers, one self-contained page
    Html,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct GateRatesArgs {
    /// Pairs of models of each kind
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub(crate) seeds: u64,

    /// True relative gain of the better models
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    pub(crate) gain: f64,

    /// Print one JSON line
    #[arg(long)]
    pub(crate) json: bool,

    /// Fail if equal models pass in more than 5%, or better ones in less than 80% within three evaluations
    #[arg(long)]
    pub(crate) check: bool,
}

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
pub(crate) struct RetrainArgs {
    /// Why a new model is wanted, or the training under way is not; kept for ever
    #[arg(long)]
    pub(crate) reason: String,

    /// Stay, and tell how far the training is and what the gate says
    #[arg(long, conflicts_with = "cancel")]
    pub(crate) follow: bool,

    /// Abandon the training under way instead
    #[arg(long)]
    pub(crate) cancel: bool,
}

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
    #[arg(long, default_value_t = 800, value_name = "N")]
    pub(crate) users: u64,

    /// How many of them come in a second, each for three lists on average
    #[arg(long, default_value_t = 50.0, value_name = "N")]
    pub(crate) sessions_per_s: f64,

    /// The genre that falls out of favour
    #[arg(long, default_value = "Drama", value_name = "GENRE")]
    pub(crate) from_genre: String,

    /// The genre that comes into favour
    #[arg(long, default_value = "Horror", value_name = "GENRE")]
    pub(crate) to_genre: String,

    /// By how many stars
    #[arg(long, default_value_t = 1.5, value_name = "STARS")]
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

#[derive(Debug, Args)]
pub(crate) struct SchemasArgs {
    /// Folder to write `<topic>.schema.json` files into
    #[arg(long, default_value = "schemas/json", value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Write nothing; fail if the files differ from what would be written
    #[arg(long)]
    pub(crate) check: bool,
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
