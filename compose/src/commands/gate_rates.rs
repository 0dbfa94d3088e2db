//! `marquee models gate-rates`: how often the gate in force errs, by simulation.

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use marquee_trainer::gate::simulate::{EVALUATIONS, World, simulate};

use crate::cli::{Common, GateRatesArgs};
use crate::config::Config;

pub(crate) async fn run(common: &Common, args: GateRatesArgs) -> Result<()> {
    let config = Config::load(common)?.trainer.gate;
    config.check()?;
    let bar =
        ProgressBar::new(args.seeds).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}")?);
    let rates = tokio::task::spawn_blocking(move || {
        let rates = simulate(&World::default(), args.gain, args.seeds, &config, |seed| {
            bar.set_position(seed + 1)
        });
        bar.finish_and_clear();
        rates
    })
    .await?;
    if args.json {
        println!("{}", serde_json::to_string(&rates)?);
    } else {
        println!(
            "{} simulated pairs of models of each kind, in a world like ml-100k",
            rates.seeds
        );
        println!(
            "equal models promoted in one evaluation: {:.1}%",
            100.0 * rates.equal_promoted
        );
        for (evaluation, share) in rates.better_promoted_within.iter().enumerate() {
            println!(
                "models better by {:.0}% promoted within {} of {EVALUATIONS} evaluations: {:.1}%",
                100.0 * rates.gain,
                evaluation + 1,
                100.0 * share
            );
        }
        println!(
            "standard error of the gain in the first evaluation: {:.1}%",
            100.0 * rates.first_standard_error
        );
    }
    if args.check {
        ensure!(
            rates.equal_promoted <= 0.05,
            "equal models are promoted too often"
        );
        ensure!(
            rates.better_promoted_within[EVALUATIONS - 1] >= 0.8,
            "better models are kept out too often"
        );
    }
    Ok(())
}
