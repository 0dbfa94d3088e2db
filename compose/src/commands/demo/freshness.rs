//! How many lists are not personal: a data set's newest part is replayed event by event, and before each event its
//! user asks for a list. The view, the engine and the champion are those that serve; only topics and HTTP are left out.
//!
//! Beside it stands what a batch design would have answered: one that knows the users of its training data alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use marquee_ingestor::{Dataset, Rating};
use marquee_models::live::{Interaction, LiveParams};
use marquee_models::served::{Catalogue, CatalogueItem, ServedModel, ServedParams};
use marquee_recommender::champion::{Champion, Loaded};
use marquee_recommender::engine::{Engine, EngineSettings, RecommendAsk};
use marquee_recommender::view::{Change, View, ViewState};
use marquee_schemas::{
    HISTORY_CHUNK_LEN, HistoryChunk, HistoryEntry, Kind, ModelVersion, SchemaVersion, UserId,
};
use marquee_trainer::{GenreVocabulary, signal};
use serde_json::json;

use crate::cli::DemoFreshnessArgs;
use crate::ingest;

const LIST_LEN: usize = 10;
/// More lists without a personal ranking than this would be a broken promise.
const PROMISED: f64 = 0.10;

pub(super) async fn run(args: DemoFreshnessArgs) -> Result<()> {
    tokio::task::spawn_blocking(move || replay(&args)).await?
}

/// Each user's history in the chunks of the changelog.
#[derive(Default)]
struct Histories(HashMap<UserId, Vec<HistoryEntry>>);

impl Histories {
    fn push(&mut self, rating: &Rating) -> u64 {
        let history = self.0.entry(rating.user_id).or_default();
        history.push(HistoryEntry {
            movie_id: rating.movie_id,
            kind: Kind::Rating,
            rating: Some(rating.rating),
            timestamp: rating.timestamp_ms,
        });
        history.len() as u64
    }

    /// The chunk that holds entry `length - 1`, as of then.
    fn chunk(&self, user_id: UserId, length: u64) -> Change {
        let chunk = (length - 1) / HISTORY_CHUNK_LEN;
        let begin = (chunk * HISTORY_CHUNK_LEN) as usize;
        Change::Chunk {
            partition: 0,
            chunk: HistoryChunk {
                schema_version: SchemaVersion,
                user_id,
                chunk: chunk as u32,
                seq: length,
                entries: self.0[&user_id][begin..length as usize].to_vec(),
                epoch: None,
            },
        }
    }

    fn chunks(&self) -> Vec<Change> {
        let users: BTreeMap<&UserId, u64> = self.0.iter().map(|(id, all)| (id, all.len() as u64)).collect();
        users
            .into_iter()
            .flat_map(|(&user, length)| {
                let ends = (HISTORY_CHUNK_LEN..length).step_by(HISTORY_CHUNK_LEN as usize);
                ends.chain([length]).map(move |end| self.chunk(user, end))
            })
            .collect()
    }
}

fn replay(args: &DemoFreshnessArgs) -> Result<()> {
    ensure!(
        args.share > 0.0 && args.share < 1.0,
        "--share must lie between 0 and 1"
    );
    let data = ingest::load_exactly(&args.dataset)?;
    let split = (data.ratings.len() as f64 * (1.0 - args.share)) as usize;
    let (past, newest) = data.ratings.split_at(split);
    ensure!(!past.is_empty() && !newest.is_empty(), "too few ratings to split");

    println!("fitting on {} ratings", past.len());
    let genres = GenreVocabulary::of(&data.movies);
    let model = fit(&data, past, &genres)?;
    let mut histories = Histories::default();
    for rating in past {
        histories.push(rating);
    }
    let movies = data.movies.iter().cloned().map(Change::Movie);
    let changes: Vec<Change> = movies.chain(histories.chunks()).collect();
    let view = Arc::new(View::new(LiveParams::default(), 32)?);
    view.replace(ViewState::fold(LiveParams::default(), changes)?);
    let champion = Arc::new(Champion::default());
    let loaded = Loaded {
        model,
        genres,
        sha256: String::new(),
    };
    champion.install(ModelVersion::from_ordinal(1), loaded, &view)?;
    let engine = Engine::new(Arc::clone(&view), champion, EngineSettings::default());

    let trained: BTreeSet<UserId> = past.iter().map(|rating| rating.user_id).collect();
    let mut reasons: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut strangers = 0_u64;
    let bar = ProgressBar::new(newest.len() as u64);
    for rating in newest {
        let answer = engine.recommend(&RecommendAsk {
            user: Some(rating.user_id),
            k: LIST_LEN,
            ..RecommendAsk::default()
        })?;
        if let Some(reason) = answer.fallback {
            *reasons.entry(reason.as_str()).or_default() += 1;
        }
        strangers += u64::from(!trained.contains(&rating.user_id));
        let length = histories.push(rating);
        view.apply_changes(vec![histories.chunk(rating.user_id, length)]);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let asked = newest.len() as f64;
    let share = reasons.values().sum::<u64>() as f64 / asked;
    let batch = strangers as f64 / asked;
    println!(
        "{} lists, each asked for before one of the newest {:.0}% of {}'s events:",
        newest.len(),
        args.share * 100.0,
        data.name
    );
    println!("  not personal                     {:.2}%", share * 100.0);
    println!("  in a batch design (user unknown) {:.2}%", batch * 100.0);
    println!(
        "{}",
        json!({
            "demo": "freshness", "dataset": data.name, "trained_on": past.len(), "lists": newest.len(),
            "fallback_share": share, "fallbacks": reasons,
            "batch_unknown_user_share": batch,
        })
    );
    ensure!(
        share < PROMISED,
        "{:.1}% of the lists were not personal, promised are under {:.0}%",
        share * 100.0,
        PROMISED * 100.0
    );
    Ok(())
}

/// A model without a ranker: whether a list is personal does not depend on the finer order.
fn fit(data: &Dataset, past: &[Rating], genres: &GenreVocabulary) -> Result<ServedModel> {
    let items: Vec<CatalogueItem> = data
        .movies
        .iter()
        .map(|movie| CatalogueItem {
            external_id: movie.movie_id.0,
            year: movie.year,
            genres: genres.mask(&movie.genres),
        })
        .collect();
    let places: HashMap<u32, u32> = (0..)
        .zip(&items)
        .map(|(place, item)| (item.external_id, place))
        .collect();
    let mut users: HashMap<UserId, u32> = HashMap::new();
    let weight = signal::weight(Kind::Rating).context("ratings are learned from")?;
    let events: Vec<Interaction> = past
        .iter()
        .filter_map(|rating| {
            let next = users.len() as u32;
            Some(Interaction {
                user: *users.entry(rating.user_id).or_insert(next),
                item: *places.get(&rating.movie_id.0)?,
                rating: Some(rating.rating),
                weight,
                time_ms: rating.timestamp_ms,
            })
        })
        .collect();
    let mut params = ServedParams::default();
    params.fit.window = 0;
    Ok(ServedModel::fit(&events, &Catalogue::new(items), &params, 42)?)
}
