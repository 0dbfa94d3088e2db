//! Two rankers compared inside one list.
//!
//! Team-draft interleaving (Radlinski, Kurup and Joachims 2008): in each round a coin decides which ranker picks first,
//! each picks its best movie that is not in the list yet, and a click counts for the ranker that picked the movie. One
//! user sees both rankers at once, so that far fewer users are needed than when they are split. It says which ranker is
//! preferred, not by how many clicks.

use rand::{Rng, RngExt};

use crate::experiment::{Arm, Comparison, Decision, Look, Sequential, UserTotals};

/// Which ranker picked a movie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Team {
    /// The first ranker.
    A,
    /// The second ranker.
    B,
}

/// The first `k` positions of a list made of both rankings, and who picked them.
pub fn team_draft<T: PartialEq + Copy>(a: &[T], b: &[T], k: usize, rng: &mut impl Rng) -> Vec<(T, Team)> {
    let mut list: Vec<(T, Team)> = Vec::with_capacity(k);
    while list.len() < k {
        let order = if rng.random::<bool>() {
            [(Team::A, a), (Team::B, b)]
        } else {
            [(Team::B, b), (Team::A, a)]
        };
        let before = list.len();
        for (team, ranking) in order {
            let next = ranking
                .iter()
                .find(|movie| list.iter().all(|(taken, _)| taken != *movie));
            if let Some(&movie) = next.filter(|_| list.len() < k) {
                list.push((movie, team));
            }
        }
        if list.len() == before {
            break;
        }
    }
    list
}

/// Which ranker users prefer, looked at as often as one likes.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    users: Arm,
    sequential: Sequential,
}

impl Preference {
    /// No user yet. `planned_users` is where the test is sharpest, `least_users` where it begins.
    #[must_use]
    pub fn new(alpha: f64, planned_users: f64, least_users: f64) -> Self {
        Self {
            users: Arm::default(),
            // A user's preference lies between -1 and 1.
            sequential: Sequential::new(alpha, 0.5 / planned_users.max(1.0), least_users),
        }
    }

    /// Adds a user by their clicks on each ranker's movies: +1, 0 or -1, so that who clicks much decides no more than
    /// others.
    pub fn insert(&mut self, on_a: u64, on_b: u64) {
        self.users.insert(UserTotals {
            numerator: match on_b.cmp(&on_a) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.0,
                std::cmp::Ordering::Less => -1.0,
            },
            denominator: 1.0,
            covariate: 0.0,
        });
    }

    /// Users so far.
    #[must_use]
    pub fn users(&self) -> f64 {
        self.users.users()
    }

    /// Looks at the mean preference for B: [`Decision::Better`] says that B is preferred. `None` without two users.
    pub fn look(&mut self) -> Option<Look> {
        let value = self.users.ratio()?;
        let variance = self.users.ratio_variance()?;
        let comparison = Comparison {
            control: 0.0,
            treatment: value,
            difference: value,
            variance,
            variance_removed: 0.0,
        };
        Some(self.sequential.look(&comparison, (self.users(), self.users())))
    }

    /// What the looks so far allow.
    #[must_use]
    pub fn decision(&mut self) -> Decision {
        self.look().map_or(Decision::Undecided, |look| look.decision)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_list_holds_each_movie_once_and_both_rankers_pick_equally_often() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (a, b) = ([1, 2, 3, 4, 5], [3, 1, 6, 7, 8]);
        let mut first = [0_u32; 2];
        for _ in 0..2_000 {
            let list = team_draft(&a, &b, 4, &mut rng);
            assert_eq!(list.len(), 4);
            let mut movies: Vec<i32> = list.iter().map(|pick| pick.0).collect();
            movies.sort_unstable();
            movies.dedup();
            assert_eq!(movies.len(), 4);
            assert_eq!(list.iter().filter(|pick| pick.1 == Team::A).count(), 2);
            first[usize::from(list[0].1 == Team::B)] += 1;
        }
        assert!(first[0].abs_diff(first[1]) < 200, "{first:?}");
        assert_eq!(team_draft(&[1], &[1], 5, &mut rng).len(), 1);
        assert_eq!(team_draft::<u8>(&[], &[], 5, &mut rng), []);
        assert_eq!(team_draft(&[1, 2], &[], 5, &mut rng).len(), 2);
    }

    /// Share of seeds in which a difference was found, with `b` more likely to be clicked than `a` by `lift`.
    fn found(lift: f64, seeds: u64) -> (u32, u32) {
        let (mut better, mut worse) = (0, 0);
        for seed in 0..seeds {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut preference = Preference::new(0.05, 500.0, 50.0);
            let decision = (0..1_000).map(|_| {
                let mut clicks = |rate: f64| (0..5).filter(|_| rng.random::<f64>() < rate).count() as u64;
                let (on_a, on_b) = (clicks(0.2), clicks(0.2 * (1.0 + lift)));
                preference.insert(on_a, on_b);
                preference.decision()
            });
            match decision
                .into_iter()
                .find(|decision| *decision != Decision::Undecided)
            {
                Some(Decision::Better) => better += 1,
                Some(_) => worse += 1,
                None => {}
            }
        }
        (better, worse)
    }

    #[test]
    fn a_preferred_ranker_is_found_and_equal_ones_are_seldom_told_apart() {
        let (better, worse) = found(0.0, 400);
        // 5% of 400 is 20; 33 lies three standard deviations above.
        assert!(better + worse <= 33, "{better} and {worse}");
        let (better, worse) = found(0.5, 100);
        assert!(better >= 95 && worse == 0, "{better} and {worse}");
    }
}
