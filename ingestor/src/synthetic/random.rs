//! The few distributions that are needed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// An independent generator per thing, so that changing the number of one kind leaves the others alone.
pub(super) fn stream(seed: u64, stream: u64) -> ChaCha12Rng {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Uniform in (0, 1]: its logarithm is finite.
pub(super) fn unit(rng: &mut ChaCha12Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

/// Standard normal (Box and Muller 1958).
pub(super) fn normal(rng: &mut ChaCha12Rng) -> f64 {
    let radius = (-2.0 * unit(rng).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(rng)).cos()
}

/// Exponential with this mean.
pub(super) fn exponential(rng: &mut ChaCha12Rng, mean: f64) -> f64 {
    -mean * unit(rng).ln()
}

/// Standard Gumbel: the largest of `log weight + gumbel` is a draw with these weights.
pub(super) fn gumbel(rng: &mut ChaCha12Rng) -> f64 {
    // The bound keeps the outer logarithm finite where the inner one is zero.
    -(-unit(rng).ln()).max(f64::MIN_POSITIVE).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distributions_have_their_moments() {
        let mut rng = stream(7, 0);
        let n = 20_000;
        let mut sums = [0.0; 4];
        for _ in 0..n {
            let z = normal(&mut rng);
            sums[0] += z;
            sums[1] += z * z;
            sums[2] += exponential(&mut rng, 3.0);
            sums[3] += gumbel(&mut rng);
        }
        let [mean, square, exponential, gumbel] = sums.map(|sum| sum / f64::from(n));
        assert!(
            mean.abs() < 0.03 && (square - 1.0).abs() < 0.05,
            "{mean} {square}"
        );
        assert!((exponential - 3.0).abs() < 0.1, "{exponential}");
        // The Euler-Mascheroni constant.
        assert!((gumbel - 0.577).abs() < 0.04, "{gumbel}");
    }
}
