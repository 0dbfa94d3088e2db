//! Experiments whose truth is known, looked at after every hour.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const HOURS: u32 = 14 * 24;

/// Two weeks of users who come back, click more or less throughout, and were seen before the experiment. Returns the
/// hour of the decision.
fn run(seed: u64, lift: f64, lists_per_hour: u32) -> Option<(u32, Decision)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut arms = [Arm::default(), Arm::default()];
    let mut users: Vec<(usize, f64, UserTotals)> = Vec::new();
    // Sharpest for a change of a tenth of a click rate of 0.15.
    let mut sequential = Sequential::new(0.05, (0.015_f64 / 3.0).powi(2), 100.0);
    for hour in 0..HOURS {
        for _ in 0..lists_per_hour {
            // Half of the lists go to users who were here before.
            let at = if users.is_empty() || rng.random::<f64>() < 0.5 {
                let arm = usize::from(rng.random::<f64>() < 0.5);
                let taste: f64 = rng.random_range(0.03..0.27);
                let before = (0..20).filter(|_| rng.random::<f64>() < taste).count();
                let totals = UserTotals {
                    covariate: before as f64 / 20.0,
                    ..UserTotals::default()
                };
                arms[arm].insert(totals);
                users.push((arm, taste, totals));
                users.len() - 1
            } else {
                rng.random_range(0..users.len())
            };
            let (arm, taste, totals) = &mut users[at];
            let rate = *taste * if *arm == 1 { 1.0 + lift } else { 1.0 };
            let before = *totals;
            totals.denominator += 1.0;
            totals.numerator += f64::from(u8::from(rng.random::<f64>() < rate));
            arms[*arm].update(before, *totals);
        }
        if let Some(comparison) = compare(&arms[0], &arms[1], Covariate::Adjusted) {
            let look = sequential.look(&comparison, (arms[0].users(), arms[1].users()));
            if look.decision != Decision::Undecided {
                return Some((hour + 1, look.decision));
            }
        }
    }
    None
}

#[test]
fn an_experiment_without_an_effect_seldom_has_a_winner_however_often_one_looks() {
    let seeds = 2_000;
    let false_winners = (0..seeds).filter(|&seed| run(seed, 0.0, 24).is_some()).count();
    println!("{false_winners} false winners in {seeds} null experiments with {HOURS} hourly looks each");
    assert!(false_winners <= 100, "{false_winners}");
}

#[test]
fn a_variant_that_is_better_by_a_tenth_is_found_and_not_mistaken() {
    let (seeds, lists_per_hour) = (200, 400);
    let outcomes: Vec<(u32, Decision)> = (0..seeds)
        .filter_map(|seed| run(50_000 + seed, 0.1, lists_per_hour))
        .collect();
    assert!(outcomes.iter().all(|outcome| outcome.1 == Decision::Better));
    let mut hours: Vec<u32> = outcomes.iter().map(|outcome| outcome.0).collect();
    hours.sort_unstable();
    println!(
        "+10% at {lists_per_hour} lists an hour: {} of {seeds} found within {HOURS} hours, median time to decision {} hours",
        hours.len(),
        hours[hours.len() / 2]
    );
    assert!(hours.len() >= 190, "{}", hours.len());
}
