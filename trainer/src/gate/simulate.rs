//! How often the gate errs, by simulation.
//!
//! A [`World`] makes the scorecards of two models whose true difference is known. Each held-out positive has a rank
//! under either model, log-normal around the user's and the event's own difficulty, which both models share; what they
//! do not share is noise per event and taste per user. The better model's ranks are lower by a constant factor that
//! raises the expected NDCG@10 by the wanted gain. The defaults are chosen after ml-100k: models served there have
//! NDCG@10 near 0.12 and HR@10 near 0.22, and activity is as uneven. How much two neighbouring models differ per event
//! is an assumption; the rates hold for worlds no noisier than this one.
//!
//! Evaluations follow one another as retrainings do: while the champion stays, the interactions that it has not
//! learned from accumulate, so that the second evaluation has twice the evidence of the first.

use std::collections::BTreeMap;

use marquee_models::metrics::{hit, list_metrics, reciprocal_rank, single_ndcg};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{GateConfig, decide};
use crate::evaluate::{METRICS, Panel, Scorecard, UserFigures};

/// Evaluations that a better model gets.
pub const EVALUATIONS: usize = 3;
/// Movies of the catalogue: no rank lies beyond.
const MOVIES: f64 = 1_682.0;
/// Most new positives of a warm user at one cutoff.
const LIST: usize = 12;

/// Where the two models compete.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct World {
    /// Users met in the first evaluation.
    pub users: usize,
    /// Positives in the first evaluation.
    pub events: usize,
    /// Share of the users that are warm and get lists too.
    pub warm_share: f64,
    /// Mean of the logarithm of a rank (from 1).
    pub log_rank: f64,
    /// Standard deviation of the logarithm between users.
    pub between_users: f64,
    /// Between events of one user.
    pub between_events: f64,
    /// Between the two models on one event.
    pub between_models: f64,
    /// Between the two models on all events of one user.
    pub taste: f64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            users: 90,
            events: 2_700,
            warm_share: 0.4,
            log_rank: 4.0,
            between_users: 0.6,
            between_events: 1.9,
            between_models: 0.5,
            taste: 0.1,
        }
    }
}

/// How often the gate promoted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rates {
    /// Simulated pairs of models of each kind.
    pub seeds: u64,
    /// True relative gain of the better ones.
    pub gain: f64,
    /// Share of the equal models that were promoted in one evaluation.
    pub equal_promoted: f64,
    /// Share of the better models that were promoted in the first, in the first two, and in all [`EVALUATIONS`].
    pub better_promoted_within: [f64; EVALUATIONS],
    /// Mean standard error of the joint relative gain in the first evaluation, from its interval.
    pub first_standard_error: f64,
}

/// Simulates `seeds` equal and as many better challengers. `progress` hears of each finished seed.
#[must_use]
pub fn simulate(
    world: &World,
    gain: f64,
    seeds: u64,
    config: &GateConfig,
    mut progress: impl FnMut(u64),
) -> Rates {
    let advantage = world.advantage(gain);
    let mut equal_promoted = 0;
    let mut within = [0_u64; EVALUATIONS];
    let mut errors = 0.0;
    for seed in 0..seeds {
        let (ours, theirs) = world.exam(0.0, 1, seed);
        let decision = decide(&ours, Some(&theirs), config, seed);
        equal_promoted += u64::from(decision.promoted);
        if let (Some(lo), Some(hi)) = (decision.numbers.get("gain_lo"), decision.numbers.get("gain_hi")) {
            errors += (hi - lo) / (2.0 * 1.96);
        }
        for (evaluation, count) in within.iter_mut().enumerate() {
            // Another stream than the equal models'.
            let own_seed = (seeds + seed) * EVALUATIONS as u64 + evaluation as u64;
            let (ours, theirs) = world.exam(advantage, evaluation + 1, own_seed);
            if decide(&ours, Some(&theirs), config, own_seed).promoted {
                *count += 1;
                break;
            }
        }
        progress(seed);
    }
    let share = |count: u64| count as f64 / seeds.max(1) as f64;
    let mut sum = 0;
    Rates {
        seeds,
        gain,
        equal_promoted: share(equal_promoted),
        better_promoted_within: within.map(|count| {
            sum += count;
            share(sum)
        }),
        first_standard_error: errors / seeds.max(1) as f64,
    }
}

/// The two models' ranks of one event, from 0.
type Ranks = (f64, f64);

impl World {
    /// How much lower the better model's log-ranks are, for a true relative gain in NDCG@10.
    fn advantage(&self, gain: f64) -> f64 {
        let expected = |advantage: f64| {
            // The same numbers for every advantage, so that bisection sees a smooth function.
            let mut rng = ChaCha8Rng::seed_from_u64(0x6761_7465);
            (0..200_000)
                .map(|_| {
                    let user = self.between_users * normal(&mut rng);
                    single_ndcg(
                        self.ranks(user, self.taste * normal(&mut rng), advantage, &mut rng)
                            .0,
                        10,
                    )
                })
                .sum::<f64>()
        };
        let target = expected(0.0) * (1.0 + gain);
        let (mut low, mut high) = (0.0, 3.0);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if expected(middle) < target {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high)
    }

