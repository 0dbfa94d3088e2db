//! The past restored from a lake, and what it says of a model whose truth is known.

use std::path::Path;

use marquee_models::live::{Interaction as LiveEvent, LiveState};
use marquee_models::served::{
    Binding, Catalogue, CatalogueItem, Context, Query, ScoreScratch, ServedModel, ServedParams,
};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{
    Endpoint, Filters, Interaction, LoggedItem, ModelVersion, Movie, MovieId, Record, RequestLog,
    SchemaVersion, UserId, encode,
};
use marquee_statistics::off_policy::PlackettLuce;
use marquee_trainer::signal;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::config::{CompactionConfig, FlushConfig};
use crate::writer::LakeWriter;

/// 2024-05-01.
const MAY: i64 = 1_714_521_600_000;
const MOVIES: u32 = 40;
const USERS: u64 = 120;
const TASTES: u64 = 4;
const POOL: usize = 12;
const STEEPNESS: f64 = 1.2;
const K: usize = 3;
const EXAMINED: [f64; K] = [0.9, 0.6, 0.4];

/// Movies of a user's own taste are liked more.
fn attraction(user: u64, movie: u32) -> f64 {
    if u64::from(movie) % TASTES == user % TASTES {
        0.6
    } else {
        0.1
    }
}

