//! Models: asking for them, looking at them, moving them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
