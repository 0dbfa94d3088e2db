//! `marquee features`: the feature store of a stopped instance (a running one answers over HTTP), and features as they
//! were at a point of the log.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use marquee_feature_processor::{
    AsOf, Catalogue, Config as Settings, Point, PointInTime, TopicCatalogue, inspect,
};
use marquee_runtime::bus::{Bus, RawRecord};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{MovieId, Topic, UserId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::{AsOfArgs, Common, FeaturesAction, FeaturesArgs};
use crate::config::Config;
use crate::instance::{Part, StateDir};

pub(crate) async fn run(common: &Common, args: FeaturesArgs) -> Result<()> {
    match args.action {
        Some(FeaturesAction::AsOf(args)) => as_of(common, args).await,
        None => stopped(common, &args),
    }
}

async fn as_of(common: &Common, args: AsOfArgs) -> Result<()> {
    let config = Config::load(common)?;
    let settings = config.feature_processor.clone();
    let bus = config.bus_of_running_instance(common)?;
    bus.wait_ready(Duration::from_secs(5)).await?;
    let point = match args.time {
        Some(time) => Point::EventTime(time),
        None => Point::Offsets(args.offsets.iter().copied().collect()),
    };
    let state = tokio::task::spawn_blocking(move || fold(&bus, &settings, point)).await??;
    if let Some(user) = args.user {
        let answer = state.user(UserId(user))?;
        return print(&answer.with_context(|| format!("nothing was known of user {user}"))?);
    }
    if let Some(movie) = args.movie {
        let answer = state.movie(MovieId(movie))?;
        return print(&answer.with_context(|| format!("nobody had done anything about movie {movie}"))?);
    }
    print(state.hashes())
}

fn fold(bus: &Bus, settings: &Settings, point: Point) -> Result<AsOf> {
    let mut movies = TopicCatalogue::new(bus.clone(), CancellationToken::new());
    movies.refresh()?;
    // A partition that is named need not be read any further.
    let ends = bus.watermarks_blocking(Topic::Interactions)?;
    let mut from = std::collections::BTreeMap::new();
    let mut to = ends.ends();
    if let Point::Offsets(wanted) = &point {
        for (partition, &end) in wanted {
            let (low, high) = *ends
                .0
                .get(partition)
                .ok_or_else(|| anyhow!("interactions has no partition {partition}"))?;
            if end > high {
                bail!("partition {partition} of interactions ends at {high}");
            }
            // Nothing of it, if it begins later.
            from.insert(*partition, low.min(end));
            to.insert(*partition, end);
        }
    }
    let mut state = PointInTime::new(settings, &movies, point, SystemClock.now_ms());
    bus.read_range(Topic::Interactions, &from, &to, |record: RawRecord| {
        state.take(record)
    })?;
    Ok(state.finish()?)
}

fn print(answer: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(answer)?);
    Ok(())
}

fn stopped(common: &Common, args: &FeaturesArgs) -> Result<()> {
    let state = StateDir::new(&common.state_dir)?;
    if state.is_running(Part::FeatureProcessor) {
        let served = state.running().and_then(|instance| instance.features);
        match served {
            Some(address) => {
                bail!("a feature processor holds these files: ask it at http://{address}/features")
            }
            None => bail!("a feature processor holds these files: stop it first"),
        }
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
