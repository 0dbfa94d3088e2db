//! `marquee demo`: stories that run by themselves on real data.

mod experiment;
mod freshness;
mod load;
mod perform;
mod retraining;
mod stage;
mod visitors;

use anyhow::Result;

use crate::cli::{Common, DemoArgs, DemoStory};

pub(crate) async fn run(common: &Common, args: DemoArgs) -> Result<()> {
    match args.story {
        DemoStory::Freshness(args) => freshness::run(args).await,
        DemoStory::Retraining(args) => retraining::run(common, args).await,
        DemoStory::Experiment(args) => experiment::run(common, args).await,
    }
}
