//! Looking as often as one likes.
//!
//! Let `D` be the difference at a look and `s²` its variance. Under no effect the likelihood ratio of an effect drawn
//! from `N(0, τ²)` against none is
//!
//! ```text
//! Λ = √(s² / (s² + τ²)) · exp( τ² D² / (2 s² (s² + τ²)) )
//! ```
//!
//! (Robbins 1970; the mixture SPRT of Johari, Pekelis and Walsh, *Always Valid Inference*, with `s² = V/n`). Along the
//! experiment `Λ` is asymptotically a nonnegative martingale with mean 1, so by Ville's inequality it ever exceeds
//! `1/α` with probability at most `α`, however many looks are taken. Solved for `D` this is the confidence sequence
//! `D ± s·√((s² + τ²)/τ² · ln((s² + τ²)/(s² α²)))`, which for the mean of `t` observations with variance `σ²` and
//! `τ² = ρ²σ²` is the boundary of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (*Time-uniform central limit theory
//! and asymptotic confidence sequences*, Theorem 2.2).
//!
//! "Asymptotically" is meant: [`Sequential::new`] takes the number of users below which no look counts.

use super::arm::Comparison;

/// What the looks so far allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet.
    Undecided,
    /// The treatment is better.
    Better,
    /// The treatment is worse.
    Worse,
}

/// The state after one look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// The difference at this look.
    pub difference: f64,
    /// The running interval: it holds the true difference at all looks at once with probability `1 - α`.
    pub interval: (f64, f64),
    /// The running p-value: valid whenever one stops.
    pub p: f64,
    /// What follows.
    pub decision: Decision,
}

/// One experiment's looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequential {
    alpha: f64,
    mixture: f64,
    least_users: f64,
    interval: (f64, f64),
    p: f64,
    decision: Decision,
}

impl Sequential {
    /// A sequence of looks with error `alpha` over all of them together. It is sharpest when the difference's variance
    /// has fallen to `planned_variance` (choose the effect that matters and take, say, its ninth part squared: three
    /// standard errors), and valid whatever that is. Looks with fewer than `least_users` users in an arm count as none.
    #[must_use]
    pub fn new(alpha: f64, planned_variance: f64, least_users: f64) -> Self {
        Self {
            alpha,
            mixture: planned_variance * sharpest(alpha),
            least_users,
            interval: (f64::NEG_INFINITY, f64::INFINITY),
            p: 1.0,
            decision: Decision::Undecided,
        }
    }

    /// Half the width of the interval at a look with this variance, by itself.
    #[must_use]
    pub fn half_width(&self, variance: f64) -> f64 {
        let sum = variance + self.mixture;
        (variance * sum / self.mixture * (sum / (variance * self.alpha * self.alpha)).ln()).sqrt()
    }

    /// `1/Λ` at a look by itself, at most 1.
    #[must_use]
    pub fn p_value(&self, difference: f64, variance: f64) -> f64 {
        let sum = variance + self.mixture;
        let log =
            0.5 * (variance / sum).ln() + self.mixture * difference * difference / (2.0 * variance * sum);
        (-log).exp().min(1.0)
    }

    /// Takes one more look. A decision, once made, stands.
    pub fn look(&mut self, comparison: &Comparison, users: (f64, f64)) -> Look {
        let Comparison {
            difference, variance, ..
        } = *comparison;
        if users.0.min(users.1) >= self.least_users && variance > 0.0 && variance.is_finite() {
            let half = self.half_width(variance);
            self.interval.0 = self.interval.0.max(difference - half);
            self.interval.1 = self.interval.1.min(difference + half);
            self.p = self.p.min(self.p_value(difference, variance));
            if self.decision == Decision::Undecided && self.p <= self.alpha {
                self.decision = if difference > 0.0 {
                    Decision::Better
                } else {
                    Decision::Worse
                };
            }
        }
        Look {
            difference,
            interval: self.interval,
            p: self.p,
            decision: self.decision,
        }
    }
}

/// The ratio of mixture variance to a look's variance at which that look's interval is narrowest: the fixed point of
/// `x = ln((1 + x) / α²)`, where the derivative of the squared half-width vanishes.
fn sharpest(alpha: f64) -> f64 {
    let level = -2.0 * alpha.ln();
    (0..50).fold(level.max(1.0), |x: f64, _| (1.0 + x).ln() + level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn the_p_value_is_one_over_the_mixture_integral() {
        let test = Sequential::new(0.05, 0.04, 0.0);
        let tau2 = test.mixture;
        for (difference, variance) in [(0.1, 0.01), (0.9, 0.05), (-0.7, 0.02)] {
            // ∫ exp(θD/s² - θ²/2s²) dN(θ; 0, τ²), by the trapezoid rule.
            let step = tau2.sqrt() / 400.0;
            let integral: f64 = (-4_000..=4_000)
                .map(|i| {
                    let theta = f64::from(i) * step;
                    let density =
                        (-theta * theta / (2.0 * tau2)).exp() / (2.0 * std::f64::consts::PI * tau2).sqrt();
                    density * (theta * difference / variance - theta * theta / (2.0 * variance)).exp() * step
                })
                .sum();
            near(test.p_value(difference, variance), (1.0 / integral).min(1.0));
        }
    }

    #[test]
    fn the_interval_excludes_no_effect_exactly_where_the_p_value_reaches_the_level() {
        let test = Sequential::new(0.05, 0.01, 0.0);
        for variance in [0.001, 0.01, 0.3] {
            near(test.p_value(test.half_width(variance), variance), 0.05);
        }
    }

    #[test]
    fn the_interval_is_that_of_waudby_smith_and_others() {
        let test = Sequential::new(0.05, 0.002, 0.0);
        let (sigma2, t) = (0.7, 130.0);
        let rho2 = test.mixture / sigma2;
        let scale = t * rho2 + 1.0;
        let want = (sigma2 * 2.0 * scale / (t * t * rho2) * (scale.sqrt() / 0.05).ln()).sqrt();
        near(test.half_width(sigma2 / t), want);
    }

    #[test]
    fn the_mixture_is_the_one_that_is_narrowest_at_the_planned_variance() {
        let best = Sequential::new(0.05, 0.01, 0.0);
        for factor in [0.8, 1.25] {
            let other = Sequential {
                mixture: best.mixture * factor,
                ..best
            };
            assert!(other.half_width(0.01) > best.half_width(0.01));
        }
    }

    #[test]
    fn looks_with_too_few_users_count_as_none_and_a_decision_stands() {
        let mut test = Sequential::new(0.05, 0.01, 100.0);
        let at = |difference: f64| Comparison {
            control: 0.1,
            treatment: 0.1 + difference,
            difference,
            variance: 0.01,
            variance_removed: 0.0,
        };
        assert_eq!(test.look(&at(5.0), (99.0, 500.0)).decision, Decision::Undecided);
        assert_eq!(test.look(&at(-5.0), (100.0, 500.0)).decision, Decision::Worse);
        let later = test.look(&at(5.0), (200.0, 500.0));
        assert_eq!(later.decision, Decision::Worse);
        assert!(later.p < 0.05);
    }
}
