//! Settings of the service.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::drift::DriftConfig;
use crate::triggers::{QualityConfig, Settings, TriggerConfig};

/// Settings of the feature processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the state files: `features-<partition>.redb` and `triggers.redb`. One process per folder.
    /// No key of the configuration: it follows from the state directory, like all folders.
    #[serde(skip)]
    pub state_dir: PathBuf,
    /// The consumer group that shares the partitions.
    pub group_id: String,
    /// Where `GET /features/...` is served (`http.rs`), for example `127.0.0.1:8082`; empty for nowhere, except in
    /// `marquee up`, which then takes that address. It has no authentication.
    pub listen: String,
    /// Reads every partition without joining the group: for the only processor of its broker. The embedded broker is
    /// always used so, because its coordinator keeps members that were killed.
    pub all_partitions: bool,
    /// The most records of one batch, over all partitions: one transaction per partition in it. Batches grow with the
    /// backlog up to this, and larger ones are folded faster. No more than `triggers.volume_interactions`, or one batch
    /// may pass several points of the triggers' grid.
    pub max_batch_records: usize,
    /// How long a batch waits for further records once it has one, ms; zero takes what is there. Lists are not the later
    /// for it: the recommender also hears of events directly.
    pub max_batch_wait_ms: u64,
    /// How far an event's time may lie ahead of the clock, ms.
    pub max_future_ms: i64,
    /// How late a watchlist change or a choice of genres may be, ms: how far its time may lie behind the newest event of
    /// its user. Such an event replaces what came before it, so a later one would undo what the user has done since; it
    /// is dead-lettered as `too_late`. Everything else is applied however late it is.
    pub max_lateness_ms: i64,
    /// How many event ids each partition remembers, those applied last: an id is a repetition if it is among them.
    /// Costs 16 bytes on disk and about 50 in memory each.
    pub dedupe_window_events: u64,
    /// How many observations (one per record) each partition keeps for drift and data quality. At least as many as a
    /// training may take to arrive after its data, plus `drift.reference_events`. 31 bytes each.
    pub observations_per_partition: u64,
    /// Memory for cached pages of each partition's file, bytes.
    pub cache_bytes_per_partition: usize,
    /// How often movies' changelog records are published, ms; zero publishes them with every batch. Users' records
    /// never wait.
    pub movie_features_every_ms: i64,
    /// How often the rows of each partition that have changed are copied to `feature-rows`, ms; zero never. A process
    /// that takes a partition over begins with the newest copy, if its own file is older or missing, instead of with the
    /// first record of the log. With the embedded broker there is no other process, and nothing is copied.
    pub copy_rows_every_ms: i64,
    /// How often an idle processor looks for changes in the catalogue, ms. An unknown movie makes it look at once.
    pub catalogue_refresh_ms: i64,
    /// When to ask for a training.
    pub triggers: TriggerConfig,
    /// When what users do has moved.
    pub drift: DriftConfig,
    /// When a window's data is anomalous.
    pub quality: QualityConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from(".marquee/features"),
            group_id: "feature-processor".into(),
            listen: String::new(),
            all_partitions: false,
            max_batch_records: 10_000,
            max_batch_wait_ms: 50,
            max_future_ms: 24 * 60 * 60 * 1000,
            max_lateness_ms: 10 * 60 * 1000,
            dedupe_window_events: 1 << 20,
            observations_per_partition: 1 << 16,
            cache_bytes_per_partition: 64 * 1024 * 1024,
            movie_features_every_ms: 1_000,
            copy_rows_every_ms: 10_000,
            catalogue_refresh_ms: 30_000,
            triggers: TriggerConfig::default(),
            drift: DriftConfig::default(),
            quality: QualityConfig::default(),
        }
    }
}

impl Config {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = [
            (self.group_id.is_empty(), "group_id is empty"),
            (self.max_batch_records == 0, "max_batch_records is zero"),
            (self.max_future_ms < 0, "max_future_ms is negative"),
            (self.max_lateness_ms < 0, "max_lateness_ms is negative"),
            (self.dedupe_window_events == 0, "dedupe_window_events is zero"),
            (
                self.movie_features_every_ms < 0,
                "movie_features_every_ms is negative",
            ),
            (self.copy_rows_every_ms < 0, "copy_rows_every_ms is negative"),
            (self.catalogue_refresh_ms < 0, "catalogue_refresh_ms is negative"),
            (
                self.observations_per_partition < 1_024,
                "observations_per_partition is below 1024",
            ),
        ];
        let first = wrong.iter().find(|(broken, _)| *broken).map(|&(_, what)| what);
        match first.or(self.triggers.faults()).or(self.drift.faults()) {
            Some(what) => Err(Error::Config(what.into())),
            None => self.triggers.cron().map(drop),
        }
    }

    /// What the coordinator of triggers needs.
    pub(crate) fn trigger_settings(&self) -> Settings {
        Settings {
            triggers: self.triggers.clone(),
            drift: self.drift,
            quality: self.quality,
        }
    }
}