/// Two models by name.
struct Shelf(BTreeMap<&'static str, ServedModel>);

impl Models for Shelf {
    fn load(&self, version: &str) -> Result<(ServedModel, GenreVocabulary), Error> {
        let model = self.0.get(version).cloned();
        Ok((
            model.ok_or_else(|| Error::Config(version.to_owned()))?,
            GenreVocabulary::default(),
        ))
    }
}

/// A small service in one thread: it keeps the live state as the recommender does and draws every list.
struct World {
    rng: ChaCha8Rng,
    live: LiveState,
    now: i64,
    versions: BTreeMap<u64, u64>,
    events: Vec<LiveEvent>,
    interactions: Vec<Vec<u8>>,
    lists: Vec<Vec<u8>>,
    served: u64,
    earned: u64,
}

fn catalogue() -> Catalogue {
    Catalogue::new(
        (0..MOVIES)
            .map(|id| CatalogueItem {
                external_id: id + 1,
                year: Some(2000),
                genres: 0,
            })
            .collect(),
    )
}

impl World {
    fn new() -> Self {
        let mut live = LiveState::new(ServedParams::default().live).unwrap();
        live.ensure_items(MOVIES as usize);
        Self {
            rng: ChaCha8Rng::seed_from_u64(7),
            live,
            now: MAY,
            versions: BTreeMap::new(),
            events: Vec::new(),
            interactions: Vec::new(),
            lists: Vec::new(),
            served: 0,
            earned: 0,
        }
    }

    fn act(&mut self, user: u64, item: u32, kind: Kind, request_id: Option<String>) {
        self.now += 500;
        let interaction = Interaction {
            schema_version: SchemaVersion,
            event_id: format!("e{}", self.interactions.len()),
            user_id: UserId(user),
            movie_id: Some(MovieId(item + 1)),
            kind,
            rating: None,
            genres: vec![],
            timestamp: self.now,
            session_id: None,
            request_id,
            source: None,
        };
        self.interactions.push(encode(&interaction));
        *self.versions.entry(user).or_default() += 1;
        let event = LiveEvent {
            user: u32::try_from(user).unwrap(),
            item,
            rating: None,
            weight: signal::weight(kind).unwrap(),
            time_ms: self.now,
        };
        self.live.observe(&event);
        self.events.push(event);
    }

    fn rank(
        &self,
        model: &ServedModel,
        binding: &Binding,
        user: u64,
        scratch: &mut ScoreScratch,
    ) -> Vec<u32> {
        let query = Query {
            binding,
            live: &self.live,
            context: Context::of_user(&self.live, u32::try_from(user).unwrap()),
            now_ms: self.live.last_event_ms().unwrap(),
        };
        let best = model.recommend(&query, POOL, |_| false, scratch);
        best.items.into_iter().map(|best| best.item).collect()
    }

    /// Serves one drawn list and lets the user click on it.
    fn serve(&mut self, version: u64, ranking: &[u32], user: u64) {
        self.now += 60_000;
        let weights: Vec<f64> = (0..ranking.len())
            .map(|place| -STEEPNESS * ((place + 1) as f64).ln())
            .collect();
        let policy = PlackettLuce::new(&weights, 1.0).unwrap();
        let places = policy.sample(K, &mut self.rng);
        let propensities = policy.conditionals(&places);
        let request_id = format!("r{}", self.lists.len());
        self.lists.push(encode(&RequestLog {
            schema_version: SchemaVersion,
            request_id: request_id.clone(),
            timestamp: self.now,
            endpoint: Endpoint::Recommend,
            status: 200,
            user_id: Some(UserId(user)),
            surface: None,
            model_version: Some(ModelVersion::from_ordinal(version)),
            policy: DRAWN.into(),
            experiment: None,
            arm: None,
            assignment_hash: None,
            feature_version: self.versions.get(&user).copied(),
            k: 3,
            candidates: u32::try_from(ranking.len()).unwrap(),
            seeds: vec![],
            filters: Filters::default(),
            items: places
                .iter()
                .zip(&propensities)
                .zip(0..)
                .map(|((&place, &propensity), rank)| LoggedItem {
                    movie_id: MovieId(ranking[place] + 1),
                    rank,
                    score: 1.0,
                    source: "blend".into(),
                    propensity,
                    explored: true,
                })
                .collect(),
            fallback_reason: None,
            left_out: Vec::new(),
            latency_ms: 1.0,
            stages: vec![],
        }));
        self.served += 1;
        for (&place, examined) in places.iter().zip(EXAMINED) {
            let item = ranking[place];
            if self.rng.random::<f64>() < examined * attraction(user, item) {
                self.earned += 1;
                self.act(user, item, Kind::Click, Some(request_id.clone()));
            }
        }
    }

    fn store(&self, dir: &Path) {
        let clock = Arc::new(ManualClock::at(MAY));
        let mut writer =
            LakeWriter::open(dir, FlushConfig::default(), CompactionConfig::default(), clock).unwrap();
        let movies: Vec<Vec<u8>> = (1..=MOVIES)
            .map(|id| {
                encode(&Movie {
                    schema_version: SchemaVersion,
                    movie_id: MovieId(id),
                    title: format!("Movie {id}"),
                    year: Some(2000),
                    genres: vec![],
                    imdb_id: None,
                    tmdb_id: None,
                })
            })
            .collect();
        for (topic, values) in [
            (Movie::TOPIC, &movies),
            (Interaction::TOPIC, &self.interactions),
            (RequestLog::TOPIC, &self.lists),
        ] {
            let records = (0..).zip(values).map(|(offset, value)| RawRecord {
                topic,
                partition: 0,
                offset,
                timestamp_ms: -1,
                key: None,
                value: Some(value.clone()),
            });
            writer.write(records.collect()).unwrap();
        }
        assert_eq!(writer.close().unwrap().count, 0);
    }
}

fn options() -> WhatIfOptions {
    WhatIfOptions {
        k: K,
        attribution_window_ms: 30_000,
        as_of_ms: i64::MAX,
        pool: POOL,
        steepness: STEEPNESS,
        clip: 20.0,
        floors: Floors::default(),
    }
}

#[tokio::test]
async fn the_past_is_restored_exactly_and_tells_what_another_model_would_have_earned() {
    let mut world = World::new();
    // A first life that says nothing about taste, then one that does: the models learn from one of them each.
    for n in 0..600_u64 {
        let item = world.rng.random_range(0..MOVIES);
        world.act(n % USERS, item, Kind::Like, None);
    }
    let params = ServedParams::default();
    let blind = ServedModel::fit(&world.events, &catalogue(), &params, 1)
        .unwrap()
        .without_ranker();
    let start = world.events.len();
    for n in 0..1_200_u64 {
        let user = n % USERS;
        let item = world.rng.random_range(0..MOVIES / 4) * 4 + u32::try_from(user % TASTES).unwrap();
        world.act(user, item, Kind::Like, None);
    }
    let seeing = ServedModel::fit(&world.events[start..], &catalogue(), &params, 1)
        .unwrap()
        .without_ranker();

    let (of_blind, of_seeing) = (
        blind.bind_catalogue(&catalogue()),
        seeing.bind_catalogue(&catalogue()),
    );
    let policy = RankPolicy::new(POOL, STEEPNESS, K);
    let mut scratch = ScoreScratch::new();
    let mut truth = 0.0;
    for n in 0..1_500_u64 {
        // Newcomers, so that the histories do not fill up.
        let user = USERS + n % 500;
        if n < 500 {
            let item = world.rng.random_range(0..MOVIES);
            world.act(user, item, Kind::View, None);
        }
        let other = world.rank(&seeing, &of_seeing, user, &mut scratch);
        truth += policy.expectation(&other, |at, item| EXAMINED[at] * attraction(user, item));
        let ranking = world.rank(&blind, &of_blind, user, &mut scratch);
        world.serve(1, &ranking, user);
    }
    truth /= 1_500.0;

    let dir = tempfile::tempdir().unwrap();
    world.store(dir.path());
    let shelf = Shelf(BTreeMap::from([("v000001", blind), ("v000002", seeing)]));

    let same = what_if_of(dir.path(), &shelf, "v000001", 0, i64::MAX / 2, options())
        .await
        .unwrap();
    assert_eq!(
        (same.drawn, same.used, same.reward),
        (1_500, 1_500, Reward::Click)
    );
    assert_eq!(same.fidelity, 1.0);
    let served = world.earned as f64 / world.served as f64;
    let naive = same.naive.unwrap();
    assert!((naive.value - served).abs() < 1e-9, "{} {served}", naive.value);
    assert!((same.diagnostics.mean_weight - 1.0).abs() < 1e-9);
    assert!((same.diagnostics.support - 1.0).abs() < 1e-6);
    for (estimator, outcome) in &same.estimates {
        // The reward model's part is a sample's, the others are the mean itself.
        let value = outcome.as_ref().unwrap().value;
        assert!((value - served).abs() < 0.05, "{estimator}: {value}, {served}");
    }

    let other = what_if_of(dir.path(), &shelf, "v000002", 0, i64::MAX / 2, options())
        .await
        .unwrap();
    assert_eq!(other.fidelity, 1.0);
    println!("truth {truth:.4}, served {served:.4}, {:?}", other.diagnostics);
    let told: Vec<&(Estimator, _)> = other
        .estimates
        .iter()
        .filter(|(_, outcome)| outcome.is_ok())
        .collect();
    for (estimator, outcome) in &other.estimates {
        println!("{estimator}: {outcome:?}");
    }
    for (estimator, outcome) in told {
        let estimate = outcome.as_ref().unwrap();
        let margin = 2.0 * (estimate.interval.1 - estimate.interval.0);
        if !matches!(estimator, Estimator::Clipped(_)) {
            assert!(
                (estimate.value - truth).abs() < margin,
                "{estimator}: {} {truth}",
                estimate.value
            );
        }
    }

    // Young lists, a model that is gone, and other settings than those the lists were drawn with.
    let young = WhatIfOptions {
        as_of_ms: MAY,
        ..options()
    };
    let got = what_if_of(dir.path(), &shelf, "v000002", 0, i64::MAX / 2, young)
        .await
        .unwrap();
    assert_eq!((got.censored, got.used), (1_500, 0));
    let alone = Shelf(
        shelf
            .0
            .into_iter()
            .filter(|(name, _)| *name == "v000002")
            .collect(),
    );
    let got = what_if_of(dir.path(), &alone, "v000002", 0, i64::MAX / 2, options())
        .await
        .unwrap();
    assert_eq!((got.unknown_model, got.used), (1_500, 0));
    assert!(got.estimates.iter().all(|(_, outcome)| outcome.is_err()));
}
