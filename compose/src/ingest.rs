//! The data set as traffic: found or fetched, published as history, then as live events.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use marquee_ingestor::{
    Dataset, DownloadConfig, Downloader, Progress, ReplayConfig, Replayer, Shift, Speed, SyntheticConfig,
    download, locate, synthetic,
};
use marquee_runtime::bus::Bus;
use marquee_runtime::{Clock, SystemClock};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cli::{DatasetArgs, EventTimes};
use crate::instance::{StateDir, write_json};

const SYNTHETIC: &str = "synthetic";

fn cache_dir() -> Option<PathBuf> {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    download::default_cache_dir(path("XDG_CACHE_HOME").as_deref(), path("HOME").as_deref())
}

/// Fetches a data set from GroupLens and gives its folder.
pub(crate) fn download(name: &str, to: Option<&Path>) -> Result<PathBuf> {
    let cache_dir = to
        .map(Path::to_owned)
        .or_else(cache_dir)
        .context("neither HOME nor XDG_CACHE_HOME is set: say where with --to")?;
    let downloader = Downloader::new(DownloadConfig {
        cache_dir,
        ..DownloadConfig::default()
    });
    Ok(downloader.fetch_blocking(name, &download::progress_bar(name))?)
}

/// Finds or fetches the data set. A machine without data and without a network gets the synthetic one, and is told.
pub(crate) async fn load(args: DatasetArgs) -> Result<Dataset> {
    tokio::task::spawn_blocking(move || load_blocking(&args)).await?
}

fn load_blocking(args: &DatasetArgs) -> Result<Dataset> {
    match folder(args) {
        Ok(folder) => read(args, folder.as_deref()),
        Err(missing) => {
            eprintln!(
                "{missing:#}\ngoing on with a synthetic catalogue; for real data put the unpacked archive of {} into a \
                 folder and name that with --data-dir or MARQUEE_DATA_DIR",
                args.dataset
            );
            Ok(synthetic::generate(&SyntheticConfig::default())?)
        }
    }
}

/// Finds or fetches the data set that was named, and takes no other in its place.
pub(crate) fn load_exactly(args: &DatasetArgs) -> Result<Dataset> {
    read(args, folder(args)?.as_deref())
}

/// Where the data set lies, fetched if need be; `None` for the synthetic one.
fn folder(args: &DatasetArgs) -> Result<Option<PathBuf>> {
    let name = args.dataset.as_str();
    if name == SYNTHETIC {
        return Ok(None);
    }
    let found = locate(
        name,
        args.data_dir.as_deref(),
        data_dir_from_environment().as_deref(),
        cache_dir().as_deref(),
    );
    match found {
        Ok(folder) => Ok(Some(folder)),
        Err(missing) => download(name, None)
            .map(Some)
            .map_err(|offline| anyhow!("{missing}\nand it cannot be fetched: {offline:#}")),
    }
}

/// The folders in which a data set of this name may lie, whether or not it is there.
pub(crate) fn places(args: &DatasetArgs) -> Vec<PathBuf> {
    let name = args.dataset.as_str();
    match &args.data_dir {
        Some(dir) => vec![dir.join(name), dir.clone()],
        None => [data_dir_from_environment(), cache_dir()]
            .into_iter()
            .flatten()
            .map(|dir| dir.join(name))
            .collect(),
    }
}

fn data_dir_from_environment() -> Option<PathBuf> {
    std::env::var_os("MARQUEE_DATA_DIR").map(PathBuf::from)
}

fn read(args: &DatasetArgs, folder: Option<&Path>) -> Result<Dataset> {
    match folder {
        Some(folder) => Dataset::load(folder)
            .with_context(|| format!("reading the data set {} in {}", args.dataset, folder.display())),
        None => Ok(synthetic::generate(&SyntheticConfig::default())?),
    }
}

fn bar(length: usize, message: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:>12} {wide_bar} {pos}/{len} events, {per_sec}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64)
        .with_style(style)
        .with_message(message)
}

/// Publishes the catalogue and a range of events; gives the position reached.
pub(crate) async fn publish(
    bus: &Bus,
    dataset: &Dataset,
    range: Range<usize>,
    speed: Speed,
    token: CancellationToken,
) -> Result<usize> {
    let replayer = Replayer::new(
        bus.publisher("marquee-ingest")?,
        Arc::new(SystemClock),
        ReplayConfig::default(),
    );
    replayer.publish_catalogue(dataset).await?;
    let start = range.start;
    let bar = bar(range.len(), "publishing");
    let show = |progress: Progress| bar.set_position((progress.position - start) as u64);
    let reached = replayer.run(dataset, range, speed, show, &token).await?;
    bar.finish_and_clear();
    Ok(reached)
}

