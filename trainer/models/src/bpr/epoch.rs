//! Stochastic gradient descent over all pairs, in parallel and yet repeatable.
//!
//! Users and items are each divided into [`BLOCKS`] blocks. In a round every user block meets one item block, no two
//! the same, so the blocks can be worked on at once without sharing a vector; after [`BLOCKS`] rounds every user has met
//! every item (Gemulla, Nijkamp, Haas, Sismanis, "Large-scale matrix factorization with distributed stochastic
//! gradient descent", KDD 2011, section 4). A negative comes from the same item block as its positive; items are
//! dealt to blocks anew in every epoch, so over the epochs every item is a possible negative of every other.

use ndarray::{Array1, Array2};
use pulp::{Arch, Simd, WithSimd};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{BprParams, Negatives};
use crate::Interactions;
use crate::kernels::dot_in;
use crate::matrix::SparseRows;

/// Blocks per side: a constant, so that the result does not depend on how many threads share them.
const BLOCKS: usize = 8;

/// Attempts to find an item that the user has not chosen; a user who chose nearly everything teaches little. Popular
/// negatives get one, as in `implicit`: drawing again would favour less popular ones.
const fn attempts(negatives: Negatives) -> usize {
    match negatives {
        Negatives::Uniform => 4,
        Negatives::Popular => 1,
    }
}

/// A share of the items, as dealt in this epoch.
#[derive(Default)]
struct ItemBlock {
    /// The items, by position in the block.
    items: Vec<u32>,
    /// Their factors, row-major.
    factors: Vec<f32>,
    biases: Vec<f32>,
}

/// A contiguous range of users, and its pairs by item block.
struct UserBlock {
    first: usize,
    factors: Vec<f32>,
    random: ChaCha8Rng,
    /// For each item block: (user, position of the item in its block).
    cells: [Vec<(u32, u32)>; BLOCKS],
    chosen: PairFilter,
}

/// The state of the descent.
pub(super) struct Trainer<'a> {
    by_user: &'a SparseRows,
    params: &'a BprParams,
    random: ChaCha8Rng,
    user_blocks: Vec<UserBlock>,
    item_factors: Array2<f32>,
    biases: Array1<f32>,
}

impl<'a> Trainer<'a> {
    pub(super) fn new(
        interactions: &'a Interactions,
        params: &'a BprParams,
        users: Array2<f32>,
        items: Array2<f32>,
    ) -> Self {
        let by_user = interactions.by_user();
        let mut random = ChaCha8Rng::seed_from_u64(params.seed);
        random.set_stream(1);
        let factors = users.into_raw_vec_and_offset().0;
        let user_blocks = (0..)
            .zip(user_ranges(by_user))
            .map(|(block, range)| {
                let mut random = ChaCha8Rng::seed_from_u64(params.seed);
                random.set_stream(2 + block);
                UserBlock {
                    first: range.start,
                    factors: factors[range.start * params.factors..range.end * params.factors].to_vec(),
                    random,
                    cells: Default::default(),
                    chosen: PairFilter::default(),
                }
            })
            .collect();
        Self {
            by_user,
            params,
            random,
            user_blocks,
            biases: Array1::zeros(items.nrows()),
            item_factors: items,
        }
    }

    /// One pass over all pairs.
    pub(super) fn epoch(&mut self) {
        let (mut item_blocks, places) = self.deal();
        let (by_user, params) = (self.by_user, self.params);
        self.user_blocks
            .par_iter_mut()
            .for_each(|block| block.sort_pairs(by_user, &places, params.factors));
        for round in 0..BLOCKS {
            self.user_blocks
                .par_iter_mut()
                .zip(item_blocks.par_iter_mut())
                .enumerate()
                .for_each(|(index, (users, items))| {
                    users.descend((index + round) % BLOCKS, items, params);
                });
            // Next round, user block `b` meets the item block of its neighbour.
            item_blocks.rotate_left(1);
        }
        self.collect(&item_blocks);
    }

    /// Deals the items to blocks at random; also tells where each item went.
    fn deal(&mut self) -> (Vec<ItemBlock>, Vec<(u8, u32)>) {
        let items = self.biases.len();
        let mut order: Vec<u32> = (0_u32..).take(items).collect();
        order.shuffle(&mut self.random);
        let mut blocks: Vec<ItemBlock> = (0..BLOCKS).map(|_| ItemBlock::default()).collect();
        let mut places = vec![(0_u8, 0_u32); items];
        for (turn, item) in order.into_iter().enumerate() {
            let block = &mut blocks[turn % BLOCKS];
            places[item as usize] = ((turn % BLOCKS) as u8, block.items.len() as u32);
            block.items.push(item);
            block.factors.extend(self.item_factors.row(item as usize));
            block.biases.push(self.biases[item as usize]);
        }
        (blocks, places)
    }