    fn ranks(&self, user: f64, taste: f64, advantage: f64, rng: &mut ChaCha8Rng) -> Ranks {
        let event = self.log_rank + user + self.between_events * normal(rng);
        let mut rank = |shift: f64| {
            let log = event + self.between_models * normal(rng) + shift;
            (log.exp().floor() - 1.0).clamp(0.0, MOVIES)
        };
        // The pair of models is symmetric but for the advantage.
        (rank(taste - advantage), rank(-taste))
    }

    /// Both models' scorecards of the `evaluation`-th evaluation, from 1.
    fn exam(&self, advantage: f64, evaluation: usize, seed: u64) -> (Scorecard, Scorecard) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let users = self.users * evaluation;
        let mean_events = self.events as f64 / self.users as f64;
        let (mut ours, mut theirs) = (Scorecard::default(), Scorecard::default());
        for user in 0..users as u32 {
            // Log-normal activity with a coefficient of variation near 1.3, as on ml-100k.
            let activity = (normal(&mut rng) - 0.5).exp() * mean_events;
            let difficulty = self.between_users * normal(&mut rng);
            let taste = self.taste * normal(&mut rng);
            let ranks: Vec<Ranks> = (0..activity.round().max(1.0) as usize)
                .map(|_| self.ranks(difficulty, taste, advantage, &mut rng))
                .collect();
            let warm = rng.random::<f64>() < self.warm_share;
            add(&mut ours, user, warm, ranks.iter().map(|ranks| ranks.0));
            add(&mut theirs, user, warm, ranks.iter().map(|ranks| ranks.1));
        }
        for card in [&mut ours, &mut theirs] {
            card.fixed.coverage = Some(0.6);
        }
        (ours, theirs)
    }
}

fn add(card: &mut Scorecard, user: u32, warm: bool, ranks: impl Iterator<Item = f64> + Clone) {
    let mut stream = UserFigures {
        user,
        cases: 0,
        sums: [0.0; METRICS.len()],
    };
    for rank in ranks.clone() {
        stream.cases += 1;
        stream.sums[0] += single_ndcg(rank, 10);
        stream.sums[1] += hit(rank, 10);
        stream.sums[2] += reciprocal_rank(rank);
    }
    card.stream.users.push(stream);
    if warm {
        push_list(&mut card.fixed, user, ranks.take(LIST));
    }
}

/// One static list with these movies at these ranks; of two movies at one rank the later moves down.
fn push_list(panel: &mut Panel, user: u32, ranks: impl Iterator<Item = f64>) {
    let mut places: BTreeMap<u32, ()> = BTreeMap::new();
    for rank in ranks {
        let mut place = rank as u32;
        while places.insert(place, ()).is_some() {
            place += 1;
        }
    }
    // Movie n stands at rank n, so the truth are the places themselves.
    let truth: Vec<u32> = places.into_keys().collect();
    let ranked: Vec<u32> = (0..20).collect();
    let (Some(ten), Some(twenty)) = (
        list_metrics(&ranked, &truth, 10),
        list_metrics(&ranked, &truth, 20),
    ) else {
        return;
    };
    panel.users.push(UserFigures {
        user,
        cases: 1,
        sums: [
            ten.ndcg,
            ten.hit,
            truth
                .first()
                .map_or(0.0, |&first| reciprocal_rank(f64::from(first))),
            ten.precision,
            ten.recall,
            twenty.recall,
            ten.average_precision,
        ],
    });
}

/// A standard normal number (Box, Muller: "A Note on the Generation of Random Normal Deviates", 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_looks_like_the_data_it_is_fitted_to() {
        let (card, _) = World::default().exam(0.0, 3, 1);
        let metrics = card.metrics();
        assert!(
            (0.09..0.15).contains(&metrics["prequential_ndcg@10"]),
            "{metrics:?}"
        );
        assert!(
            (0.17..0.27).contains(&metrics["prequential_hr@10"]),
            "{metrics:?}"
        );
        assert!((0.15..0.35).contains(&metrics["ndcg@10"]), "{metrics:?}");
    }

    #[test]
    fn equal_models_seldom_pass_and_a_better_one_soon_does() {
        let config = GateConfig {
            bootstrap_draws: 300,
            ..GateConfig::default()
        };
        let rates = simulate(&World::default(), 0.05, 60, &config, |_| {});
        println!("{rates:?}");
        // Bounds for sixty seeds: at a true rate of 5% more than eight of sixty have probability below 0.2%; at a true
        // rate of 80% fewer than thirty-nine likewise.
        assert!(rates.equal_promoted <= 8.0 / 60.0, "{rates:?}");
        assert!(
            rates.better_promoted_within[EVALUATIONS - 1] >= 39.0 / 60.0,
            "{rates:?}"
        );
    }

    #[test]
    fn a_much_worse_model_never_passes() {
        let world = World::default();
        let config = GateConfig {
            bootstrap_draws: 200,
            ..GateConfig::default()
        };
        let advantage = world.advantage(0.3);
        for seed in 0..20 {
            let (better, worse) = world.exam(advantage, 2, seed);
            assert!(!decide(&worse, Some(&better), &config, seed).promoted);
        }
    }
}
