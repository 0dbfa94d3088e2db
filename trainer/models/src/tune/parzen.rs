//! Drawing the next point.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Dimension, Trial};

/// Trials drawn at random before the estimator speaks.
const RANDOM_TRIALS: usize = 12;
/// Share of the trials that count as good.
const GOOD: f64 = 0.25;
/// Points drawn from the good density, of which the most promising is taken.
const DRAWS: usize = 24;

pub(super) fn propose(space: &[Dimension], before: &[Trial], index: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index as u64);
    let mut known: Vec<&Trial> = before
        .iter()
        .filter(|trial| trial.index < index && trial.value.is_finite() && trial.point.len() == space.len())
        .collect();
    if known.len() < RANDOM_TRIALS {
        return space
            .iter()
            .map(|dimension| dimension.at_unit(rng.random()))
            .collect();
    }
    known.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.index.cmp(&b.index)));
    let (good, bad) = known.split_at(((known.len() as f64 * GOOD).ceil() as usize).clamp(2, known.len() - 1));
    space
        .iter()
        .enumerate()
        .map(|(place, dimension)| {
            let density = |trials: &[&Trial]| {
                Parzen::new(
                    trials
                        .iter()
                        .map(|trial| dimension.unit_of(trial.point[place]))
                        .collect(),
                )
            };
            let (good, bad) = (density(good), density(bad));
            let mut best = (f64::NEG_INFINITY, 0.5);
            for _ in 0..DRAWS {
                let unit = good.draw(&mut rng);
                let promise = good.density(unit).ln() - bad.density(unit).ln();
                if promise > best.0 {
                    best = (promise, unit);
                }
            }
            dimension.at_unit(best.1)
        })
        .collect()
}

/// A mixture of Gaussians around points of the unit interval, and of the uniform density.
struct Parzen {
    centres: Vec<f64>,
    width: f64,
}

impl Parzen {
    fn new(centres: Vec<f64>) -> Self {
        // Narrower as points come in, but never so narrow that a gap is never looked into.
        let width = (centres.len() as f64).powf(-0.5).clamp(0.05, 0.5);
        Self { centres, width }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> f64 {
        let place = rng.random_range(0..=self.centres.len());
        let Some(&centre) = self.centres.get(place) else {
            return rng.random();
        };
        let unit = centre + self.width * gaussian(rng);
        // Reflected at the ends of the range.
        let folded = unit.rem_euclid(2.0);
        if folded > 1.0 { 2.0 - folded } else { folded }
    }

    fn density(&self, unit: f64) -> f64 {
        let bell = |distance: f64| {
            (-0.5 * (distance / self.width).powi(2)).exp() / (self.width * std::f64::consts::TAU.sqrt())
        };
        let sum: f64 = self
            .centres
            .iter()
            // A centre's images behind the two ends carry what the reflection folds back.
            .map(|&centre| bell(unit - centre) + bell(unit + centre) + bell(2.0 - unit - centre))
            .sum();
        (sum + 1.0) / (self.centres.len() + 1) as f64
    }
}

/// A standard normal number (Box and Muller 1958).
fn gaussian(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}
