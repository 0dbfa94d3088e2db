//! `marquee demo`: stories that run by themselves on real data.

mod freshness;
mod load;
mod retraining;
mod stage;

use anyhow::Result;

use crate::cli::{Common, DemoArgs, DemoStory};

pub(crate) async fn run(common: &Common, args: DemoArgs) -> Result<()> {
    match args.story {
        DemoStory::Freshness(args) => freshness::run(args).await,
        DemoStory::Retraining(args) => retraining::run(common, args).await,
    }
}
