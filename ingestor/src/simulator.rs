//! Users who answer the lists that they are served: the closed loop whose truth is known.
//!
//! Tastes are fitted from real ratings, so that they have the structure of real ones. A simulated user comes
//! for a session of a few lists, examines a list from the top with less and less patience, clicks an examined movie with
//! a chance that rises with how much they would like it, and rates some of what they clicked. Everything they do carries
//! the `request_id` of the list that it answers. [`Scenario`]s change tastes at a moment: what was popular, or who likes
//! what.
//!
//! [`Simulator::expected_clicks`] is the truth that estimates can be held against: it is computed from the chances
//! themselves, not from what was drawn. Everything follows from the seed.

mod taste;

use std::collections::BTreeMap;
use std::str::FromStr;

use marquee_schemas::{Interaction, Kind, MovieId, SchemaVersion, UserId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::{Dataset, Error, Rating};
use taste::Tastes;

/// Settings of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulatorConfig {
    /// Everything drawn follows from it.
    pub seed: u64,
    /// Simulated users.
    pub users: u64,
    /// The first user's id; the others follow. Keep it away from the data set's own users.
    pub first_user_id: u64,
    /// Mean number of lists per session, at least 1.
    pub mean_lists: f64,
    /// How fast patience falls: position k (from 0) is examined with chance `(k + 1)^-patience_loss` (the position-based
    /// model, as in Joachims, Swaminathan and Schnabel 2017).
    pub patience_loss: f64,
    /// The rating that a movie must promise to be clicked with chance one half.
    pub wanted_stars: f64,
    /// Stars above that which bring the chance from one half to 0.73 (a logistic unit).
    pub stars_per_logit: f64,
    /// Chance that a clicked movie is rated.
    pub rating_chance: f64,
    /// How long a user looks at a list before the first act, and between acts, ms.
    pub pause_ms: i64,
    /// What changes, and when.
    pub scenario: Scenario,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            seed: 42,
            users: 1_000,
            first_user_id: 1_000_000_000,
            mean_lists: 3.0,
            patience_loss: 0.7,
            wanted_stars: 4.2,
            stars_per_logit: 0.4,
            rating_chance: 0.5,
            pause_ms: 2_000,
            scenario: Scenario::Steady,
        }
    }
}

/// What changes in the course of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Nothing.
    #[default]
    Steady,
    /// From the given session on, everyone likes movies of a genre better by so many stars.
    Trend {
        /// The genre.
        genre: String,
        /// Stars.
        stars: f64,
        /// Sessions before it begins.
        after_sessions: u64,
    },
    /// From the given session on, a share of the users has the taste of somebody else.
    Shift {
        /// Share of the users, 0 to 1.
        share: f64,
        /// Sessions before it begins.
        after_sessions: u64,
    },
    /// From the given session on, everyone likes movies of one genre worse and movies of another one better.
    Turn {
        /// The genre that falls out of favour.
        from: String,
        /// The genre that comes into it.
        to: String,
        /// Stars, either way.
        stars: f64,
        /// Sessions before it begins.
        after_sessions: u64,
    },
}

impl FromStr for Scenario {
    type Err = String;

    /// `steady`, `trend:GENRE:STARS:SESSIONS`, `shift:SHARE:SESSIONS` or `turn:GENRE:GENRE:STARS:SESSIONS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no scenario: steady, trend:GENRE:STARS:SESSIONS, shift:SHARE:SESSIONS or \
                 turn:GENRE:GENRE:STARS:SESSIONS"
            )
        };
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            ["steady"] => Ok(Self::Steady),
            ["trend", genre, stars, sessions] => Ok(Self::Trend {
                genre: (*genre).to_owned(),
                stars: stars.parse().map_err(|_| wrong())?,
                after_sessions: sessions.parse().map_err(|_| wrong())?,
            }),
            ["shift", share, sessions] => Ok(Self::Shift {
                share: share.parse().map_err(|_| wrong())?,
                after_sessions: sessions.parse().map_err(|_| wrong())?,
            }),
            ["turn", from, to, stars, sessions] => Ok(Self::Turn {
                from: (*from).to_owned(),
                to: (*to).to_owned(),
                stars: stars.parse().map_err(|_| wrong())?,
                after_sessions: sessions.parse().map_err(|_| wrong())?,
            }),
            _ => Err(wrong()),
        }
    }
}

