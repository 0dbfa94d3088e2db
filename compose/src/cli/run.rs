//! Starting services and filling them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use marquee_ingestor::replay::Speed;

use super::DatasetArgs;

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// Where to serve HTTP; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,

    /// Where the embedded broker listens; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka_listen: Option<SocketAddr>,

    /// Where SQL is answered over HTTP; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) sql_listen: Option<SocketAddr>,

    /// Share of the data set that is replayed as history; the rest becomes live traffic
    #[arg(long, default_value_t = 0.85, value_name = "SHARE")]
    pub(crate) history_share: f64,

    /// How fast the history is replayed: `max`, `1000x` event time, `500/s`
    #[arg(long, default_value = "max", value_name = "SPEED")]
    pub(crate) speed: Speed,

    /// How fast the rest arrives as live traffic
    #[arg(long, default_value = "20/s", value_name = "SPEED")]
    pub(crate) live_speed: Speed,

    /// Which time the events carry
    #[arg(long, default_value = "shifted", value_name = "TIMES")]
    pub(crate) event_times: EventTimes,

    /// Publish no traffic: only run the services
    #[arg(long)]
    pub(crate) no_traffic: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventTimes {
    /// History ends now, live traffic is stamped as it is sent
    Shifted,
    /// As in the data set
    Original,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which service
    pub(crate) service: ServiceName,

    /// Where to serve HTTP: the recommender its lists, replay its SQL; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceName {
    /// Folds interactions into features, raises triggers
    FeatureProcessor,
    /// Fits and promotes models on retrain events
    Trainer,
    /// Serves HTTP
    Recommender,
    /// Writes the lake
    Replay,
}

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Where to listen; port 0 chooses a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,

    /// `max`, `1000x` event time, `500/s`
    #[arg(long, default_value = "max", value_name = "SPEED")]
    pub(crate) speed: Speed,

    /// First event to publish
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) from: usize,

    /// End before this event
    #[arg(long, value_name = "N")]
    pub(crate) to: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct DownloadArgs {
    /// ml-100k, ml-1m, ml-latest-small, ml-latest, ml-25m, ml-32m, ...
    pub(crate) dataset: String,

    /// Where to put it; by default the user's cache folder
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}
