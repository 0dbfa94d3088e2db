//! `marquee`: the one binary. It puts the services together, all in one process (`marquee up`) or one per process
//! (`marquee run SERVICE`), and carries the tools around them.

mod cli;
mod commands;
mod config;
mod ingest;
mod instance;
mod services;
mod up;

use std::process::ExitCode;

use clap::Parser;
use marquee_runtime::aside::STACK_BYTES;
use marquee_runtime::telemetry;

use crate::cli::{Cli, Command};

/// Records pass from thread to thread at every step; what one allocates another frees. The system's allocator makes
/// them wait for each other there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = telemetry::init(&cli.log, cli.log_format.into()) {
        eprintln!("error: --log {:?}: {error}", cli.log);
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(dispatch(cli));
    // Blocking work that was told to stop must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let common = cli.common;
    match cli.command {
        Command::Up(args) => up::up(&common, args).await,
        Command::Run(args) => up::run_one(&common, args).await,
        Command::Broker(args) => up::broker(&common, args).await,
        Command::Ingest(args) => commands::ingest::run(&common, args).await,
        Command::Download(args) => commands::download::run(args).await,
        Command::Sql(args) => commands::sql::run(&common, args).await,
        Command::Replay(args) => commands::replay::run(&common, args).await,
        Command::WhatIf(args) => commands::what_if::run(&common, args).await,
        Command::Experiment(args) => commands::experiment::run(&common, args).await,
        Command::Simulate(args) => commands::simulate::run(&common, args).await,
        Command::Report(args) => commands::report::run(&common, args).await,
        Command::Models(args) => commands::models::run(&common, args).await,
        Command::Features(args) => commands::features::run(&common, args).await,
        Command::Retrain(args) => commands::retrain::run(&common, args).await,
        Command::Triggers(args) => commands::triggers::run(&common, args).await,
        Command::Drift(args) => commands::drift::run(&common, args).await,
        Command::Demo(args) => commands::demo::run(&common, args).await,
        Command::Schemas(args) => commands::schemas::run(&args),
        Command::Config => commands::show_config(&common),
        Command::Tune(args) => commands::tune::run(&common, args).await,
        Command::Evaluate(args) => commands::evaluate::run(&common, args).await,
        Command::E2eCheck(args) => commands::e2e_check::run(&common, args).await,
    }
}
