//! Interactions at the shape of ml-1m, simulated.

use std::collections::BTreeMap;

use marquee_feature_processor::MemoryCatalogue;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{Interaction, Kind, MovieId, Record, SchemaVersion, Topic, UserId, encode};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Users of ml-1m, who stand for 2 million events here.
pub(crate) const USERS: u64 = 6_040;
/// Movies of ml-1m with a rating.
pub(crate) const MOVIES: u32 = 3_706;
/// Partitions of `interactions`.
pub(crate) const PARTITIONS: u64 = 4;
/// The standard deviation of the logarithm of a user's number of ratings: median 96 and mean 165 in ml-1m.
const ACTIVITY_SIGMA: f64 = 1.04;
/// Users who are at it at the same time.
const OPEN_SESSIONS: u64 = 256;
/// April 2000, when ml-1m begins, ms.
const BEGIN_MS: i64 = 956_700_000_000;
const GAP_MS: i64 = 60_000;

/// Events without end. Their users are drawn by activity and stay for a session; popularity of movies falls off as a
/// power of their rank.
pub(crate) struct Stream {
    rng: ChaCha8Rng,
    /// Running sums of the users' activity.
    activity: Vec<f64>,
    /// User and events left.
    sessions: Vec<(u64, u64)>,
    session_events: f64,
    count: u64,
}

impl Stream {
    /// A stream of `users` users whose sessions have `session_events` events on average; 1 draws each event's user
    /// anew.
    pub(crate) fn new(users: u64, session_events: f64) -> Self {
        let mut stream = Self {
            rng: ChaCha8Rng::seed_from_u64(1),
            activity: Vec::new(),
            sessions: Vec::new(),
            session_events,
            count: 0,
        };
        let mut sum = 0.0;
        for _ in 0..users {
            sum += (ACTIVITY_SIGMA * stream.normal()).exp();
            stream.activity.push(sum);
        }
        stream.sessions = (0..OPEN_SESSIONS).map(|_| stream.session()).collect();
        stream
    }

    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn session(&mut self) -> (u64, u64) {
        let total = self.activity.last().copied().unwrap_or(0.0);
        let at = self.uniform() * total;
        let user = self.activity.partition_point(|&sum| sum < at) as u64;
        let further = (1.0 - self.uniform()).ln() * -(self.session_events - 1.0);
        (1 + user, 1 + further as u64)
    }
}

impl Iterator for Stream {
    type Item = Interaction;

    fn next(&mut self) -> Option<Interaction> {
        let slot = (self.rng.next_u64() % OPEN_SESSIONS) as usize;
        let (user, left) = self.sessions[slot];
        self.sessions[slot] = if left > 1 {
            (user, left - 1)
        } else {
            self.session()
        };
        let movie = 1 + (f64::from(MOVIES - 1) * self.uniform().powi(3)) as u32;
        let stars = 1.0 + (5.0 * self.uniform().sqrt()).floor().min(4.0);
        let number = self.count;
        self.count += 1;
        Some(Interaction {
            schema_version: SchemaVersion,
            event_id: format!("simulated/{user}/{number}"),
            user_id: UserId(user),
            movie_id: Some(MovieId(movie)),
            kind: Kind::Rating,
            rating: Some(stars as f32),
            genres: Vec::new(),
            timestamp: BEGIN_MS + number.cast_signed() * GAP_MS,
            session_id: None,
            request_id: None,
            source: Some("bench".into()),
        })
    }
}

/// The stream as the records of a topic.
pub(crate) struct Log {
    stream: Stream,
    next: BTreeMap<i32, i64>,
}

impl Log {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            next: BTreeMap::new(),
        }
    }

    /// The next `count` records, by partition.
    pub(crate) fn batch(&mut self, count: usize) -> BTreeMap<i32, Vec<RawRecord>> {
        let mut batch: BTreeMap<i32, Vec<RawRecord>> = BTreeMap::new();
        for event in self.stream.by_ref().take(count) {
            let partition = (event.user_id.0 % PARTITIONS) as i32;
            let next = self.next.entry(partition).or_default();
            batch.entry(partition).or_default().push(RawRecord {
                topic: Topic::Interactions,
                partition,
                offset: *next,
                timestamp_ms: event.timestamp,
                key: Some(event.key()),
                value: Some(encode(&event)),
            });
            *next += 1;
        }
        batch
    }
}

/// Two or three of ml-1m's 18 genres per movie.
pub(crate) fn genres(movie: u32) -> Vec<String> {
    let mut numbers = vec![movie % 18, movie / 18 % 18, movie / 324 % 18];
    numbers.sort_unstable();
    numbers.dedup();
    numbers
        .into_iter()
        .map(|number| format!("genre {number}"))
        .collect()
}

pub(crate) fn catalogue() -> MemoryCatalogue {
    let mut movies = MemoryCatalogue::default();
    for movie in 1..=MOVIES {
        movies.insert(MovieId(movie), &genres(movie));
    }
    movies
}