impl Scenario {
    /// Genres that movies must have for it to mean anything.
    fn genres(&self) -> Vec<&str> {
        match self {
            Self::Trend { genre, .. } => vec![genre],
            Self::Turn { from, to, .. } => vec![from, to],
            Self::Steady | Self::Shift { .. } => Vec::new(),
        }
    }
}

/// A user who comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub user_id: UserId,
    /// The session, unique in the simulation.
    pub session_id: String,
    /// Lists they will look at.
    pub lists: u32,
    /// Number of the session, from 0.
    pub number: u64,
}

/// The simulated users.
#[derive(Debug, Clone)]
pub struct Simulator {
    config: SimulatorConfig,
    tastes: Tastes,
    rng: ChaCha12Rng,
    sessions: u64,
    events: u64,
}

impl Simulator {
    /// Users with tastes fitted from `dataset`.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of their domain, a genre that no movie has, and a data set without ratings.
    pub fn fit(dataset: &Dataset, config: SimulatorConfig) -> Result<Self, Error> {
        let refuse = |what: &str| Err(Error::Config(format!("simulator: {what}")));
        if config.users == 0 || dataset.ratings.is_empty() {
            return refuse("there must be users, and ratings to fit tastes from");
        }
        if !(config.mean_lists >= 1.0 && config.mean_lists.is_finite()) {
            return refuse("mean_lists must be at least 1");
        }
        if !(config.patience_loss >= 0.0 && config.stars_per_logit > 0.0) {
            return refuse("patience_loss must not be negative, stars_per_logit must be above 0");
        }
        if !(0.0..=1.0).contains(&config.rating_chance) {
            return refuse("rating_chance must lie between 0 and 1");
        }
        let scenario = config.scenario.clone();
        let mut simulator = Self {
            rng: ChaCha12Rng::seed_from_u64(config.seed),
            tastes: Tastes::fit(dataset, config.users, config.seed),
            config,
            sessions: 0,
            events: 0,
        };
        simulator.change(scenario)?;
        Ok(simulator)
    }

