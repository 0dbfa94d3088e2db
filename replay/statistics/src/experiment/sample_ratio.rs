//! Whether the arms have the sizes that the assignment meant them to have.
//!
//! An experiment whose arms are of the wrong size lost users on the way, and not by chance (Fabijan et al. 2019): no
//! metric of it means anything. The check is looked at as often as the metrics are, so beside Pearson's χ² for one look
//! there is the sequential test of Lindon and Malek (*Anytime-Valid Inference for Multinomial Count Data*, 2022): the
//! Bayes factor of a Dirichlet prior around the intended shares against these shares, a nonnegative martingale with
//! mean 1 if they are true.

use statrs::distribution::{ChiSquared, ContinuousCDF};
use statrs::function::gamma::ln_gamma;

/// Users that the Dirichlet prior is worth: the larger, the sharper for small deviations and the duller for large ones.
const CONCENTRATION: f64 = 100.0;

/// The check of one experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRatio {
    intended: Vec<f64>,
    p: f64,
}

impl SampleRatio {
    /// A check against these shares, which are brought to a sum of 1. `None` with fewer than two arms or a share that
    /// is not above 0.
    #[must_use]
    pub fn new(shares: &[f64]) -> Option<Self> {
        let total: f64 = shares.iter().sum();
        let usable = shares.len() >= 2 && shares.iter().all(|share| *share > 0.0 && share.is_finite());
        usable.then(|| Self {
            intended: shares.iter().map(|share| share / total).collect(),
            p: 1.0,
        })
    }

    /// Takes one more look at the arms' users; the p-value is valid at all looks together. Counts beyond the intended
    /// arms are not looked at.
    pub fn look(&mut self, users: &[u64]) -> f64 {
        let prior: Vec<f64> = self.intended.iter().map(|share| share * CONCENTRATION).collect();
        let counts: Vec<f64> = (0..prior.len())
            .map(|arm| users.get(arm).copied().unwrap_or(0) as f64)
            .collect();
        let n: f64 = counts.iter().sum();
        let log_factor = ln_gamma(CONCENTRATION) - ln_gamma(CONCENTRATION + n)
            + counts
                .iter()
                .zip(&prior)
                .zip(&self.intended)
                .map(|((count, prior), share)| {
                    ln_gamma(prior + count) - ln_gamma(*prior) - count * share.ln()
                })
                .sum::<f64>();
        self.p = self.p.min((-log_factor).exp());
        self.p
    }

    /// Pearson's test at this one look: the probability of counts at least as far from the intended ones.
    #[must_use]
    pub fn pearson(&self, users: &[u64]) -> f64 {
        let n: f64 = users.iter().map(|&count| count as f64).sum();
        if n == 0.0 {
            return 1.0;
        }
        let statistic: f64 = self
            .intended
            .iter()
            .enumerate()
            .map(|(arm, share)| {
                let count = users.get(arm).copied().unwrap_or(0) as f64;
                (count - n * share).powi(2) / (n * share)
            })
            .sum();
        let freedom = (self.intended.len() - 1) as f64;
        ChiSquared::new(freedom).map_or(1.0, |chi| chi.sf(statistic))
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn pearsons_test_is_that_of_the_textbook() {
        // 821,588 against 815,482 users (Fabijan et al. 2019): p = 1.8e-6.
        let check = SampleRatio::new(&[1.0, 1.0]).unwrap();
        let p = check.pearson(&[821_588, 815_482]);
        assert!((1.7e-6..1.9e-6).contains(&p), "{p}");
    }

    #[test]
    fn the_bayes_factor_of_one_user_is_the_prior_mean_over_the_intended_share() {
        // The prior's mean is the intended share, so one user says nothing; two in one arm say (51/101)/(1/2).
        let mut check = SampleRatio::new(&[1.0, 1.0]).unwrap();
        assert!((check.look(&[1, 0]) - 1.0).abs() < 1e-9);
        assert!((check.look(&[2, 0]) - 0.5 * 101.0 / 51.0).abs() < 1e-9);
    }

    #[test]
    fn true_shares_are_seldom_doubted_however_often_one_looks_and_lost_users_are_noticed() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut alarms = 0;
        for _ in 0..400 {
            let mut check = SampleRatio::new(&[0.9, 0.1]).unwrap();
            let mut counts = [0, 0];
            let doubted = (0..3_000).any(|_| {
                counts[usize::from(rng.random::<f64>() < 0.1)] += 1;
                check.look(&counts) < 0.05
            });
            alarms += u32::from(doubted);
        }
        // 5% of 400 is 20; 33 lies three standard deviations above.
        assert!(alarms <= 33, "{alarms} of 400");

        let mut check = SampleRatio::new(&[1.0, 1.0]).unwrap();
        let mut counts = [0, 0];
        let noticed = (0..40_000).any(|_| {
            counts[usize::from(rng.random::<f64>() < 0.47)] += 1;
            check.look(&counts) < 0.001
        });
        assert!(noticed);
    }

    #[test]
    fn one_arm_and_empty_shares_are_refused() {
        assert_eq!(SampleRatio::new(&[1.0]), None);
        assert_eq!(SampleRatio::new(&[1.0, 0.0]), None);
    }
}
