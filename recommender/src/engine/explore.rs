//! The exploration slice: a small share of the lists is drawn at random, with probabilities that are known exactly, so
//! that other policies can be judged by what these lists led to.
//!
//! A list is drawn from the best `pool` movies by the Plackett-Luce model: position after position, among the movies
//! not placed yet, each with a probability proportional to its weight. The movie of rank r (from 1) weighs
//! r^-steepness. Weights by rank and not by score, because scores of different models have different scales, and
//! because no probability then falls below pool^-steepness over the sum of all weights: importance weights stay
//! bounded. Sampling is the Gumbel top-k trick (Yellott 1977; Kool, van Hoof, Welling 2019, section 2.3): the k
//! largest of log-weight + Gumbel noise, in order, are distributed as that model says.
//!
//! Both whether a list is drawn and what is drawn follow from the request's id alone, so that a log can be replayed.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Settings of the exploration slice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExploreConfig {
    /// Share of the lists of `POST /recommend` that are drawn, 0 to 1.
    pub share: f64,
    /// Best-ranked movies that a list is drawn from; a longer list is drawn from as many as it has entries.
    pub pool: usize,
    /// How strongly the ranking is kept: the movie of rank r (from 1) weighs r^-steepness; 0 draws uniformly.
    pub steepness: f64,
}

impl Default for ExploreConfig {
    fn default() -> Self {
        Self {
            share: 0.02,
            pool: 50,
            steepness: 1.5,
        }
    }
}

impl ExploreConfig {
    /// # Errors
    /// [`Error::Config`] naming the first setting out of its domain.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, domain: &str| {
            Err(Error::Config(format!(
                "recommender.explore.{key} must be {domain}"
            )))
        };
        if !(0.0..=1.0).contains(&self.share) {
            return refuse("share", "between 0 and 1");
        }
        if self.pool == 0 {
            return refuse("pool", "greater than zero");
        }
        if !(0.0..=8.0).contains(&self.steepness) {
            return refuse("steepness", "between 0 and 8");
        }
        Ok(())
    }
}

/// Whether a request's list may be drawn. Randomness follows from 16 bytes, those of the request's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Explore {
    /// No.
    #[default]
    Never,
    /// If the id falls into the slice.
    Slice([u8; 16]),
    /// Yes.
    Always([u8; 16]),
}

impl Explore {
    /// The generator to draw with, where the list is to be drawn.
    pub(super) fn draw(self, share: f64) -> Option<ChaCha12Rng> {
        let generator = |id: [u8; 16]| {
            let mut seed = [0; 32];
            seed[..16].copy_from_slice(&id);
            ChaCha12Rng::from_seed(seed)
        };
        match self {
            Self::Never => None,
            Self::Slice(id) => {
                let mut rng = generator(id);
                (uniform(&mut rng) < share).then_some(rng)
            }
            Self::Always(id) => {
                let mut rng = generator(id);
                // The same list as if the slice had chosen it.
                uniform(&mut rng);
                Some(rng)
            }
        }
    }
}

/// Uniform in the open interval (0, 1): neither end, so that its logarithms are finite.
fn uniform(rng: &mut ChaCha12Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// One position of a drawn list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drawn {
    /// Place in the ranking, from 0.
    pub(super) place: usize,
    /// Probability of this movie at this position, given the positions above.
    pub(super) propensity: f64,
}

/// Draws `k` of `pool` ranked movies (all of them where the pool is smaller).
pub(super) fn plackett_luce(pool: usize, k: usize, steepness: f64, rng: &mut ChaCha12Rng) -> Vec<Drawn> {
    let weight = |place: usize| ((place + 1) as f64).powf(-steepness);
    let mut keyed: Vec<(f64, usize)> = (0..pool)
        .map(|place| {
            let gumbel = -(-uniform(rng).ln()).ln();
            (weight(place).ln() + gumbel, place)
        })
        .collect();
    let larger = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    keyed.sort_unstable_by(larger);
    let chosen = k.min(pool);
    // From the last position up, so that the sum of what was still to be had is added up and never taken apart.
    let mut open: f64 = keyed[chosen..].iter().map(|&(_, place)| weight(place)).sum();
    let mut drawn: Vec<Drawn> = keyed[..chosen]
        .iter()
        .rev()
        .map(|&(_, place)| {
            open += weight(place);
            Drawn {
                place,
                propensity: weight(place) / open,
            }
        })
        .collect();
    drawn.reverse();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(n: u128) -> ChaCha12Rng {
        Explore::Always(n.to_be_bytes()).draw(0.0).unwrap()
    }

    #[test]
    fn propensities_of_two_movies_are_those_worked_out_by_hand() {
        // Weights 1 and 1/2: the first is on top with 2/3, and whoever is left comes second for certain.
        for n in 0..20 {
            let drawn = plackett_luce(2, 2, 1.0, &mut rng(n));
            let first = if drawn[0].place == 0 { 2.0 / 3.0 } else { 1.0 / 3.0 };
            assert!((drawn[0].propensity - first).abs() < 1e-15);
            assert_eq!(drawn[1].propensity, 1.0);
        }
    }

    #[test]
    fn a_pool_smaller_than_the_list_is_drawn_whole() {
        assert_eq!(plackett_luce(3, 10, 1.0, &mut rng(1)).len(), 3);
        assert!(plackett_luce(0, 10, 1.0, &mut rng(1)).is_empty());
    }

    #[test]
    fn the_slice_has_its_share_and_draws_what_a_forced_request_would() {
        let drawn = (0..10_000_u128)
            .filter(|n| Explore::Slice(n.to_be_bytes()).draw(0.1).is_some())
            .count();
        // Four standard deviations of the binomial distribution: 4 * sqrt(10,000 * 0.1 * 0.9) = 120.
        assert!((880..=1120).contains(&drawn), "{drawn}");
        let mut chosen = Explore::Slice(7_u128.to_be_bytes()).draw(1.0).unwrap();
        assert_eq!(
            plackett_luce(9, 4, 1.0, &mut chosen),
            plackett_luce(9, 4, 1.0, &mut rng(7))
        );
        assert!(Explore::Never.draw(1.0).is_none());
    }

    proptest::proptest! {
        #[test]
        fn every_list_is_without_repetition_and_every_probability_is_one(
            pool in 0_usize..200, k in 0_usize..120, steepness in 0.0_f64..8.0, seed: u128
        ) {
            let drawn = plackett_luce(pool, k, steepness, &mut rng(seed));
            proptest::prop_assert_eq!(drawn.len(), k.min(pool));
            let mut places: Vec<usize> = drawn.iter().map(|drawn| drawn.place).collect();
            places.sort_unstable();
            places.dedup();
            proptest::prop_assert_eq!(places.len(), drawn.len());
            proptest::prop_assert!(drawn.iter().all(|drawn| drawn.propensity > 0.0 && drawn.propensity <= 1.0));
        }
    }
}