    /// Writes the dealt items' vectors back.
    fn collect(&mut self, blocks: &[ItemBlock]) {
        let factors = self.params.factors;
        for block in blocks {
            let vectors = block.factors.chunks_exact(factors).zip(&block.biases);
            for (&item, (vector, &bias)) in block.items.iter().zip(vectors) {
                self.item_factors
                    .row_mut(item as usize)
                    .iter_mut()
                    .zip(vector)
                    .for_each(|(to, &from)| *to = from);
                self.biases[item as usize] = bias;
            }
        }
    }

    /// User factors, item factors, item biases.
    pub(super) fn finish(self) -> (Array2<f32>, Array2<f32>, Array1<f32>) {
        let factors = self.params.factors;
        let mut users = Array2::zeros((self.by_user.rows(), factors));
        for block in &self.user_blocks {
            let rows = users.rows_mut().into_iter().skip(block.first);
            for (mut row, vector) in rows.zip(block.factors.chunks_exact(factors)) {
                row.iter_mut().zip(vector).for_each(|(to, &from)| *to = from);
            }
        }
        (users, self.item_factors, self.biases)
    }
}

impl UserBlock {
    /// Sorts this block's pairs by item block, each in a random order.
    fn sort_pairs(&mut self, by_user: &SparseRows, places: &[(u8, u32)], factors: usize) {
        for cell in &mut self.cells {
            cell.clear();
        }
        let users = self.factors.len() / factors;
        for (local, user) in (0_u32..).zip(self.first..self.first + users) {
            let Some(row) = by_user.outer_view(user) else {
                continue;
            };
            for &item in row.indices() {
                let (block, position) = places[item as usize];
                self.cells[block as usize].push((local, position));
            }
        }
        for cell in &mut self.cells {
            cell.shuffle(&mut self.random);
        }
    }

    /// One gradient step per pair of a cell.
    fn descend(&mut self, cell: usize, items: &mut ItemBlock, params: &BprParams) {
        if items.items.len() < 2 {
            return;
        }
        self.chosen.refill(&self.cells[cell]);
        Arch::new().dispatch(Descent {
            users: self,
            cell,
            items,
            params,
        });
    }
}

/// A set of pairs that may be wrong in one direction: every pair put in is found, and one in sixteen others as well.
///
/// To pass over an unchosen item now and then costs nothing, since in the next epoch others are hit; to look a pair up in
/// a user's row costs more than the whole gradient step, in cache misses.
#[derive(Default)]
struct PairFilter {
    bits: Vec<u64>,
}

impl PairFilter {
    fn refill(&mut self, pairs: &[(u32, u32)]) {
        self.bits.clear();
        self.bits.resize((pairs.len() / 4 + 1).next_power_of_two(), 0);
        for &(user, item) in pairs {
            let (word, bit) = self.place(user, item);
            self.bits[word] |= bit;
        }
    }

    #[inline]
    fn may_hold(&self, user: u32, item: u32) -> bool {
        let (word, bit) = self.place(user, item);
        self.bits[word] & bit != 0
    }

    /// Word and bit of a pair, by multiplicative hashing; the number of words is a power of two.
    #[inline]
    fn place(&self, user: u32, item: u32) -> (usize, u64) {
        let hash = (u64::from(user) << 32 | u64::from(item)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = (hash ^ (hash >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (
            (hash >> 32) as usize & (self.bits.len() - 1),
            1 << (hash >> 26 & 63),
        )
    }
}

/// The stochastic gradient descent (the paper's figure 4) over one cell.
struct Descent<'a> {
    users: &'a mut UserBlock,
    cell: usize,
    items: &'a mut ItemBlock,
    params: &'a BprParams,
}

impl WithSimd for Descent<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            users,
            cell,
            items,
            params,
        } = self;
        let (factors, rate, penalty) = (params.factors, params.learning_rate, params.regularization);
        let UserBlock {
            factors: user_factors,
            random,
            cells,
            chosen,
            ..
        } = users;
        let attempts = attempts(params.negatives);
        let pairs = &cells[cell];
        for &(local, positive) in pairs {
            let mut negative = None;
            for _ in 0..attempts {
                let candidate = match params.negatives {
                    Negatives::Uniform => random.random_range(0..items.items.len() as u32),
                    // Another pair's item: drawn as often as it was chosen.
                    Negatives::Popular => pairs[random.random_range(0..pairs.len() as u32) as usize].1,
                };
                if !chosen.may_hold(local, candidate) {
                    negative = Some(candidate as usize);
                    break;
                }
            }
            let Some(negative) = negative else {
                continue;
            };
            let positive = positive as usize;
            let user = &mut user_factors[local as usize * factors..][..factors];
            let Some((liked, other)) = two_rows(&mut items.factors, factors, positive, negative) else {
                continue;
            };
            let biases = items.biases[positive] - items.biases[negative];
            let margin = biases + dot_in(simd, user, liked) - dot_in(simd, user, other);
            let slope = 1.0 / (1.0 + margin.exp());
            step(simd, user, liked, other, slope, rate, penalty);
            let bias = &mut items.biases[positive];
            *bias += rate * (slope - penalty * *bias);
            let bias = &mut items.biases[negative];
            *bias += rate * (-slope - penalty * *bias);
        }
    }
}

