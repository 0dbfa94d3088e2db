//! `marquee features`: the feature store of a stopped instance; a running one answers over HTTP.

use anyhow::{Result, bail};
use marquee_feature_processor::inspect;
use marquee_schemas::UserId;

use crate::cli::{Common, FeaturesArgs};
use crate::instance::{Part, StateDir};

pub(crate) fn run(common: &Common, args: FeaturesArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    if state.is_running(Part::FeatureProcessor) {
        bail!("a feature processor holds these files: stop it first");
    }
    if !state.features().is_dir() {
        bail!("{} holds no feature store yet", common.state_dir.display());
    }
    let store = inspect::open_read_only(&state.features())?;
    let Some(user) = args.user else {
        for (partition, counters) in store.counters() {
            println!(
                "partition {partition}: {} records = {} applied + {} repeated + {} refused + {} erasures",
                counters.records(),
                counters.applied,
                counters.duplicate,
                counters.refused(),
                counters.erasures
            );
        }
        return Ok(());
    };
    let Some(report) = store.user(UserId(user))? else {
        bail!("user {user} is not known");
    };
    println!(
        "{}",
        serde_json::to_string_pretty(&serde_json::json!({
            "partition": report.partition,
            "features": report.features,
            "history": report.history,
        }))?
    );
    Ok(())
}
