//! `marquee experiment`: the arms of an experiment, looked at after every hour.

use std::collections::BTreeMap;

use anyhow::Result;
use marquee_recommender::traffic::ExperimentConfig;
use marquee_replay::{ArmReport, ExperimentOptions, ExperimentReport, Measure, experiment};
use marquee_runtime::{Clock, SystemClock};

use super::replay::period;
use crate::cli::{Common, ExperimentArgs};
use crate::config::Config;
use crate::instance::StateDir;

pub(crate) async fn run(common: &Common, args: ExperimentArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    let (from, to) = period(args.from.as_deref(), args.to.as_deref())?;
    let config = Config::load(common)?;
    let options = ExperimentOptions {
        shares: shares(&args.experiment, args.shares, &config.recommender.experiment),
        experiment: args.experiment,
        control: args.control,
        alpha: args.alpha,
        effect: args.effect,
        least_users: args.least_users,
        k: 10,
        attribution_window_ms: config.replay.evaluation.attribution_window_ms,
        as_of_ms: SystemClock.now_ms(),
    };
    let report = experiment(&state.lake(), from, to, &options).await?;
    print(&options, &report);
    Ok(())
}

/// The shares that were named; without any, those that the recommender is configured with, if it is for this experiment.
fn shares(
    experiment: &str,
    named: Vec<(String, f64)>,
    configured: &ExperimentConfig,
) -> BTreeMap<String, f64> {
    if !named.is_empty() || configured.name != experiment {
        return named.into_iter().collect();
    }
    let arms = configured.arms.iter();
    arms.map(|arm| (arm.name.clone(), arm.share)).collect()
}

fn print(options: &ExperimentOptions, report: &ExperimentReport) {
    if report.arms.is_empty() {
        println!("no list of {} was served in this period", options.experiment);
        return;
    }
    let measure = match report.measure {
        Measure::ClickedLists => "share of lists clicked",
        Measure::NextInteractionHits => "next-interaction hit rate@10 (no click names a list)",
    };
    println!("{}: {measure}, {} hourly looks", options.experiment, report.looks);
    for arm in &report.arms {
        println!("{}", line(arm));
    }
    if let Some(p) = report.sample_ratio_p {
        println!("sizes of the arms: sequential p = {p:.4}");
    }
    if report.crossed_users > 0 {
        println!(
            "{} users were seen in more than one arm; what they got outside their first is left out",
            report.crossed_users
        );
    }
    match report.winner() {
        _ if report.has_sample_ratio_mismatch() => {
            println!(
                "the arms do not have their intended sizes: users were lost, no figure here means anything"
            );
        }
        Some(arm) => println!("{} is better", arm.arm),
        None => println!("no winner yet"),
    }
}

fn line(arm: &ArmReport) -> String {
    let value = arm.value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let head = format!("{:<16} {:>8} users  {value}", arm.arm, arm.users);
    match (arm.comparison, arm.look) {
        (Some(comparison), Some(look)) => format!(
            "{head}  {:+.4} ({:+.4} to {:+.4} at all looks), p = {:.4}, {:?}; CUPED took {:.0}% of the variance",
            comparison.difference,
            look.interval.0,
            look.interval.1,
            look.p,
            look.decision,
            comparison.variance_removed * 100.0
        ),
        _ => head,
    }
}

#[cfg(test)]
mod tests {
    use marquee_recommender::traffic::ArmConfig;

    use super::*;

    #[test]
    fn the_configured_shares_hold_for_their_experiment_unless_others_are_named() {
        let arm = |name: &str, share| ArmConfig {
            name: name.into(),
            share,
            ..ArmConfig::default()
        };
        let configured = ExperimentConfig {
            name: "variety".into(),
            salt: String::new(),
            arms: vec![arm("control", 0.9), arm("varied", 0.1)],
        };
        let of = |experiment, named: &[(&str, f64)]| {
            let named = named.iter().map(|(arm, share)| ((*arm).to_owned(), *share));
            shares(experiment, named.collect(), &configured)
                .into_iter()
                .collect::<Vec<_>>()
        };
        let (control, varied) = (("control".to_owned(), 0.9), ("varied".to_owned(), 0.1));
        assert_eq!(of("variety", &[]), [control, varied]);
        assert_eq!(of("another", &[]), []);
        assert_eq!(of("variety", &[("control", 0.5)]), [("control".to_owned(), 0.5)]);
    }
}