    /// From now on this is what changes, and when; sessions count from the simulation's beginning.
    ///
    /// # Errors
    /// [`Error::Config`] for a share out of its domain and a genre that no movie has; nothing changes then.
    pub fn change(&mut self, scenario: Scenario) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Config(format!("simulator: {what}")));
        if matches!(scenario, Scenario::Shift { share, .. } if !(0.0..=1.0).contains(&share)) {
            return refuse("the share of a shift must lie between 0 and 1".into());
        }
        let unknown = scenario
            .genres()
            .into_iter()
            .find(|genre| !self.tastes.knows_genre(genre));
        if let Some(genre) = unknown {
            return refuse(format!("no movie has the genre {genre:?}"));
        }
        self.config.scenario = scenario;
        Ok(())
    }

    /// What the simulated users rated before they came, oldest first: each the movies of the real user whose taste is
    /// theirs, at that user's times and at most the `most` newest of them, with stars by their own taste. So what they
    /// chose to watch tells of what they like, as it does of real people.
    pub fn past(&mut self, dataset: &Dataset, most: usize) -> Vec<Rating> {
        let mut of_user: BTreeMap<UserId, Vec<&Rating>> = BTreeMap::new();
        for rating in &dataset.ratings {
            of_user.entry(rating.user_id).or_default().push(rating);
        }
        let mut past = Vec::new();
        for user in 0..self.config.users {
            let model = self.tastes.model(user);
            let seen = model
                .and_then(|model| of_user.get(&model))
                .map_or(&[][..], Vec::as_slice);
            for rating in &seen[seen.len().saturating_sub(most)..] {
                let stars = self.tastes.stars(user, rating.movie_id);
                past.push(Rating {
                    user_id: UserId(self.config.first_user_id + user),
                    rating: self.rated(stars),
                    ..**rating
                });
            }
        }
        past.sort_by_key(|rating| rating.timestamp_ms);
        past
    }

    /// Stars as somebody gives them who feels `stars`.
    fn rated(&mut self, stars: f64) -> f32 {
        let noise: f64 = (0..4).map(|_| self.rng.random::<f64>() - 0.5).sum();
        half_stars(stars + noise)
    }

    /// The next user who comes in.
    pub fn next_session(&mut self) -> Session {
        let user = self.rng.random_range(0..self.config.users);
        let number = self.sessions;
        self.sessions += 1;
        // Geometric: after every list the user goes with the same chance.
        let stay = 1.0 - 1.0 / self.config.mean_lists;
        let mut lists = 1;
        while lists < 100 && self.rng.random::<f64>() < stay {
            lists += 1;
        }
        Session {
            user_id: UserId(self.config.first_user_id + user),
            session_id: format!("sim-{}-{number}", self.config.seed),
            lists,
            number,
        }
    }

    /// The stars that a user would give a movie in this session, before any noise.
    fn stars(&self, session: &Session, movie: MovieId) -> f64 {
        let user = session.user_id.0.saturating_sub(self.config.first_user_id);
        match &self.config.scenario {
            Scenario::Trend {
                genre,
                stars,
                after_sessions,
            } if session.number >= *after_sessions && self.tastes.has_genre(movie, genre) => {
                self.tastes.stars(user, movie) + stars
            }
            Scenario::Shift {
                share,
                after_sessions,
            } if session.number >= *after_sessions => {
                // The first users are those who change; whom they become is as arbitrary.
                let changes = (user as f64 + 0.5) / self.config.users as f64 <= *share;
                let other = (user + self.config.users / 2) % self.config.users;
                self.tastes.stars(if changes { other } else { user }, movie)
            }
            Scenario::Turn {
                from,
                to,
                stars,
                after_sessions,
            } if session.number >= *after_sessions => {
                let sign = |genre| f64::from(u8::from(self.tastes.has_genre(movie, genre)));
                self.tastes.stars(user, movie) + stars * (sign(to) - sign(from))
            }
            _ => self.tastes.stars(user, movie),
        }
    }

    /// Chance that the user clicks the movie at `position` (from 0).
    #[must_use]
    pub fn click_chance(&self, session: &Session, movie: MovieId, position: usize) -> f64 {
        let examined = (position as f64 + 1.0).powf(-self.config.patience_loss);
        let wish = (self.stars(session, movie) - self.config.wanted_stars) / self.config.stars_per_logit;
        examined / (1.0 + (-wish).exp())
    }

    /// Clicks that a list may be expected to earn: the truth behind what [`Simulator::answer`] draws.
    #[must_use]
    pub fn expected_clicks(&self, session: &Session, list: &[MovieId]) -> f64 {
        list.iter()
            .enumerate()
            .map(|(at, &movie)| self.click_chance(session, movie, at))
            .sum()
    }

    /// What the user does about a list that was served at `served_ms`: impressions of what they examined, clicks, and
    /// ratings, in the order of time.
    pub fn answer(
        &mut self,
        session: &Session,
        request_id: &str,
        list: &[MovieId],
        served_ms: i64,
    ) -> Vec<Interaction> {
        let mut acts = Vec::new();
        let mut at_ms = served_ms;
        for (position, &movie) in list.iter().enumerate() {
            let examined = (position as f64 + 1.0).powf(-self.config.patience_loss);
            if self.rng.random::<f64>() >= examined {
                continue;
            }
            at_ms += self.config.pause_ms;
            acts.push(self.act(session, request_id, movie, Kind::Impression, None, at_ms));
            let wanted = self.click_chance(session, movie, position) / examined;
            if self.rng.random::<f64>() >= wanted {
                continue;
            }
            at_ms += self.config.pause_ms;
            acts.push(self.act(session, request_id, movie, Kind::Click, None, at_ms));
            if self.rng.random::<f64>() < self.config.rating_chance {
                at_ms += self.config.pause_ms;
                let stars = self.rated(self.stars(session, movie));
                acts.push(self.act(session, request_id, movie, Kind::Rating, Some(stars), at_ms));
            }
        }
        acts
    }

    fn act(
        &mut self,
        session: &Session,
        request_id: &str,
        movie: MovieId,
        kind: Kind,
        rating: Option<f32>,
        timestamp: i64,
    ) -> Interaction {
        self.events += 1;
        Interaction {
            schema_version: SchemaVersion,
            event_id: format!("{}/{}", session.session_id, self.events),
            user_id: session.user_id,
            movie_id: Some(movie),
            kind,
            rating,
            genres: Vec::new(),
            timestamp,
            session_id: Some(session.session_id.clone()),
            request_id: Some(request_id.to_owned()),
            source: Some("simulator".into()),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "between 0.5 and 5")]
