//! `marquee tune`: search the served model's settings on the validation segment. The test segment is dropped before
//! anything is fitted; no trial can see it.

mod journal;

use anyhow::{Context, Result, ensure};
use marquee_models::served::ServedParams;
use marquee_models::tune::{Blind, Dimension, Trial, apply, propose, served_space};
use serde::Serialize;

use self::journal::{Header, Journal};
use super::evaluate::{bar, prepared};
use crate::cli::{Common, DatasetArgs, TuneArgs};
use crate::config::Config;

pub(crate) async fn run(common: &Common, args: TuneArgs) -> Result<()> {
    let base = Config::load(common)?.trainer.model;
    tokio::task::spawn_blocking(move || search(&base, &args)).await?
}

fn search(base: &ServedParams, args: &TuneArgs) -> Result<()> {
    ensure!(!args.datasets.is_empty(), "--datasets names no data set");
    let space = served_space();
    let header = Header::new(&args.datasets, args.retrain_every, args.seed, &space);
    let mut journal = Journal::open(&args.journal, &header)?;
    let mut data = Vec::new();
    for name in &args.datasets {
        let args = DatasetArgs {
            dataset: name.clone(),
            data_dir: args.data_dir.clone(),
        };
        data.push((name.as_str(), Blind::new(prepared(&args)?)));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()?;
    for index in journal.trials().len()..args.trials {
        let point = propose(&space, journal.trials(), index, args.seed);
        let params = apply(base, &space, &point)?;
        let mut values = Vec::new();
        for (name, data) in &data {
            let bar = bar("events").with_message(format!("trial {index}, {name}"));
            let value = pool.install(|| {
                data.value(
                    &params,
                    Some(args.retrain_every).filter(|&every| every > 0),
                    args.seed,
                    &|at| {
                        bar.set_length(at.total as u64);
                        bar.set_position(at.done as u64);
                    },
                )
            });
            bar.finish_and_clear();
            values.push(value.with_context(|| format!("trial {index} on {name}"))?);
        }
        let value = values.iter().sum::<f64>() / values.len() as f64;
        let each: Vec<String> = data
            .iter()
            .zip(&values)
            .map(|((name, _), value)| format!("{name} {value:.5}"))
            .collect();
        eprintln!("trial {index}: {value:.5} ({})", each.join(", "));
        journal.append(Trial { index, point, value })?;
    }
    report(base, &space, journal.trials())
}

/// What `--config` takes.
#[derive(Serialize)]
struct Answer {
    trainer: Trainer,
}

#[derive(Serialize)]
struct Trainer {
    model: ServedParams,
}

fn report(base: &ServedParams, space: &[Dimension], trials: &[Trial]) -> Result<()> {
    let best = trials.iter().max_by(|a, b| a.value.total_cmp(&b.value));
    let Some(best) = best else {
        println!("# no trial yet");
        return Ok(());
    };
    println!(
        "# best of {} trials: number {}, ndcg@10 {:.5} on validation",
        trials.len(),
        best.index,
        best.value
    );
    for (dimension, value) in space.iter().zip(&best.point) {
        println!("# {} = {value}", dimension.path);
    }
    let model = apply(base, space, &best.point)?;
    println!(
        "{}",
        toml::to_string_pretty(&Answer {
            trainer: Trainer { model }
        })?
    );
    Ok(())
}
