//! How an answer's time grows with the catalogue: the engine alone, in this process, over simulated movies.

use std::sync::Arc;
use std::time::Instant;

use hdrhistogram::Histogram;
use marquee_models::live::{Interaction, LiveParams};
use marquee_models::served::{Catalogue, CatalogueItem, ServedModel, ServedParams};
use marquee_recommender::champion::{Champion, Loaded};
use marquee_recommender::engine::{Engine, EngineSettings, RecommendAsk, SimilarAsk};
use marquee_recommender::view::{Change, View, ViewState};
use marquee_schemas::{
    HISTORY_CHUNK_LEN, HistoryChunk, HistoryEntry, Kind, ModelVersion, Movie, MovieId, SchemaVersion, UserId,
};
use marquee_trainer::GenreVocabulary;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const SIZES: [u32; 4] = [3_700, 30_000, 200_000, 1_000_000];
const USERS: u64 = 4_000;
const EVENTS_PER_USER: u64 = HISTORY_CHUNK_LEN;
const ASKED: u64 = 100;
const GENRES: [&str; 6] = ["Action", "Comedy", "Drama", "Horror", "Romance", "Western"];

/// One row per size, printed and returned.
pub(crate) fn measure() -> Vec<Value> {
    SIZES.into_iter().map(measure_one).collect()
}

fn movie(id: u32) -> Movie {
    Movie {
        schema_version: SchemaVersion,
        movie_id: MovieId(id),
        title: format!("Movie {id}"),
        year: Some(1950 + (id % 75) as u16),
        genres: vec![GENRES[id as usize % GENRES.len()].to_owned()],
        imdb_id: None,
        tmdb_id: None,
    }
}

/// Popularity falls with the square root of the rank: a long tail that people do reach.
fn drawn(rng: &mut ChaCha8Rng, movies: u32) -> u32 {
    let luck: f64 = rng.random();
    1 + ((luck * luck * f64::from(movies)) as u32).min(movies - 1)
}

fn measure_one(movies: u32) -> Value {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(movies));
    let described: Vec<Movie> = (1..=movies).map(movie).collect();
    let genres = GenreVocabulary::of(&described);
    let catalogue = Catalogue::new(
        described
            .iter()
            .map(|movie| CatalogueItem {
                external_id: movie.movie_id.0,
                year: movie.year,
                genres: genres.mask(&movie.genres),
            })
            .collect(),
    );
    let mut events = Vec::new();
    let mut changes: Vec<Change> = described.into_iter().map(Change::Movie).collect();
    for user in 0..USERS {
        let entries: Vec<HistoryEntry> = (0..EVENTS_PER_USER)
            .map(|step| HistoryEntry {
                movie_id: MovieId(drawn(&mut rng, movies)),
                kind: Kind::Rating,
                rating: Some(4.0),
                timestamp: (step * USERS + user) as i64 * 1_000,
            })
            .collect();
        events.extend(entries.iter().map(|entry| Interaction {
            user: user as u32,
            item: entry.movie_id.0 - 1,
            rating: entry.rating,
            weight: 1.0,
            time_ms: entry.timestamp,
        }));
        changes.push(Change::Chunk {
            partition: 0,
            chunk: HistoryChunk {
                schema_version: SchemaVersion,
                user_id: UserId(user),
                chunk: 0,
                seq: EVENTS_PER_USER,
                entries,
                epoch: None,
            },
        });
    }
    events.sort_by_key(|event| event.time_ms);
    let mut params = ServedParams::default();
    // Without a ranker, whose cost does not grow with the catalogue; and a core that is fitted quickly.
    params.fit.window = 0;
    params.generators.max_items = 1_000;
    let model = ServedModel::fit(&events, &catalogue, &params, 1).expect("a model");
    let view = Arc::new(View::new(LiveParams::default(), 32).expect("a view"));
    view.replace(ViewState::fold(LiveParams::default(), changes).expect("a fold"));
    let champion = Arc::new(Champion::default());
    let loaded = Loaded {
        model,
        genres,
        sha256: String::new(),
    };
    champion
        .install(ModelVersion::from_ordinal(1), loaded, &view)
        .expect("a champion");
    let engine = Engine::new(view, champion, EngineSettings::default());

    let recommend = timed(|n| {
        let ask = RecommendAsk {
            user: Some(UserId(n * 7_919 % USERS)),
            k: 10,
            ..RecommendAsk::default()
        };
        engine.recommend(&ask).expect("a list").items.len()
    });
    let similar = timed(|n| {
        let ask = SimilarAsk {
            movies: vec![MovieId(1 + (n * 7_919 % u64::from(movies)) as u32)],
            k: 10,
            ..SimilarAsk::default()
        };
        engine.similar(&ask).expect("a list").items.len()
    });
    let ms = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{movies} movies: recommend p50 {:.2} ms, p99 {:.2} ms; similar p50 {:.2} ms, p99 {:.2} ms",
        ms(&recommend, 0.5),
        ms(&recommend, 0.99),
        ms(&similar, 0.5),
        ms(&similar, 0.99)
    );
    json!({
        "movies": movies,
        "recommend_p50_ms": ms(&recommend, 0.5), "recommend_p99_ms": ms(&recommend, 0.99),
        "similar_p50_ms": ms(&similar, 0.5), "similar_p99_ms": ms(&similar, 0.99),
    })
}

/// Times of answers, after some that only warm caches, µs.
fn timed(mut answer: impl FnMut(u64) -> usize) -> Histogram<u64> {
    let mut times = Histogram::new_with_bounds(1, 60_000_000, 3).expect("a histogram");
    for n in 0..ASKED + ASKED / 10 {
        let begun = Instant::now();
        let listed = answer(n);
        let took = begun.elapsed().as_micros() as u64;
        assert!(listed > 0, "an empty list is no answer");
        if n >= ASKED / 10 {
            times.saturating_record(took);
        }
    }
    times
}
