//! One arm's users as moments, and the difference between two arms.

/// What one user contributes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UserTotals {
    /// For example clicks.
    pub numerator: f64,
    /// For example lists.
    pub denominator: f64,
    /// The same user's value before the experiment; any number fixed before it serves, 0 if there is none.
    pub covariate: f64,
}

impl UserTotals {
    fn values(self) -> [f64; 3] {
        [self.numerator, self.denominator, self.covariate]
    }
}

/// First and second moments over an arm's users.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Arm {
    users: f64,
    sums: [f64; 3],
    /// Upper triangle: xx, xn, xz, nn, nz, zz.
    products: [f64; 6],
}

const PAIRS: [(usize, usize); 6] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];

impl Arm {
    /// Adds a user.
    pub fn insert(&mut self, user: UserTotals) {
        self.users += 1.0;
        self.add(user, 1.0);
    }

    /// Replaces what a user contributed before by what they contribute now.
    pub fn update(&mut self, before: UserTotals, now: UserTotals) {
        self.add(before, -1.0);
        self.add(now, 1.0);
    }

    fn add(&mut self, user: UserTotals, sign: f64) {
        let values = user.values();
        for (sum, value) in self.sums.iter_mut().zip(values) {
            *sum += sign * value;
        }
        for (product, (a, b)) in self.products.iter_mut().zip(PAIRS) {
            *product += sign * values[a] * values[b];
        }
    }

    /// Number of users.
    #[must_use]
    pub fn users(&self) -> f64 {
        self.users
    }

    /// Sum of numerators over sum of denominators; `None` without denominators.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.sums[1] > 0.0).then(|| self.sums[0] / self.sums[1])
    }

    /// Variance of the ratio; `None` with fewer than two users or without denominators.
    #[must_use]
    pub fn ratio_variance(&self) -> Option<f64> {
        let ratio = self.ratio()?;
        (self.users >= 2.0).then(|| self.linearised(ratio).0 / self.users)
    }

    /// The linearised per-user value `(x - r·n) / mean(n)`, whose mean over users is 0 and whose variance over the
    /// number of users is the ratio's (delta method; Deng, Knoblich and Lu 2018): its variance, its covariance with the
    /// covariate, and the covariate's variance.
    fn linearised(&self, ratio: f64) -> (f64, f64, f64) {
        let [xx, xn, xz, nn, nz, zz] = self.products;
        let [x, n, z] = self.sums;
        let m = self.users;
        let freedom = (m - 1.0).max(1.0);
        let scale = n / m;
        let centred = |product: f64, a: f64, b: f64| (product - a * b / m) / freedom;
        let variance = (centred(xx, x, x) - 2.0 * ratio * centred(xn, x, n)
            + ratio * ratio * centred(nn, n, n))
            / (scale * scale);
        let covariance = (centred(xz, x, z) - ratio * centred(nz, n, z)) / scale;
        (variance.max(0.0), covariance, centred(zz, z, z).max(0.0))
    }

    fn mean_covariate(&self) -> f64 {
        self.sums[2] / self.users
    }
}

/// Whether the covariate is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covariate {
    /// The difference as it is.
    Ignored,
    /// The difference less what the covariate explains (CUPED; Deng, Xu, Kohavi and Walker 2013).
    Adjusted,
}

/// One arm against another at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The control's ratio.
    pub control: f64,
    /// The treatment's ratio.
    pub treatment: f64,
    /// Treatment less control, adjusted where asked.
    pub difference: f64,
    /// Variance of the difference.
    pub variance: f64,
    /// Share of the unadjusted variance that the covariate removed.
    pub variance_removed: f64,
}

