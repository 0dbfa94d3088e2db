//! `marquee sql`: one question to the lake, answered on standard output.

use anyhow::{Context, Result};
use marquee_replay::sql::documentation;
use marquee_replay::{Format, SqlEngine, SqlOptions};
use marquee_runtime::bus::Bus;

use crate::cli::{Common, SqlArgs, SqlOutput};
use crate::config::Config;
use crate::instance::StateDir;

pub(crate) async fn run(common: &Common, args: SqlArgs) -> Result<()> {
    if args.tables {
        for table in documentation() {
            println!("{}\n  {}", table.name, table.description);
            for column in table.columns {
                println!("    {:<18} {}", column.name, column.description);
            }
        }
        return Ok(());
    }
    let query = args.query.context("a question is needed")?;
    let state = StateDir::new(&common.state_dir)?;
    let mut engine = SqlEngine::new(state.lake(), SqlOptions::default())?;
    if !args.cold
        && let Some(bus) = reachable_bus(common, &state)?
    {
        engine = engine.with_hot_tail(bus);
    }
    let result = engine.run(&query).await?;
    print!(
        "{}",
        result.render(match args.output {
            SqlOutput::Table => Format::Table,
            SqlOutput::Csv => Format::Csv,
            SqlOutput::Json => Format::Json,
        })?
    );
    for notice in &result.notices {
        eprintln!("note: {notice}");
    }
    if matches!(args.output, SqlOutput::Table) {
        println!("{} rows in {} ms", result.num_rows(), result.duration_ms);
    }
    Ok(())
}

/// The newest rows come from the broker, where one is named or running; otherwise the lake answers alone.
fn reachable_bus(common: &Common, state: &StateDir) -> Result<Option<Bus>> {
    if common.brokers.is_none() && state.running().is_none() {
        return Ok(None);
    }
    Ok(Some(Config::load(common)?.bus_of_running_instance(common)?))
}
