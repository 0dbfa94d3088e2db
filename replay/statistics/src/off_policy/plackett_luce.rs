//! Lists drawn one position after the other, in proportion to a weight per candidate.

use rand::{Rng, RngExt};

/// The distribution of lists where each position is drawn from the candidates not used above it, with probability in
/// proportion to `exp(score / temperature)` (Luce 1959; Plackett 1975).
#[derive(Debug, Clone, PartialEq)]
pub struct PlackettLuce {
    /// Logarithms of the weights, the greatest being 0.
    log_weights: Vec<f64>,
}

/// Step of the quadrature in [`PlackettLuce::marginal`]. The integrand is analytic in a strip of half-width π/2, so the
/// trapezoid rule's error falls like `exp(-π² / step)`, 2e-11 here.
const STEP: f64 = 0.4;
/// Where the Gumbel density has fallen below 1e-13 on the left and 1e-12 on the right.
const LEFT: f64 = -3.5;
const RIGHT: f64 = 28.0;

impl PlackettLuce {
    /// The distribution over the candidates with these scores. `None` without candidates, for a temperature that is
    /// not above 0, and for scores that are not finite.
    #[must_use]
    pub fn new(scores: &[f64], temperature: f64) -> Option<Self> {
        let usable =
            temperature > 0.0 && temperature.is_finite() && scores.iter().all(|score| score.is_finite());
        if scores.is_empty() || !usable {
            return None;
        }
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self {
            log_weights: scores.iter().map(|score| (score - top) / temperature).collect(),
        })
    }

    /// Number of candidates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.log_weights.len()
    }

    /// Whether there is no candidate; never true.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.log_weights.is_empty()
    }

    /// Probability of each of `list`'s candidates at its position, given those above it. A candidate that is repeated
    /// or does not exist has probability 0, and so has everything after it.
    #[must_use]
    pub fn conditionals(&self, list: &[usize]) -> Vec<f64> {
        let mut open: Vec<f64> = self.log_weights.iter().map(|log| log.exp()).collect();
        let mut impossible = false;
        list.iter()
            .map(|&candidate| {
                // Summed anew each time: subtracting from one sum would lose the small weights.
                let sum: f64 = open.iter().sum();
                match open.get_mut(candidate) {
                    Some(weight) if *weight > 0.0 && !impossible => {
                        let probability = *weight / sum;
                        *weight = 0.0;
                        probability
                    }
                    _ => {
                        impossible = true;
                        0.0
                    }
                }
            })
            .collect()
    }

    /// Draws the first `k` positions: the candidates in falling order of log weight plus Gumbel noise (Yellott 1977).
    #[must_use]
    pub fn sample(&self, k: usize, rng: &mut impl Rng) -> Vec<usize> {
        let mut keys: Vec<(f64, usize)> = self
            .log_weights
            .iter()
            .enumerate()
            .map(|(candidate, log)| {
                let uniform = rng.random::<f64>().max(f64::MIN_POSITIVE);
                (log - (-uniform.ln()).ln(), candidate)
            })
            .collect();
        let k = k.min(keys.len());
        if k < keys.len() {
            keys.select_nth_unstable_by(k, |a, b| b.0.total_cmp(&a.0));
            keys.truncate(k);
        }
        keys.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        keys.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// Probability that `candidate` stands at `position` (from 0), whatever stands above it.
    ///
    /// With independent Gumbel keys the list is the order of the keys. Given the candidate's own key `g`, every other
    /// candidate `j` lies above it independently with probability `1 - exp(-w_j e^{-g})`, so the number above is
    /// Poisson-binomial; what remains is one integral over `g`, done by the trapezoid rule.
    #[must_use]
    pub fn marginal(&self, candidate: usize, position: usize) -> f64 {
        let Some(&own) = self.log_weights.get(candidate) else {
            return 0.0;
        };
        if position >= self.len() {
            return 0.0;
        }
        let mut total = 0.0;
        let mut x = LEFT;
        let mut above = vec![0.0; position + 1];
        while x <= RIGHT {
            let density = (-x - (-x).exp()).exp();
            above.fill(0.0);
            above[0] = 1.0;
            for (other, log) in self.log_weights.iter().enumerate() {
                if other == candidate {
                    continue;
                }
                let below = (-(log - own - x).exp()).exp();
                for count in (0..=position).rev() {
                    let fewer = if count == 0 { 0.0 } else { above[count - 1] };
                    above[count] = above[count] * below + fewer * (1.0 - below);
                }
            }
            total += density * above[position];
            x += STEP;
        }
        (total * STEP).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn near(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() < tolerance, "{a} is not {b}");
    }

    /// Every ordered list of `k` of `n` candidates.
    fn lists(n: usize, k: usize) -> Vec<Vec<usize>> {
        (0..k).fold(vec![Vec::new()], |lists, _| {
            lists
                .iter()
                .flat_map(|list| {
                    (0..n)
                        .filter(|candidate| !list.contains(candidate))
                        .map(|candidate| {
                            let mut longer = list.clone();
                            longer.push(candidate);
                            longer
                        })
                })
                .collect()
        })
    }

    #[test]
    fn conditionals_of_a_hand_computed_list() {
        let policy = PlackettLuce::new(&[3_f64.ln(), 2_f64.ln(), 0.0], 1.0).unwrap();
        let got = policy.conditionals(&[1, 0, 2]);
        near(got[0], 2.0 / 6.0, 1e-12);
        near(got[1], 3.0 / 4.0, 1e-12);
        near(got[2], 1.0, 1e-12);
        assert_eq!(policy.conditionals(&[1, 1, 2]), [got[0], 0.0, 0.0]);
        assert_eq!(policy.conditionals(&[7]), [0.0]);
    }

    #[test]
    fn marginals_equal_the_sum_over_all_lists_even_for_very_unequal_weights() {
        for scores in [
            vec![1.0, 0.5, 0.0, -0.5, -1.0],
            vec![0.0, -8.0, -3.0, -0.1],
            vec![0.0; 4],
        ] {
            let policy = PlackettLuce::new(&scores, 1.0).unwrap();
            let k = 3;
            let all = lists(scores.len(), k);
            for candidate in 0..scores.len() {
                for position in 0..k {
                    let want: f64 = all
                        .iter()
                        .filter(|list| list[position] == candidate)
                        .map(|list| policy.conditionals(list).iter().product::<f64>())
                        .sum();
                    near(policy.marginal(candidate, position), want, 1e-7);
                }
            }
        }
    }

    #[test]
    fn drawn_lists_have_the_frequencies_of_their_propensities() {
        let policy = PlackettLuce::new(&[1.0, 0.0, 0.3, -1.0], 0.7).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let draws = 40_000;
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..draws {
            *counts.entry(policy.sample(2, &mut rng)).or_insert(0_u32) += 1;
        }
        for list in lists(4, 2) {
            let p: f64 = policy.conditionals(&list).iter().product();
            let share = f64::from(counts.get(&list).copied().unwrap_or(0)) / f64::from(draws);
            near(share, p, 5.0 * (p * (1.0 - p) / f64::from(draws)).sqrt());
        }
    }

    #[test]
    fn what_cannot_be_a_distribution_is_refused() {
        assert_eq!(PlackettLuce::new(&[], 1.0), None);
        assert_eq!(PlackettLuce::new(&[1.0], 0.0), None);
        assert_eq!(PlackettLuce::new(&[f64::NAN], 1.0), None);
        assert_eq!(PlackettLuce::new(&[f64::INFINITY], 1.0), None);
    }
}
