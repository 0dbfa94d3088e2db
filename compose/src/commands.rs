//! One file per subcommand.

pub(crate) mod demo;
pub(crate) mod download;
pub(crate) mod drift;
pub(crate) mod e2e_check;
pub(crate) mod evaluate;
pub(crate) mod experiment;
pub(crate) mod features;
pub(crate) mod gate_rates;
pub(crate) mod ingest;
pub(crate) mod model_events;
pub(crate) mod models;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod retrain;
pub(crate) mod schemas;
pub(crate) mod simulate;
pub(crate) mod sql;
pub(crate) mod triggers;
pub(crate) mod tune;
pub(crate) mod what_if;

use anyhow::Result;

use crate::cli::Common;
use crate::config::Config;

/// Prints the configuration in force, as a file that `--config` takes.
pub(crate) fn show_config(common: &Common) -> Result<()> {
    let config = Config::load(common)?;
    println!("{}", config.to_toml()?);
    Ok(())
}
