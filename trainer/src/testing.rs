//! Small synthetic data for the tests of this crate.

use marquee_models::served::ServedModel;
use marquee_schemas::{Interaction, Kind, Movie, MovieId, Offset, PartitionOffset, SchemaVersion, UserId};

use crate::Config;
use crate::bundle::{Bundle, Counts, Manifest, Split};
use crate::evaluate::{METRICS, Panel, Scorecard, UserFigures};
use crate::registry::models_dir;
use crate::run::RunSettings;
use crate::snapshot::{Row, Rows, Snapshot};

pub(crate) const MOVIES: u32 = 200;

pub(crate) fn movie(id: u32) -> Movie {
    Movie {
        schema_version: SchemaVersion,
        movie_id: MovieId(id),
        title: format!("Movie {id}"),
        year: Some(1980 + (id % 40) as u16),
        genres: vec![["Comedy", "Drama", "Western"][id as usize % 3].to_owned()],
        imdb_id: None,
        tmdb_id: None,
    }
}

pub(crate) fn movies() -> Vec<Movie> {
    (1..=MOVIES).map(movie).collect()
}

pub(crate) fn rating(id: &str, user: u64, movie: u32, stars: f32, time_ms: i64) -> Interaction {
    Interaction {
        schema_version: SchemaVersion,
        event_id: id.to_owned(),
        user_id: UserId(user),
        movie_id: Some(MovieId(movie)),
        kind: Kind::Rating,
        rating: Some(stars),
        genres: Vec::new(),
        timestamp: time_ms,
        session_id: None,
        request_id: None,
        source: None,
    }
}

/// Event `n` of an endless stream: thirty users, each of whom likes one half of the catalogue and walks through it.
pub(crate) fn stream_event(n: u64) -> Interaction {
    let user = n % 30 + 1;
    let step = n / 30;
    let half = MOVIES / 2;
    let own = (user % 2) as u32 * half;
    let (movie, stars) = if step % 4 == 3 {
        (
            (half - own) + ((step * 7 + user) % u64::from(half)) as u32 + 1,
            2.0,
        )
    } else {
        (own + ((step + user * 3) % u64::from(half)) as u32 + 1, 5.0)
    };
    rating(
        &format!("e{n}"),
        user,
        movie,
        stars,
        1_000_000 + n as i64 * 60_000,
    )
}

/// Events below `n` as rows of two partitions, by user.
pub(crate) fn rows(n: u64) -> Rows {
    let mut next = [0_i64; 2];
    let rows = (0..n)
        .map(|n| {
            let event = stream_event(n);
            let partition = (event.user_id.0 % 2) as usize;
            let row = Row::of(&event, partition as i32, next[partition]);
            next[partition] += 1;
            row
        })
        .collect();
    Rows {
        rows,
        ..Rows::default()
    }
}

pub(crate) fn at(topic: &str, partition: i32, offset: i64) -> PartitionOffset {
    PartitionOffset {
        topic: topic.to_owned(),
        partition,
        offset: Offset(offset),
    }
}

pub(crate) fn offsets_of(rows: &Rows) -> Vec<PartitionOffset> {
    let end = |partition| {
        let own = rows.rows.iter().filter(|row| row.partition == partition);
        at(
            "interactions",
            partition,
            own.map(|row| row.offset + 1).max().unwrap_or(0),
        )
    };
    vec![end(0), end(1), at("movies", 0, i64::from(MOVIES))]
}

pub(crate) fn snapshot(n: u64) -> Snapshot {
    let rows = rows(n);
    let offsets = offsets_of(&rows);
    Snapshot::assemble(rows, movies(), offsets)
}

pub(crate) fn settings() -> RunSettings {
    RunSettings {
        threads: 1,
        ..RunSettings::from(&Config::default())
    }
}

/// A small model with its manifest, as version `version`.
pub(crate) fn model(version: &str, n: u64) -> (Manifest, Vec<u8>, Vec<Movie>) {
    let snapshot = snapshot(n);
    let settings = settings();
    let model = ServedModel::fit(
        &snapshot.interactions,
        &snapshot.catalogue,
        &settings.params,
        settings.seed,
    )
    .unwrap();
    let manifest = Manifest {
        format_version: crate::bundle::FORMAT_VERSION,
        version: marquee_schemas::ModelVersion(version.to_owned()),
        created_at_ms: 5,
        code_revision: "test".to_owned(),
        offsets: snapshot.offsets.clone(),
        counts: Counts::default(),
        users: snapshot.users.len() as u64,
        movies: snapshot.movies.len() as u64,
        trained_until_ms: snapshot.until_ms(),
        split: Split::default(),
        seed: settings.seed,
        params: settings.params,
        metrics: [("ndcg@10".to_owned(), 0.25)].into(),
        genres: snapshot.genres.clone(),
        retrain_event_ids: vec!["r1".to_owned()],
        files: Default::default(),
    };
    (manifest, model.to_bytes().unwrap(), snapshot.movies)
}

/// A small model as it is loaded after its publication.
pub(crate) fn bundle(n: u64) -> Bundle {
    let dir = tempfile::tempdir().unwrap();
    let (mut manifest, model, movies) = model("v000001", n);
    let store = crate::store::Store::at(dir.path()).unwrap();
    crate::bundle::publish(&store, &mut manifest, &model, &movies).unwrap();
    Bundle::load(&models_dir(dir.path()).join("v000001")).unwrap()
}

/// A scorecard with one case per user and protocol, whose every figure is the given NDCG@10.
pub(crate) fn card_of(fixed: &[f64], stream: &[f64]) -> Scorecard {
    let panel = |values: &[f64], coverage: Option<f64>| Panel {
        users: (0..)
            .zip(values)
            .map(|(user, &value)| UserFigures {
                user,
                cases: 1,
                sums: [value; METRICS.len()],
            })
            .collect(),
        coverage: coverage.filter(|_| !values.is_empty()),
    };
    Scorecard {
        fixed: panel(fixed, Some(0.5)),
        stream: panel(stream, None),
        unsound: 0,
    }
}
