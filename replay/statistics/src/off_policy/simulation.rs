//! The estimators against a world whose truth is known.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const CANDIDATES: usize = 8;
const K: usize = 3;
const TYPES: usize = 6;
const EXAMINED: [f64; K] = [0.9, 0.6, 0.4];

/// Users of a few types; a user clicks what they examine (less and less down the list) and like. The logging policy
/// thinks little of what the target thinks highly of, so taking the log at face value misleads.
struct World {
    logging: Vec<PlackettLuce>,
    target: Vec<PlackettLuce>,
    attraction: Vec<Vec<f64>>,
    /// Per type, candidate and position: marginals under (logging, target).
    marginals: Vec<Vec<[(f64, f64); K]>>,
    truth: f64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = Self {
            logging: Vec::new(),
            target: Vec::new(),
            attraction: Vec::new(),
            marginals: Vec::new(),
            truth: 0.0,
        };
        for _ in 0..TYPES {
            let attraction: Vec<f64> = (0..CANDIDATES)
                .map(|_| 0.05 + 0.5 * rng.random::<f64>())
                .collect();
            let scores = |sign: f64, rng: &mut ChaCha8Rng| -> Vec<f64> {
                attraction
                    .iter()
                    .map(|a| sign * 2.0 * a + 0.3 * rng.random::<f64>())
                    .collect()
            };
            let logging = PlackettLuce::new(&scores(-0.5, &mut rng), 1.0).unwrap();
            let target = PlackettLuce::new(&scores(1.0, &mut rng), 1.0).unwrap();
            let marginals: Vec<[(f64, f64); K]> = (0..CANDIDATES)
                .map(|c| std::array::from_fn(|k| (logging.marginal(c, k), target.marginal(c, k))))
                .collect();
            world.truth += (0..CANDIDATES)
                .flat_map(|c| (0..K).map(move |k| (c, k)))
                .map(|(c, k)| marginals[c][k].1 * EXAMINED[k] * attraction[c])
                .sum::<f64>()
                / TYPES as f64;
            world.logging.push(logging);
            world.target.push(target);
            world.attraction.push(attraction);
            world.marginals.push(marginals);
        }
        world
    }

    /// A log of `users` users with one to eight lists each; some users click more than others throughout.
    fn log(&self, users: u64, rng: &mut ChaCha8Rng) -> Vec<LoggedList> {
        let mut shown = Vec::new();
        for user in 0..users {
            let of_type = rng.random_range(0..TYPES);
            let keenness = rng.random_range(0.5..1.5);
            for _ in 0..rng.random_range(1..=8) {
                let list = self.logging[of_type].sample(K, rng);
                let clicks: Vec<f64> = list
                    .iter()
                    .zip(EXAMINED)
                    .map(|(&c, examined)| {
                        let p = keenness * examined * self.attraction[of_type][c];
                        f64::from(u8::from(rng.random::<f64>() < p))
                    })
                    .collect();
                shown.push((user, of_type, list, clicks));
            }
        }
        // Cross-fitted by halves of users.
        let model = |half: u64| {
            let movie = |of_type: usize, c: usize| u32::try_from(of_type * CANDIDATES + c).unwrap();
            RewardModel::fit(
                shown
                    .iter()
                    .filter(move |row| row.0 % 2 == half)
                    .flat_map(move |row| (0..K).map(move |k| (k, movie(row.1, row.2[k]), row.3[k]))),
            )
        };
        let models = [model(1), model(0)];
        shown
            .iter()
            .map(|(user, of_type, list, clicks)| {
                let model = &models[usize::try_from(user % 2).unwrap()];
                let predict =
                    |k: usize, c: usize| model.predict(k, u32::try_from(of_type * CANDIDATES + c).unwrap());
                let logging = self.logging[*of_type].conditionals(list);
                let target = self.target[*of_type].conditionals(list);
                LoggedList {
                    cluster: *user,
                    slots: (0..K)
                        .map(|k| Slot {
                            logging: logging[k],
                            target: target[k],
                            marginals: Some(self.marginals[*of_type][list[k]][k]),
                            reward: clicks[k],
                            predicted: predict(k, list[k]),
                        })
                        .collect(),
                    direct: (0..CANDIDATES)
                        .flat_map(|c| (0..K).map(move |k| (c, k)))
                        .map(|(c, k)| self.marginals[*of_type][c][k].1 * predict(k, c))
                        .sum(),
                    support: 1.0,
                }
            })
            .collect()
    }
}

#[test]
fn intervals_cover_the_truth_where_the_naive_estimate_misses_it() {
    let world = World::new(11);
    let seeds = 200;
    let estimators = Estimator::all(10.0);
    let mut covered = [0; 6];
    let mut errors = [0.0; 6];
    let (mut naive_covered, mut naive_error) = (0, 0.0);
    for seed in 0..seeds {
        let log = world.log(600, &mut ChaCha8Rng::seed_from_u64(1_000 + seed));
        for (at, &estimator) in estimators.iter().enumerate() {
            let got = estimate(estimator, &log, Floors::default()).unwrap();
            covered[at] += u32::from((got.interval.0..=got.interval.1).contains(&world.truth));
            errors[at] += (got.value - world.truth).powi(2);
        }
        let got = naive(&log).unwrap();
        naive_covered += u32::from((got.interval.0..=got.interval.1).contains(&world.truth));
        naive_error += (got.value - world.truth).powi(2);
    }
    let root = |sum: f64| (sum / f64::from(u32::try_from(seeds).unwrap())).sqrt();
    println!(
        "truth {:.4}; of {seeds} intervals cover it, root mean squared error:",
        world.truth
    );
    println!("  {:<30} {naive_covered:>4}  {:.4}", "naive", root(naive_error));
    for ((estimator, covered), error) in estimators.iter().zip(covered).zip(errors) {
        println!("  {:<30} {covered:>4}  {:.4}", estimator.to_string(), root(error));
        assert!(covered >= 180, "{estimator}: {covered} of {seeds}");
        assert!(root(error) < root(naive_error), "{estimator}");
    }
    assert!(naive_covered <= 20, "naive: {naive_covered}");
    // What the assumption of the slate estimators buys.
    assert!(errors[4] < errors[0] && errors[5] < errors[0]);
}
