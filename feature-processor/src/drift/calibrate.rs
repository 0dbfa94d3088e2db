//! How often the monitor cries wolf, and how soon it sees what was planted.
//!
//! Streams are made of the users of a real data set in random order: a few of them are active at a time, each goes
//! through its own events in order, and the next user takes the place of one that has ended. Such a stream is
//! stationary, for its users are exchangeable, and clustered as real traffic is.

use std::collections::BTreeMap;
use std::sync::Arc;

use marquee_schemas::{Kind, MovieId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::cutter::Cutter;
use super::feature::Feature;
use super::monitor::{DriftConfig, Monitor};
use super::observation::{Fate, Observation};

/// The data set that streams are made of.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// Each user's events in order.
    users: BTreeMap<u64, Vec<Observation>>,
    genres: BTreeMap<u32, Vec<Arc<str>>>,
}

/// What is planted into a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Shift {
    /// Nothing: every alarm is false.
    None,
    /// This share of the events is about a movie of this genre instead, any of them with the same chance.
    Genre {
        /// The genre.
        genre: String,
        /// Share of the events, 0 to 1.
        share: f64,
    },
    /// This share of the ratings is one star lower, one half star at least.
    LowerStars {
        /// Share of the ratings, 0 to 1.
        share: f64,
    },
}

/// How a stream is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Users active at a time.
    pub lanes: usize,
    /// What is planted.
    pub shift: Shift,
    /// Undisturbed windows between the reference and the shift.
    pub clean_windows: usize,
}

/// What the monitor made of one stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Windows judged after the reference, those before the shift included.
    pub windows: usize,
    /// Windows with an alarm, numbered from the shift on (from the reference on if nothing is planted), from 1.
    pub alarms: Vec<(usize, Vec<Feature>)>,
    /// Of the undisturbed windows: those with an alarm.
    pub false_alarms: usize,
    /// Of the undisturbed windows: those in which any single feature was seen to have changed.
    pub false_sightings: usize,
    /// Undisturbed windows.
    pub clean_windows: usize,
}

impl Outcome {
    /// Windows from the shift to the first alarm; 1 is the first window with the shift in it.
    #[must_use]
    pub fn delay(&self) -> Option<usize> {
        self.alarms.first().map(|&(window, _)| window)
    }
}

impl Corpus {
    /// Sets a movie's genres.
    pub fn movie(&mut self, movie: MovieId, genres: &[String]) {
        let genres = genres.iter().map(|genre| Arc::from(genre.as_str())).collect();
        self.genres.insert(movie.0, genres);
    }

    /// Adds a rating; a user's ratings must come in the order of their times.
    pub fn rating(&mut self, user: u64, movie: MovieId, stars: f32, timestamp_ms: i64) {
        let events = self.users.entry(user).or_default();
        let first = events.first().map_or(timestamp_ms, |first| first.timestamp_ms);
        events.push(Observation {
            user,
            movie: movie.0,
            fate: Fate::Applied(Kind::Rating),
            half_stars: super::half_stars(Some(stars)),
            first: events.is_empty(),
            late: false,
            tenure_ms: timestamp_ms - first,
            timestamp_ms,
        });
    }

    /// Number of events.
    #[must_use]
    pub fn events(&self) -> usize {
        self.users.values().map(Vec::len).sum()
    }

    /// Every event once, users in random order, `lanes` of them at a time.
    fn stream(&self, lanes: usize, rng: &mut ChaCha8Rng) -> Vec<Observation> {
        let mut waiting: Vec<&[Observation]> = self.users.values().map(Vec::as_slice).collect();
        for last in (1..waiting.len()).rev() {
            waiting.swap(last, below(rng, last + 1));
        }
        let mut active: Vec<&[Observation]> = Vec::new();
        let mut stream = Vec::with_capacity(self.events());
        loop {
            while active.len() < lanes
                && let Some(user) = waiting.pop()
            {
                active.push(user);
            }
            if active.is_empty() {
                return stream;
            }
            let lane = below(rng, active.len());
            if let Some((event, rest)) = active[lane].split_first() {
                stream.push(*event);
                active[lane] = rest;
            }
            if active[lane].is_empty() {
                active.swap_remove(lane);
            }
        }
    }

    /// Runs the monitor over one stream: the first events are the reference, all others are cut into windows.
    #[must_use]
    pub fn run(&self, config: &DriftConfig, plan: &Plan, seed: u64) -> Outcome {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let stream = self.stream(plan.lanes, &mut rng);
        let planted = self.of_genre(&plan.shift);
        let genres_of = |movie: MovieId| self.genres.get(&movie.0).map(Vec::as_slice);
        let reference = usize::try_from(config.reference_events).unwrap_or(usize::MAX);
        let (reference, rest) = stream.split_at(reference.min(stream.len()));
        let mut monitor = Monitor::default();
        monitor.rebase(config, reference, &genres_of);
        let mut cutter = Cutter::default();
        let mut outcome = Outcome::default();
        for event in rest {
            let clean = plan.shift == Shift::None || outcome.windows < plan.clean_windows;
            let mut event = *event;
            if !clean {
                disturb(&mut event, &plan.shift, &planted, &mut rng);
            }
            let Some(window) = cutter.push(config, &[event]) else {
                continue;
            };
            outcome.windows += 1;
            let report = monitor.close(config, &window.observations, &genres_of);
            if clean {
                outcome.clean_windows += 1;
                outcome.false_alarms += usize::from(!report.alarms.is_empty());
                outcome.false_sightings += usize::from(report.findings.iter().any(|finding| finding.seen));
            }
            if !report.alarms.is_empty() && (!clean || plan.shift == Shift::None) {
                let since = outcome.windows
                    - if plan.shift == Shift::None {
                        0
                    } else {
                        plan.clean_windows
                    };
                outcome.alarms.push((since, report.alarms));
            }
        }
        outcome
    }

    fn of_genre(&self, shift: &Shift) -> Vec<u32> {
        let Shift::Genre { genre, .. } = shift else {
            return Vec::new();
        };
        self.genres
            .iter()
            .filter(|(_, genres)| genres.iter().any(|name| **name == **genre))
            .map(|(&movie, _)| movie)
            .collect()
    }
}

fn disturb(event: &mut Observation, shift: &Shift, planted: &[u32], rng: &mut ChaCha8Rng) {
    match *shift {
        Shift::None => {}
        Shift::Genre { share, .. } => {
            if chance(rng, share) && !planted.is_empty() {
                event.movie = planted[below(rng, planted.len())];
            }
        }
        Shift::LowerStars { share } => {
            if chance(rng, share) && event.half_stars > 2 {
                event.half_stars -= 2;
            }
        }
    }
}

fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound as u64).unwrap_or(0)
}

fn chance(rng: &mut ChaCha8Rng, share: f64) -> bool {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 <= share
}
