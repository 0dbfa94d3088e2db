//! A full run on ml-100k, without a broker. Needs `MARQUEE_DATA_DIR`.

#![allow(clippy::unwrap_used, reason = "the helpers of tests too")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use marquee_models::served::ServedModel;
use marquee_schemas::{
    Interaction, Kind, ModelVersion, Movie, MovieId, Offset, PartitionOffset, SchemaVersion, UserId,
};
use marquee_trainer::bundle::{FORMAT_VERSION, Manifest};
use marquee_trainer::run::{RunSettings, Trained, Unwatched, train};
use marquee_trainer::snapshot::{Row, Rows, Snapshot};
use marquee_trainer::{Bundle, Config};

const GENRES: [&str; 19] = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];

fn data_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("MARQUEE_DATA_DIR").map(|dir| PathBuf::from(dir).join("ml-100k"));
    let found = dir.filter(|dir| dir.join("u.data").is_file());
    if found.is_none() {
        eprintln!("skipped: MARQUEE_DATA_DIR does not name a directory with ml-100k");
    }
    found
}

fn movies(dir: &std::path::Path) -> Vec<Movie> {
    let bytes = std::fs::read(dir.join("u.item")).unwrap();
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            let year = fields[2].rsplit('-').next().and_then(|year| year.parse().ok());
            Movie {
                schema_version: SchemaVersion,
                movie_id: MovieId(fields[0].parse().unwrap()),
                title: fields[1].to_owned(),
                year,
                genres: (1..GENRES.len())
                    .filter(|&genre| fields[5 + genre] == "1")
                    .map(|genre| GENRES[genre].to_owned())
                    .collect(),
                imdb_id: None,
                tmdb_id: None,
            }
        })
        .collect()
}

/// All ratings in time order, spread over four partitions by user.
fn rows(dir: &std::path::Path) -> Vec<Row> {
    let text = std::fs::read_to_string(dir.join("u.data")).unwrap();
    let mut ratings: Vec<(i64, u64, u32, f32)> = text
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            (
                fields[3].parse().unwrap(),
                fields[0].parse().unwrap(),
                fields[1].parse().unwrap(),
                fields[2].parse().unwrap(),
            )
        })
        .collect();
    ratings.sort_by_key(|&(time, ..)| time);
    let mut next = [0_i64; 4];
    ratings
        .into_iter()
        .map(|(time, user, movie, stars)| {
            let partition = (user % 4) as usize;
            let event = Interaction {
                schema_version: SchemaVersion,
                event_id: format!("ml-100k/{user}/{movie}"),
                user_id: UserId(user),
                movie_id: Some(MovieId(movie)),
                kind: Kind::Rating,
                rating: Some(stars),
                genres: Vec::new(),
                timestamp: time * 1000,
                session_id: None,
                request_id: None,
                source: None,
            };
            next[partition] += 1;
            Row::of(&event, partition as i32, next[partition] - 1)
        })
        .collect()
}

fn snapshot(rows: &[Row], movies: &[Movie]) -> Snapshot {
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    for row in rows {
        ends.insert(row.partition, row.offset + 1);
    }
    let offsets = ends
        .into_iter()
        .map(|(partition, offset)| PartitionOffset {
            topic: "interactions".into(),
            partition,
            offset: Offset(offset),
        })
        .collect();
    let rows = Rows {
        rows: rows.to_vec(),
        ..Rows::default()
    };
    Snapshot::assemble(rows, movies.to_vec(), offsets)
}

fn bundle(snapshot: &Snapshot, trained: &Trained, settings: &RunSettings) -> Bundle {
    Bundle {
        manifest: Manifest {
            format_version: FORMAT_VERSION,
            version: ModelVersion::from_ordinal(1),
            created_at_ms: 0,
            code_revision: "test".into(),
            offsets: snapshot.offsets.clone(),
            counts: snapshot.counts,
            users: snapshot.users.len() as u64,
            movies: snapshot.movies.len() as u64,
            trained_until_ms: snapshot.until_ms(),
            split: trained.split.clone(),
            seed: settings.seed,
            params: settings.params.clone(),
            metrics: trained.metrics.clone(),
            genres: snapshot.genres.clone(),
            retrain_event_ids: Vec::new(),
            files: BTreeMap::new(),
        },
        model: ServedModel::from_bytes(&trained.model).unwrap(),
        movies: snapshot.movies.clone(),
        sha256: String::new(),
    }
}

#[test]
fn a_run_on_ml_100k_beats_popularity_repeats_itself_and_is_compared_with_its_champion() {
    let Some(dir) = data_dir() else { return };
    let (rows, movies) = (rows(&dir), movies(&dir));
    let mut settings = RunSettings::from(&Config::default());
    // The ranker's replay is what takes the time; a short one is enough here.
    settings.params.fit.window = 8_000;
    let quick = settings.clone().without_ranker();
    let first = snapshot(&rows[..70_000], &movies);
    let began = Instant::now();
    let champion = train(&first, None, &quick, &Unwatched).unwrap();
    println!(
        "bootstrap on 70,000 ratings in {:?}: {:?}",
        began.elapsed(),
        champion.split
    );
    println!("{:#?}", champion.metrics);
    assert!(champion.decision.promoted);
    let metric = |name: &str| champion.metrics[name];
    assert!(metric("n") >= 30.0);
    assert!(metric("ndcg@10") > metric("popularity_ndcg@10"));
    assert!(metric("recall@20") > metric("popularity_recall@20"));
    for name in ["ndcg@10", "hr@10", "recall@20", "mrr", "coverage@100"] {
        assert!((0.0..=1.0).contains(&metric(name)), "{name}");
    }

    let other_threads = RunSettings {
        threads: quick.threads + 1,
        ..quick.clone()
    };
    let again = train(&first, None, &other_threads, &Unwatched).unwrap();
    assert_eq!(
        again.model, champion.model,
        "the same data gives the same bytes, whatever the threads"
    );
    assert_eq!(again.metrics, champion.metrics);

    let second = snapshot(&rows[..85_000], &movies);
    let champion = bundle(&first, &champion, &quick);
    let began = Instant::now();
    let challenger = train(&second, Some(&champion), &settings, &Unwatched).unwrap();
    println!(
        "challenger on 85,000 ratings in {:?}, {} bytes: {:?}",
        began.elapsed(),
        challenger.model.len(),
        challenger.split
    );
    println!("{:#?}", challenger.decision);
    assert_eq!(
        challenger.decision.numbers["n"],
        challenger.decision.numbers["champion_n"]
    );
    assert!(challenger.metrics["ndcg@10"] > challenger.metrics["popularity_ndcg@10"]);
}
