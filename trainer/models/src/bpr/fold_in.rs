//! The vector of one user from a history, with the items held fixed.

use pulp::{Arch, Simd, WithSimd};

use super::Bpr;
use crate::HistoryItem;
use crate::kernels::{axpy_in, dot_in, row};

/// Passes over the history.
const PASSES: u64 = 20;

/// How much longer a step may be than in training, where items move as well.
const BOLDNESS: f32 = 10.0;

/// Descends the same gradient as the training does, for the user's vector alone, against a fixed sequence of
/// negatives: the same history gives the same vector.
pub(super) fn solve(model: &Bpr, history: &[HistoryItem], user: &mut [f32]) {
    Arch::new().dispatch(Descent { model, history, user });
}

struct Descent<'a> {
    model: &'a Bpr,
    history: &'a [HistoryItem],
    user: &'a mut [f32],
}

impl WithSimd for Descent<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { model, history, user } = self;
        user.fill(0.0);
        let items = model.items.nrows() as u64;
        let rate = (model.learning_rate * BOLDNESS).min(0.5);
        let keep = 1.0 - rate * model.regularization;
        let mut draws = 0_u64;
        for _ in 0..PASSES {
            for entry in history {
                let Some(liked) = row(&model.items, entry.item).filter(|_| entry.weight > 0.0) else {
                    continue;
                };
                draws += 1;
                let negative = (scramble(draws) % items) as u32;
                if history.iter().any(|other| other.item == negative) {
                    continue;
                }
                let Some(other) = row(&model.items, negative) else {
                    continue;
                };
                let biases = model.biases[entry.item as usize] - model.biases[negative as usize];
                let margin = biases + dot_in(simd, user, liked) - dot_in(simd, user, other);
                let length = rate * entry.weight / (1.0 + margin.exp());
                user.iter_mut().for_each(|value| *value *= keep);
                axpy_in(simd, length, liked, user);
                axpy_in(simd, -length, other, user);
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a well-mixed sequence from a counter.
fn scramble(counter: u64) -> u64 {
    let mut value = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
