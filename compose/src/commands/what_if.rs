//! `marquee what-if`: what another model would have earned on the logged requests.

use anyhow::Result;
use marquee_replay::{Reward, WhatIf, WhatIfOptions, what_if};
use marquee_runtime::{Clock, SystemClock};

use super::replay::period;
use crate::cli::{Common, WhatIfArgs};
use crate::config::Config;
use crate::instance::StateDir;

pub(crate) async fn run(common: &Common, args: WhatIfArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    let (from, to) = period(args.from.as_deref(), args.to.as_deref())?;
    let config = Config::load(common)?;
    let options = WhatIfOptions {
        k: args.k.max(1),
        attribution_window_ms: config.replay.evaluation.attribution_window_ms,
        as_of_ms: SystemClock.now_ms(),
        pool: args.pool.unwrap_or(config.recommender.explore.pool),
        steepness: args.steepness.unwrap_or(config.recommender.explore.steepness),
        clip: args.clip,
        floors: Default::default(),
    };
    let answer = what_if(
        &state.lake(),
        &config.registry(&state),
        &args.version,
        from,
        to,
        options,
    )
    .await?;
    print(&args, &answer);
    Ok(())
}

fn print(args: &WhatIfArgs, answer: &WhatIf) {
    println!(
        "{} drawn lists: {} used, {} with filters or seeds, {} too young, {} by models that are gone",
        answer.drawn, answer.used, answer.restricted, answer.censored, answer.unknown_model
    );
    if answer.used == 0 {
        println!(
            "without drawn lists nothing can be said; the recommender draws a share of its lists (explore.share)"
        );
        return;
    }
    let earned = match answer.reward {
        Reward::Click => "clicks",
        Reward::NextInteraction => "next interactions (no click names a list)",
    };
    let seen = &answer.diagnostics;
    println!("earned: {earned} on the first {} positions, per list", args.k);
    println!(
        "fidelity: {:.1}% of the logged probabilities follow exactly from the restored past",
        answer.fidelity * 100.0
    );
    println!(
        "support: {:.1}% of what {} would show could have been shown",
        seen.support * 100.0,
        args.version
    );
    println!(
        "whole lists: mean weight {:.3}, greatest {:.1}, effective {:.1} of {}; {:.2}% above {}, holding {:.1}% of the weight\n",
        seen.mean_weight,
        seen.greatest_weight,
        seen.effective,
        seen.lists,
        seen.clipped_lists * 100.0,
        args.clip,
        seen.clipped_weight * 100.0
    );
    if let Some(naive) = answer.naive {
        println!(
            "{:<30} {:.4} ({:.4} to {:.4})",
            "as served (naive)", naive.value, naive.interval.0, naive.interval.1
        );
    }
    for (estimator, outcome) in &answer.estimates {
        let name = estimator.to_string();
        match outcome {
            Ok(estimate) => println!(
                "{name:<30} {:.4} ({:.4} to {:.4}), effective lists {:.0}",
                estimate.value, estimate.interval.0, estimate.interval.1, estimate.effective
            ),
            Err(refusal) => println!("{name:<30} refused: {refusal}"),
        }
    }
}