/// How far the traffic of `marquee up` is; survives restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Position {
    dataset: String,
    /// Everything below has been acknowledged by the broker. After a kill it may lag: repeated events are recognised
    /// by their ids.
    position: usize,
    /// By how much the history's times are moved, so that a resumed replay moves them alike.
    shift_ms: i64,
}

/// The traffic of `marquee up`.
#[derive(Debug)]
pub(crate) struct Traffic {
    bus: Bus,
    dataset: Dataset,
    /// Where history ends and live traffic begins.
    live_from: usize,
    position: Position,
    file: PathBuf,
    times: EventTimes,
}

impl Traffic {
    pub(crate) fn new(
        bus: Bus,
        dataset: Dataset,
        history_share: f64,
        times: EventTimes,
        state: &StateDir,
    ) -> Result<Self> {
        if !(0.0..=1.0).contains(&history_share) {
            bail!("--history-share must lie between 0 and 1, not {history_share}");
        }
        let live_from = dataset.split_at(history_share);
        let file = state.ingest_position();
        let position = match std::fs::read(&file) {
            Ok(bytes) => {
                let position: Position = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is damaged; remove it to begin again", file.display()))?;
                if position.dataset != dataset.name {
                    bail!(
                        "this state directory was filled from {}, not {}: choose another --state-dir",
                        position.dataset,
                        dataset.name
                    );
                }
                position
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Position {
                dataset: dataset.name.clone(),
                position: 0,
                shift_ms: match (
                    times,
                    live_from
                        .checked_sub(1)
                        .and_then(|last| dataset.ratings.get(last)),
                ) {
                    (EventTimes::Shifted, Some(last)) => SystemClock.now_ms() - last.timestamp_ms,
                    _ => 0,
                },
            },
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        write_json(&file, &position)?;
        Ok(Self {
            bus,
            dataset,
            live_from,
            position,
            file,
            times,
        })
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Publishes the catalogue and what is left of the history. Gives whether it came to the end.
    pub(crate) async fn history(&mut self, speed: Speed, token: &CancellationToken) -> Result<bool> {
        let replayer = self.replayer(Shift::ByMs(self.position.shift_ms))?;
        replayer.publish_catalogue(&self.dataset).await?;
        self.replay(&replayer, self.live_from, speed, Some("history"), token)
            .await
    }

    /// Publishes the rest as live traffic. Gives whether it came to the end.
    pub(crate) async fn live(&mut self, speed: Speed, token: &CancellationToken) -> Result<bool> {
        let shift = match self.times {
            EventTimes::Shifted => Shift::AsSent,
            EventTimes::Original => Shift::None,
        };
        let replayer = self.replayer(shift)?;
        self.replay(&replayer, self.dataset.ratings.len(), speed, None, token)
            .await
    }

    fn replayer(&self, shift: Shift) -> Result<Replayer> {
        let config = ReplayConfig {
            shift,
            ..ReplayConfig::default()
        };
        let publisher = self.bus.publisher("marquee-traffic")?;
        Ok(Replayer::new(publisher, Arc::new(SystemClock), config))
    }

    async fn replay(
        &mut self,
        replayer: &Replayer,
        end: usize,
        speed: Speed,
        shown: Option<&'static str>,
        token: &CancellationToken,
    ) -> Result<bool> {
        let start = self.position.position;
        if start >= end {
            return Ok(true);
        }
        let bar = shown.map_or_else(ProgressBar::hidden, |message| bar(end, message));
        let saved = AtomicUsize::new(start);
        let (file, known) = (&self.file, &self.position);
        let save = |progress: Progress| {
            bar.set_position(progress.position as u64);
            if saved.swap(progress.position, Ordering::Relaxed) != progress.position {
                let position = Position {
                    position: progress.position,
                    ..known.clone()
                };
                if let Err(error) = write_json(file, &position) {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the traffic's position is not saved"
                    );
                }
            }
        };
        let reached = replayer
            .run(&self.dataset, start..end, speed, save, token)
            .await?;
        bar.finish_and_clear();
        self.position.position = reached;
        write_json(&self.file, &self.position)?;
        Ok(reached >= end)
    }
}
