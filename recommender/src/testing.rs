//! A small world for tests: twelve movies, viewers who go through them in order, a model fitted on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use marquee_models::live::{Interaction, LiveParams};
use marquee_models::served::{ServedModel, ServedParams};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::{Outgoing, RawRecord};
use marquee_schemas::{
    FeatureRecord, HISTORY_CHUNK_LEN, HistoryChunk, HistoryEntry, Kind, ModelVersion, Movie, MovieId, Record,
    RequestLog, SchemaVersion, Topic, UserFeatures, UserId, encode,
};
use marquee_trainer::GenreVocabulary;
use tokio::sync::mpsc;

use crate::Config;
use crate::alerts::Alerts;
use crate::champion::{Champion, Loaded};
use crate::engine::{Engine, EngineSettings};
use crate::http::{App, AppState, router};
use crate::logs::LogQueue;
use crate::shadow::{ShadowQueue, ShadowTasks};
use crate::sink::{Acknowledged, Sink, SinkError};
use crate::view::{Change, View};

pub(crate) const MOVIES: u32 = 12;
const GENRES: [&str; 3] = ["Comedy", "Drama", "Western"];

pub(crate) fn movie(id: u32) -> Movie {
    Movie {
        schema_version: SchemaVersion,
        movie_id: MovieId(id),
        title: format!("Movie {id}"),
        year: (!id.is_multiple_of(10)).then(|| 1990 + (id % 10) as u16),
        genres: vec![GENRES[(id % 3) as usize].to_owned()],
        imdb_id: None,
        tmdb_id: None,
    }
}

/// Public ids are 100, 101, ...
pub(crate) fn movies() -> Vec<Movie> {
    (100..100 + MOVIES).map(movie).collect()
}

pub(crate) fn rated(movie_id: u32, stars: f32, timestamp: i64) -> HistoryEntry {
    HistoryEntry {
        movie_id: MovieId(movie_id),
        kind: Kind::Rating,
        rating: Some(stars),
        timestamp,
    }
}

/// The chunks of a history.
pub(crate) fn chunks(user: u64, entries: &[HistoryEntry]) -> Vec<HistoryChunk> {
    entries
        .chunks(HISTORY_CHUNK_LEN as usize)
        .enumerate()
        .map(|(chunk, entries)| HistoryChunk {
            schema_version: SchemaVersion,
            user_id: UserId(user),
            chunk: chunk as u32,
            seq: chunk as u64 * HISTORY_CHUNK_LEN + entries.len() as u64,
            entries: entries.to_vec(),
            epoch: None,
        })
        .collect()
}

pub(crate) fn user_features(user: u64, seq: u64, preferred: &[&str]) -> UserFeatures {
    UserFeatures {
        schema_version: SchemaVersion,
        user_id: UserId(user),
        seq,
        history_len: 0,
        counts: Default::default(),
        rating_sum: 0.0,
        rating_count: 0,
        watchlist: Vec::new(),
        genre_affinity: Default::default(),
        preferred_genres: preferred.iter().map(|&genre| genre.to_owned()).collect(),
        sessions: 1,
        first_seen_ms: 1,
        last_seen_ms: 1,
        source_offset: 0,
        epoch: None,
    }
}

pub(crate) fn record<T: Record>(partition: i32, offset: i64, value: &T) -> RawRecord {
    RawRecord {
        topic: T::TOPIC,
        partition,
        offset,
        timestamp_ms: 0,
        key: Some(value.key()),
        value: Some(encode(value)),
    }
}

pub(crate) fn chunk_record(partition: i32, offset: i64, chunk: HistoryChunk) -> RawRecord {
    record(partition, offset, &FeatureRecord::History(chunk))
}

pub(crate) fn tombstone(topic: Topic, partition: i32, offset: i64, key: &str) -> RawRecord {
    RawRecord {
        topic,
        partition,
        offset,
        timestamp_ms: 0,
        key: Some(key.as_bytes().to_vec()),
        value: None,
    }
}

/// Viewers 1 to 12, each of whom rated the first eight movies in order.
pub(crate) fn histories() -> Vec<(u64, Vec<HistoryEntry>)> {
    (1..=12)
        .map(|user| {
            let entries = (0..8)
                .map(|step| rated(100 + step, 4.5, user as i64 * 1_000_000 + i64::from(step) * 1_000))
                .collect();
            (user, entries)
        })
        .collect()
}

