//! `marquee download`: a MovieLens data set into the cache.

use anyhow::Result;

use crate::cli::DownloadArgs;
use crate::ingest;

pub(crate) async fn run(args: DownloadArgs) -> Result<()> {
    let folder =
        tokio::task::spawn_blocking(move || ingest::download(&args.dataset, args.to.as_deref())).await??;
    println!("{}", folder.display());
    Ok(())
}