fn half_stars(stars: f64) -> f32 {
    ((stars * 2.0).round() / 2.0).clamp(0.5, 5.0) as f32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use marquee_schemas::Record;

    use super::*;
    use crate::{SyntheticConfig, synthetic};

    fn dataset() -> Dataset {
        synthetic::generate(&SyntheticConfig {
            seed: 3,
            ..SyntheticConfig::default()
        })
        .unwrap()
    }

    fn simulator(dataset: &Dataset, scenario: Scenario) -> Simulator {
        let config = SimulatorConfig {
            users: 200,
            scenario,
            ..SimulatorConfig::default()
        };
        Simulator::fit(dataset, config).unwrap()
    }

    /// Lists of every tenth movie, to all that come; what they earned and what they should have.
    fn run(simulator: &mut Simulator, dataset: &Dataset, sessions: u64) -> (f64, f64, Vec<Interaction>) {
        let (mut clicks, mut expected, mut acts) = (0.0, 0.0, Vec::new());
        for n in 0..sessions {
            let session = simulator.next_session();
            let skip = usize::try_from(n % 10).unwrap();
            let list: Vec<MovieId> = dataset
                .movies
                .iter()
                .skip(skip)
                .step_by(10)
                .take(10)
                .map(|m| m.movie_id)
                .collect();
            expected += simulator.expected_clicks(&session, &list);
            let answer = simulator.answer(&session, "r", &list, 1_000);
            clicks += answer.iter().filter(|act| act.kind == Kind::Click).count() as f64;
            acts.extend(answer);
        }
        (clicks, expected, acts)
    }

    #[test]
    fn the_drawn_clicks_are_those_expected_and_every_act_is_valid_and_names_its_list() {
        let dataset = dataset();
        let mut simulator = simulator(&dataset, Scenario::Steady);
        let (clicks, expected, acts) = run(&mut simulator, &dataset, 4_000);
        // Clicks are a sum of independent draws whose variance is below their mean.
        assert!(
            (clicks - expected).abs() < 4.0 * expected.sqrt(),
            "{clicks} {expected}"
        );
        assert!(clicks > 200.0, "{clicks}");
        let ids: std::collections::HashSet<&str> = acts.iter().map(|act| act.event_id.as_str()).collect();
        assert_eq!(ids.len(), acts.len());
        for act in &acts {
            act.check().unwrap();
            assert_eq!(act.request_id.as_deref(), Some("r"));
        }
        assert!(acts.iter().any(|act| act.kind == Kind::Rating));
    }

    #[test]
    fn the_same_seed_gives_the_same_users_and_acts() {
        let dataset = dataset();
        let once = run(&mut simulator(&dataset, Scenario::Steady), &dataset, 50).2;
        assert_eq!(
            once,
            run(&mut simulator(&dataset, Scenario::Steady), &dataset, 50).2
        );
    }

    #[test]
    fn the_same_movie_is_clicked_less_the_further_down_it_stands() {
        let dataset = dataset();
        let mut simulator = simulator(&dataset, Scenario::Steady);
        let session = simulator.next_session();
        let movie = dataset.movies[0].movie_id;
        let chances: Vec<f64> = (0..5)
            .map(|at| simulator.click_chance(&session, movie, at))
            .collect();
        assert!(chances.windows(2).all(|pair| pair[1] < pair[0]), "{chances:?}");
        assert!((chances[3] / chances[0] - 4_f64.powf(-0.7)).abs() < 1e-12);
    }

    #[test]
    fn a_trend_lifts_its_genre_and_a_shift_changes_some_users_from_their_session_on() {
        let dataset = dataset();
        let genre = dataset.movies[0].genres[0].clone();
        let movie = dataset.movies[0].movie_id;
        let trend = Scenario::Trend {
            genre,
            stars: 1.0,
            after_sessions: 5,
        };
        let mut trending = simulator(&dataset, trend);
        let first = trending.next_session();
        let later = Session {
            number: 5,
            ..first.clone()
        };
        assert!(trending.click_chance(&later, movie, 0) > 1.5 * trending.click_chance(&first, movie, 0));

        let shifting = simulator(
            &dataset,
            Scenario::Shift {
                share: 0.5,
                after_sessions: 1,
            },
        );
        let of = |user: u64, number: u64| {
            let session = Session {
                user_id: UserId(SimulatorConfig::default().first_user_id + user),
                session_id: String::new(),
                lists: 1,
                number,
            };
            shifting.click_chance(&session, movie, 0)
        };
        let changed = (0..200).filter(|&user| of(user, 0) != of(user, 1)).count();
        assert!((90..=100).contains(&changed), "{changed}");
        assert_eq!(of(199, 0), of(199, 1));
    }

    #[test]
    fn a_turn_takes_from_one_genre_what_it_gives_to_another_and_may_come_at_any_time() {
        let dataset = dataset();
        let mut turning = simulator(&dataset, Scenario::Steady);
        let session = turning.next_session();
        let (from, to) = ("Drama".to_owned(), "Comedy".to_owned());
        let chances = |simulator: &Simulator| -> Vec<f64> {
            let movies = dataset.movies.iter();
            movies
                .map(|movie| simulator.click_chance(&session, movie.movie_id, 0))
                .collect()
        };
        let before = chances(&turning);
        let turn = Scenario::Turn {
            from: from.clone(),
            to: to.clone(),
            stars: 1.0,
            after_sessions: 0,
        };
        turning.change(turn).unwrap();
        for ((movie, before), after) in dataset.movies.iter().zip(before).zip(chances(&turning)) {
            let has = |genre| movie.genres.contains(genre);
            match (has(&from), has(&to)) {
                (true, false) => assert!(after < before),
                (false, true) => assert!(after > before),
                _ => assert!((after - before).abs() < 1e-12),
            }
        }
        turning.change("trend:Nonsense:1:0".parse().unwrap()).unwrap_err();
    }

    #[test]
    fn the_past_is_a_real_users_rated_by_the_simulated_users_taste() {
        let dataset = dataset();
        let past = simulator(&dataset, Scenario::Steady).past(&dataset, 7);
        let mut of_user: BTreeMap<UserId, Vec<MovieId>> = BTreeMap::new();
        for rating in &past {
            of_user.entry(rating.user_id).or_default().push(rating.movie_id);
        }
        assert_eq!(of_user.len(), 200);
        assert!(of_user.values().all(|movies| (1..=7).contains(&movies.len())));
        let mut real: BTreeMap<UserId, BTreeSet<MovieId>> = BTreeMap::new();
        for rating in &dataset.ratings {
            real.entry(rating.user_id).or_default().insert(rating.movie_id);
        }
        for movies in of_user.values() {
            let is_theirs = |seen: &BTreeSet<MovieId>| movies.iter().all(|movie| seen.contains(movie));
            assert!(real.values().any(is_theirs), "{movies:?}");
        }
        assert!(
            past.windows(2)
                .all(|pair| pair[0].timestamp_ms <= pair[1].timestamp_ms)
        );
    }

    #[test]
    fn scenarios_are_read_and_settings_out_of_their_domain_refused() {
        assert_eq!("steady".parse(), Ok(Scenario::Steady));
        assert_eq!(
            "shift:0.5:100".parse(),
            Ok(Scenario::Shift {
                share: 0.5,
                after_sessions: 100
            })
        );
        assert!(matches!(
            "turn:Drama:Horror:2:9".parse(),
            Ok(Scenario::Turn { .. })
        ));
        assert!("trend:Drama".parse::<Scenario>().is_err());
        let dataset = dataset();
        for config in [
            SimulatorConfig {
                users: 0,
                ..SimulatorConfig::default()
            },
            SimulatorConfig {
                mean_lists: 0.5,
                ..SimulatorConfig::default()
            },
            SimulatorConfig {
                rating_chance: 1.5,
                ..SimulatorConfig::default()
            },
            SimulatorConfig {
                scenario: "trend:Nonsense:1:0".parse().unwrap(),
                ..SimulatorConfig::default()
            },
        ] {
            assert!(matches!(Simulator::fit(&dataset, config), Err(Error::Config(_))));
        }
    }
}