pub(crate) fn changes() -> Vec<Change> {
    let mut changes: Vec<Change> = movies().into_iter().map(Change::Movie).collect();
    for (user, entries) in histories() {
        changes.extend(
            chunks(user, &entries)
                .into_iter()
                .map(|chunk| Change::Chunk { partition: 0, chunk }),
        );
    }
    changes
}

/// A model of the histories above.
pub(crate) fn loaded() -> Loaded {
    let genres = GenreVocabulary::of(&movies());
    let view = View::new(LiveParams::default(), 32).unwrap();
    view.apply_changes(movies().into_iter().map(Change::Movie).collect());
    let catalogue = view.read().movies.catalogue(&genres);
    let mut events: Vec<Interaction> = histories()
        .iter()
        .flat_map(|(user, entries)| {
            entries.iter().map(|entry| Interaction {
                user: *user as u32,
                item: entry.movie_id.0 - 100,
                rating: entry.rating,
                weight: 1.0,
                time_ms: entry.timestamp,
            })
        })
        .collect();
    events.sort_by_key(|event| event.time_ms);
    Loaded {
        model: ServedModel::fit(&events, &catalogue, &ServedParams::default(), 7).unwrap(),
        genres,
        sha256: "00".repeat(32),
    }
}

pub(crate) fn version(n: u64) -> ModelVersion {
    ModelVersion::from_ordinal(n)
}

/// Takes events as a broker would, or refuses them as one that is away.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) away: AtomicBool,
    pub(crate) records: Mutex<Vec<Outgoing>>,
}

impl Sink for Published {
    fn send(&self, record: &Outgoing) -> Result<Acknowledged, SinkError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(SinkError::Later("the broker is away".into()));
        }
        self.records.lock().unwrap().push(record.clone());
        Ok(Box::pin(std::future::ready(Ok(()))))
    }
}

/// The same request gets the same list.
pub(crate) fn without_exploration() -> Config {
    let mut config = Config::default();
    config.explore.share = 0.0;
    config
}

/// A recommender without a broker.
pub(crate) struct World {
    pub(crate) view: Arc<View>,
    pub(crate) champion: Arc<Champion>,
    pub(crate) state: AppState,
    pub(crate) logs: mpsc::Receiver<RequestLog>,
    pub(crate) events: Arc<Published>,
    pub(crate) shadow_tasks: ShadowTasks,
}

impl World {
    /// Nothing known.
    pub(crate) fn empty(config: Config) -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let view = Arc::new(View::new(LiveParams::default(), config.apply_slice).unwrap());
        let champion = Arc::new(Champion::default());
        let alerts = Alerts::new(None, clock.clone());
        let (queue, logs) = LogQueue::bounded(config.log_queue_len, alerts.clone());
        let settings = EngineSettings {
            popular_ttl_ms: 0,
            ..config.engine()
        };
        let engine = Engine::new(Arc::clone(&view), Arc::clone(&champion), settings);
        let events = Arc::new(Published::default());
        let (shadow, shadow_tasks) = ShadowQueue::bounded(config.shadow_queue_len);
        let app = App::new(config, engine, queue, alerts, clock, events.clone(), shadow, 1);
        let state = AppState::new(app);
        Self {
            view,
            champion,
            state,
            logs,
            events,
            shadow_tasks,
        }
    }

    /// Catalogue and histories, no model.
    pub(crate) fn without_model() -> Self {
        Self::filled(without_exploration())
    }

    fn filled(config: Config) -> Self {
        let world = Self::empty(config);
        let state = crate::view::ViewState::fold(LiveParams::default(), changes()).unwrap();
        world.view.replace(state);
        world
    }

    /// Catalogue, histories, and a champion.
    pub(crate) fn new() -> Self {
        Self::with_model(without_exploration())
    }

    /// [`World::new`] with other settings.
    pub(crate) fn with_model(config: Config) -> Self {
        let world = Self::filled(config);
        world.champion.install(version(1), loaded(), &world.view).unwrap();
        world
    }

    pub(crate) fn router(&self) -> Router {
        router(self.state.clone())
    }

    /// One more entry at the end of a user's history.
    pub(crate) fn observe(&self, user: u64, entries: &[HistoryEntry]) {
        self.view.apply_changes(
            chunks(user, entries)
                .into_iter()
                .map(|chunk| Change::Chunk { partition: 0, chunk })
                .collect(),
        );
        self.champion.rebind(&self.view);
    }
}