/// The difference of two arms' ratios. With [`Covariate::Adjusted`], `θ = cov(L, z) / var(z)` over both arms and the
/// difference is `Δr - θ·Δz̄`: the covariate precedes the assignment, so its own difference is chance, and taking it out
/// leaves the expectation and lowers the variance.
///
/// `None` until both arms have two users and something to divide by.
#[must_use]
pub fn compare(control: &Arm, treatment: &Arm, covariate: Covariate) -> Option<Comparison> {
    if control.users < 2.0 || treatment.users < 2.0 {
        return None;
    }
    let (of_control, of_treatment) = (control.ratio()?, treatment.ratio()?);
    let a = control.linearised(of_control);
    let b = treatment.linearised(of_treatment);
    let plain = a.0 / control.users + b.0 / treatment.users;
    let mut difference = of_treatment - of_control;
    let mut variance = plain;
    let spread = control.users * a.2 + treatment.users * b.2;
    if covariate == Covariate::Adjusted && spread > 0.0 {
        let theta = (control.users * a.1 + treatment.users * b.1) / spread;
        difference -= theta * (treatment.mean_covariate() - control.mean_covariate());
        let left = |(own, shared, of_covariate): (f64, f64, f64)| {
            (own - 2.0 * theta * shared + theta * theta * of_covariate).max(0.0)
        };
        variance = left(a) / control.users + left(b) / treatment.users;
    }
    Some(Comparison {
        control: of_control,
        treatment: of_treatment,
        difference,
        variance,
        variance_removed: if plain > 0.0 { 1.0 - variance / plain } else { 0.0 },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::cluster;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    fn arm(users: &[UserTotals]) -> Arm {
        let mut arm = Arm::default();
        for &user in users {
            arm.insert(user);
        }
        arm
    }

    fn user(numerator: f64, denominator: f64, covariate: f64) -> UserTotals {
        UserTotals {
            numerator,
            denominator,
            covariate,
        }
    }

    proptest! {
        #[test]
        fn growing_users_one_step_at_a_time_ends_in_the_same_moments(
            totals in proptest::collection::vec((0_u8..20, 1_u8..20, 0_u8..9), 2..40)
        ) {
            let users: Vec<UserTotals> = totals
                .iter()
                .map(|&(x, n, z)| user(f64::from(x), f64::from(n), f64::from(z)))
                .collect();
            let whole = arm(&users);
            let mut grown = Arm::default();
            for &last in &users {
                let mut now = user(0.0, 0.0, last.covariate);
                grown.insert(now);
                while now != last {
                    let before = now;
                    now.numerator = (now.numerator + 1.0).min(last.numerator);
                    now.denominator = (now.denominator + 1.0).min(last.denominator);
                    grown.update(before, now);
                }
            }
            prop_assert_eq!(whole, grown);
            // The delta method's variance is the clustered ratio's.
            let direct = cluster::ratio(users.iter().map(|u| (u.numerator, u.denominator))).unwrap();
            let variance = whole.linearised(direct.value).0 / whole.users();
            prop_assert!((variance - direct.variance.unwrap()).abs() < 1e-9);
        }
    }

    #[test]
    fn the_difference_of_hand_computed_arms() {
        let control = arm(&[user(1.0, 2.0, 0.0), user(0.0, 2.0, 0.0)]);
        let treatment = arm(&[user(2.0, 2.0, 0.0), user(1.0, 2.0, 0.0)]);
        let got = compare(&control, &treatment, Covariate::Adjusted).unwrap();
        near(got.difference, 0.5);
        // Each arm: per-user ratios differ by 1/2, variance of the mean of two is 1/16.
        near(got.variance, 0.125);
        assert_eq!(
            compare(&arm(&[user(1.0, 1.0, 0.0)]), &treatment, Covariate::Ignored),
            None
        );
    }

    #[test]
    fn a_covariate_that_foretells_the_outcome_sharpens_the_difference_and_does_not_move_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (mut plain, mut adjusted) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let mut arms = [Arm::default(), Arm::default()];
            for (at, arm) in arms.iter_mut().enumerate() {
                for _ in 0..400 {
                    let taste: f64 = rng.random();
                    let clicks = 10.0 * taste + rng.random::<f64>() + 0.2 * at as f64;
                    arm.insert(user(clicks, 10.0, taste + 0.1 * rng.random::<f64>()));
                }
            }
            plain.push(compare(&arms[0], &arms[1], Covariate::Ignored).unwrap());
            adjusted.push(compare(&arms[0], &arms[1], Covariate::Adjusted).unwrap());
        }
        let mean = |of: &[Comparison]| of.iter().map(|c| c.difference).sum::<f64>() / of.len() as f64;
        let spread = |of: &[Comparison]| {
            let centre = mean(of);
            of.iter().map(|c| (c.difference - centre).powi(2)).sum::<f64>() / of.len() as f64
        };
        assert!((mean(&plain) - 0.02).abs() < 0.005, "{}", mean(&plain));
        assert!((mean(&adjusted) - 0.02).abs() < 0.001, "{}", mean(&adjusted));
        assert!(spread(&adjusted) < 0.2 * spread(&plain));
        // The variance that is claimed is the variance that is seen.
        let claimed = adjusted[0].variance;
        assert!((spread(&adjusted) / claimed - 1.0).abs() < 0.3);
        assert!(adjusted[0].variance_removed > 0.8);
    }
}
