//! `marquee evaluate`: how good are the lists, by protocols that say whose and when.

mod data;
mod pairs;
mod table;

use std::io::IsTerminal;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use marquee_models::evaluate::{
    EvaluationOptions, ModelName, Progress, ResultRow, Segment, prequential, random_split, static_eval,
};

use crate::cli::{Common, EvaluateArgs, JudgedSegment, Protocol};
use crate::config::Config;

pub(crate) use data::prepared;

pub(crate) async fn run(common: &Common, args: EvaluateArgs) -> Result<()> {
    let config = Config::load(common)?;
    tokio::task::spawn_blocking(move || {
        let rows = evaluate(&config, &args)?;
        if args.json {
            for row in &rows {
                println!("{}", serde_json::to_string(row)?);
            }
        } else {
            print!("{}", table::render(&rows));
        }
        Ok(())
    })
    .await?
}

fn evaluate(config: &Config, args: &EvaluateArgs) -> Result<Vec<ResultRow>> {
    let options = EvaluationOptions {
        segment: match args.segment {
            JudgedSegment::Validation => Segment::Validation,
            JudgedSegment::Test => Segment::Test,
        },
        models: models(&args.models, args.protocol)?,
        params: config.trainer.model.clone(),
        retrain_every: Some(args.retrain_every).filter(|&every| every > 0),
        seed: args.seed,
        bootstrap_draws: args.bootstrap_draws,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .thread_name(|index| format!("evaluation-{index}"))
        .build()?;
    let bar = bar(match args.protocol {
        Protocol::Prequential => "events",
        Protocol::Static | Protocol::RandomSplit => "lists",
    });
    let report = |at: Progress| {
        bar.set_length(at.total as u64);
        bar.set_position(at.done as u64);
    };
    let rows = match args.protocol {
        Protocol::RandomSplit => {
            let pairs = pairs::load(&args.dataset)?;
            pool.install(|| random_split(&pairs, &options, &report))?
        }
        Protocol::Prequential => {
            let data = prepared(&args.dataset)?;
            pool.install(|| prequential(&data, &options, &report))?
        }
        Protocol::Static => {
            let data = prepared(&args.dataset)?;
            pool.install(|| static_eval(&data, &options, &report))?
        }
    };
    bar.finish_and_clear();
    Ok(rows)
}

/// The models named, or for `all` those that the protocol can judge.
fn models(names: &[String], protocol: Protocol) -> Result<Vec<ModelName>> {
    if names.iter().any(|name| name == "all") {
        if names.len() > 1 {
            bail!("--models all already names every model");
        }
        let pairs_only = protocol == Protocol::RandomSplit;
        return Ok(ModelName::ALL
            .iter()
            .copied()
            .filter(|model| !pairs_only || !model.needs_time())
            .collect());
    }
    let mut models: Vec<ModelName> = Vec::new();
    for name in names {
        let model = name.parse()?;
        if !models.contains(&model) {
            models.push(model);
        }
    }
    Ok(models)
}

/// Hidden where nobody watches, so that logs and pipes stay clean.
pub(crate) fn bar(unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn all_is_whoever_the_protocol_can_judge() {
        let prequential = models(&names(&["all"]), Protocol::Prequential).unwrap();
        assert_eq!(prequential, ModelName::ALL);
        let pairs = models(&names(&["all"]), Protocol::RandomSplit).unwrap();
        assert!(pairs.contains(&ModelName::Als) && !pairs.contains(&ModelName::Served));
    }

    #[test]
    fn a_model_named_twice_runs_once_and_an_unknown_one_is_refused_with_the_choices() {
        let twice = models(&names(&["als", "served", "als"]), Protocol::Static).unwrap();
        assert_eq!(twice, [ModelName::Als, ModelName::Served]);
        let refused = models(&names(&["oracle"]), Protocol::Static)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("oracle") && refused.contains("served"),
            "{refused}"
        );
        assert!(models(&names(&["all", "als"]), Protocol::Static).is_err());
    }
}
