//! `marquee demo`: stories that run by themselves on real data.

mod load;
mod retraining;
mod stage;

use anyhow::Result;

use crate::cli::{Common, DemoArgs, DemoStory};

pub(crate) async fn run(common: &Common, args: DemoArgs) -> Result<()> {
    match args.story {
        DemoStory::Retraining(args) => retraining::run(common, args).await,
    }
}