/// Moves the three vectors along the gradient of `ln σ(x̂_ui − x̂_uj)` minus the penalties (section 4.3.1).
#[inline(always)]
fn step<S: Simd>(
    simd: S,
    user: &mut [f32],
    liked: &mut [f32],
    other: &mut [f32],
    slope: f32,
    rate: f32,
    penalty: f32,
) {
    let (users, user_rest) = S::as_mut_simd_f32s(user);
    let (likeds, liked_rest) = S::as_mut_simd_f32s(liked);
    let (others, other_rest) = S::as_mut_simd_f32s(other);
    // Every vector keeps a share of itself and takes a step along the difference or the user.
    let keep = 1.0 - rate * penalty;
    let length = rate * slope;
    let (keeps, up, down) = (
        simd.splat_f32s(keep),
        simd.splat_f32s(length),
        simd.splat_f32s(-length),
    );
    for ((user, liked), other) in users.iter_mut().zip(likeds).zip(others) {
        let (old_user, old_liked, old_other) = (*user, *liked, *other);
        let difference = simd.sub_f32s(old_liked, old_other);
        *user = simd.mul_add_e_f32s(up, difference, simd.mul_f32s(keeps, old_user));
        *liked = simd.mul_add_e_f32s(up, old_user, simd.mul_f32s(keeps, old_liked));
        *other = simd.mul_add_e_f32s(down, old_user, simd.mul_f32s(keeps, old_other));
    }
    for ((user, liked), other) in user_rest.iter_mut().zip(liked_rest).zip(other_rest) {
        let (old_user, old_liked, old_other) = (*user, *liked, *other);
        *user = keep * old_user + length * (old_liked - old_other);
        *liked = keep * old_liked + length * old_user;
        *other = keep * old_other - length * old_user;
    }
}

/// Two different rows of a row-major matrix, both writable; `None` if they are the same or out of range.
fn two_rows(
    matrix: &mut [f32],
    columns: usize,
    first: usize,
    second: usize,
) -> Option<(&mut [f32], &mut [f32])> {
    let range = |row: usize| row * columns..(row + 1) * columns;
    let [first, second] = matrix.get_disjoint_mut([range(first), range(second)]).ok()?;
    Some((first, second))
}

/// Contiguous ranges of users with about equal numbers of pairs.
fn user_ranges(by_user: &SparseRows) -> Vec<std::ops::Range<usize>> {
    let indptr = by_user.indptr();
    let starts = indptr.raw_storage();
    let mut begin = 0;
    (1..=BLOCKS)
        .map(|block| {
            let target = by_user.nnz() * block / BLOCKS;
            let end = if block == BLOCKS {
                by_user.rows()
            } else {
                starts
                    .partition_point(|&start| start < target)
                    .clamp(begin, by_user.rows())
            };
            let range = begin..end;
            begin = end;
            range
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_matches_the_gradient_by_hand() {
        // Slope 1/2, rate 0.1, penalty 0.2; long enough for whole registers and a rest.
        struct Step<'a>([&'a mut [f32]; 3]);
        impl WithSimd for Step<'_> {
            type Output = ();

            fn with_simd<S: Simd>(self, simd: S) {
                let [user, liked, other] = self.0;
                step(simd, user, liked, other, 0.5, 0.1, 0.2);
            }
        }
        let (mut user, mut liked, mut other) = ([1.0_f32; 19], [2.0_f32; 19], [-1.0_f32; 19]);
        Arch::new().dispatch(Step([&mut user, &mut liked, &mut other]));
        for ((user, liked), other) in user.iter().zip(&liked).zip(&other) {
            assert!((user - (1.0 + 0.1 * (0.5 * 3.0 - 0.2))).abs() < 1e-6);
            assert!((liked - (2.0 + 0.1 * (0.5 - 0.4))).abs() < 1e-6);
            assert!((other - (-1.0 + 0.1 * (-0.5 + 0.2))).abs() < 1e-6);
        }
    }

    #[test]
    fn the_filter_finds_every_pair_and_few_others() {
        let pairs: Vec<(u32, u32)> = (0..1000)
            .map(|index| (index * 7 % 91, index * 13 % 401))
            .collect();
        let mut filter = PairFilter::default();
        filter.refill(&pairs);
        assert!(pairs.iter().all(|&(user, item)| filter.may_hold(user, item)));
        let wrong = (0..10_000)
            .filter(|&index| filter.may_hold(1000 + index / 100, index % 100))
            .count();
        assert!(wrong < 1000, "{wrong}");
    }

    #[test]
    fn user_ranges_cover_all_users_once() {
        let pairs: Vec<_> = (0..100_u32)
            .map(|index| (index * index % 13, index % 7, 1.0))
            .collect();
        let matrix = Interactions::from_triplets(15, 7, &pairs).unwrap();
        let ranges = user_ranges(matrix.by_user());
        assert_eq!(ranges.len(), BLOCKS);
        assert_eq!(
            ranges.into_iter().flatten().collect::<Vec<_>>(),
            (0..15).collect::<Vec<_>>()
        );
    }
}
