//! The command line.

mod demo;
mod features;
mod judge;
mod models;
mod replay;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use marquee_runtime::telemetry::LogFormat;

pub(crate) use demo::{
    DemoArgs, DemoExperimentArgs, DemoFreshnessArgs, DemoRetrainingArgs, DemoStory, E2eCheckArgs,
};
pub(crate) use features::{
    AsOfArgs, DriftAction, DriftArgs, FeaturesAction, FeaturesArgs, TriggersAction, TriggersArgs,
};
pub(crate) use judge::{EvaluateArgs, JudgedSegment, Protocol, TuneArgs};
pub(crate) use models::{GateRatesArgs, ModelsAction, ModelsArgs, PageFormat, RetrainArgs};
pub(crate) use replay::{
    ExperimentArgs, ReplayArgs, ReplayOutput, ReportArgs, SimulateArgs, SqlArgs, SqlOutput, WhatIfArgs,
};
pub(crate) use run::{BrokerArgs, DownloadArgs, EventTimes, IngestArgs, RunArgs, ServiceName, UpArgs};

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
pub(crate) struct SchemasArgs {
    /// Folder to write `<topic>.schema.json` files into
    #[arg(long, default_value = "schemas/json", value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Write nothing; fail if the files differ from what would be written
    #[arg(long)]
    pub(crate) check: bool,
}
