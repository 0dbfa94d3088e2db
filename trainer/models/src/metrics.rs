//! Ranking and rating metrics, to the definitions of the evaluation protocol, and intervals around them.
//!
//! A *rank* counts from 0. Ties get their expected rank: the number of candidates that score higher, plus half of
//! the other ones that score the same.

pub mod bootstrap;
pub mod rating;

pub use bootstrap::{Interval, clustered_interval, paired_interval};
pub use rating::{RatingError, rating_error};

/// Expected rank of `target` among `scores`, where `excluded` items are not candidates. `None` if the target is out
/// of range, excluded, or its score is NaN; candidates whose score is NaN stand behind everything.
#[must_use]
pub fn expected_rank(scores: &[f32], target: u32, excluded: impl Fn(u32) -> bool) -> Option<f64> {
    let own = *scores.get(target as usize)?;
    if own.is_nan() || excluded(target) {
        return None;
    }
    let (mut higher, mut equal) = (0_u32, 0_u32);
    for (item, &score) in scores.iter().enumerate() {
        let item = item as u32;
        if score > own && !excluded(item) {
            higher += 1;
        } else if score == own && item != target && !excluded(item) {
            equal += 1;
        }
    }
    Some(f64::from(higher) + f64::from(equal) / 2.0)
}

/// A key that sorts by descending score, then by ascending index: sorting integers is faster than comparing numbers.
pub(crate) fn rank_key(score: f32, index: u32) -> u64 {
    u64::from(descending(score)) << 32 | u64::from(index)
}

/// The index in a [`rank_key`].
pub(crate) fn ranked_index(key: u64) -> u32 {
    key as u32
}

/// Bits that ascend as scores descend.
fn descending(score: f32) -> u32 {
    let bits = score.to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// 1 if the target is among the first `k`.
#[must_use]
pub fn hit(rank: f64, k: usize) -> f64 {
    if rank < k as f64 { 1.0 } else { 0.0 }
}

/// NDCG of a single target: `1 / log2(rank + 2)` among the first `k`, else 0.
#[must_use]
pub fn single_ndcg(rank: f64, k: usize) -> f64 {
    if rank < k as f64 { gain(rank) } else { 0.0 }
}

/// `1 / (rank + 1)`, whatever the rank.
#[must_use]
pub fn reciprocal_rank(rank: f64) -> f64 {
    1.0 / (rank + 1.0)
}

fn gain(rank: f64) -> f64 {
    1.0 / (rank + 2.0).log2()
}

/// Metrics of one ranked list against a set of relevant items, at one cut-off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ListMetrics {
    /// Relevant items in the first `k`, ÷ `k`, also when the list is shorter.
    pub precision: f64,
    /// ÷ the size of the truth.
    pub recall: f64,
    /// Binary gains, over the ideal of `min(k, |truth|)` relevant items at the top.
    pub ndcg: f64,
    /// Whether any relevant item is in the first `k`.
    pub hit: f64,
    /// Mean over `min(k, |truth|)` of the precision at each relevant position (MAP's summand).
    pub average_precision: f64,
}

/// Judges the first `k` of `ranked` (best first, no duplicates) against `truth` (ascending, no duplicates). `None`
/// without truth or with `k` = 0: there is nothing to measure.
#[must_use]
pub fn list_metrics(ranked: &[u32], truth: &[u32], k: usize) -> Option<ListMetrics> {
    if truth.is_empty() || k == 0 {
        return None;
    }
    let ideal_len = k.min(truth.len());
    let (mut hits, mut dcg, mut precisions) = (0_u32, 0.0, 0.0);
    for (rank, item) in ranked.iter().take(k).enumerate() {
        if truth.binary_search(item).is_ok() {
            hits += 1;
            dcg += gain(rank as f64);
            precisions += f64::from(hits) / (rank + 1) as f64;
        }
    }
    let ideal: f64 = (0..ideal_len).map(|rank| gain(rank as f64)).sum();
    Some(ListMetrics {
        precision: f64::from(hits) / k as f64,
        recall: f64::from(hits) / truth.len() as f64,
        ndcg: dcg / ideal,
        hit: f64::from(u32::from(hits > 0)),
        average_precision: precisions / ideal_len as f64,
    })
}

/// Reciprocal rank of the first relevant item anywhere in `ranked`; 0 without one.
#[must_use]
pub fn first_relevant(ranked: &[u32], truth: &[u32]) -> f64 {
    ranked
        .iter()
        .position(|item| truth.binary_search(item).is_ok())
        .map_or(0.0, |rank| reciprocal_rank(rank as f64))
}

/// Share of `items` known items that appear in any of the lists; 0 for an empty catalogue.
#[must_use]
pub fn coverage<'a>(lists: impl IntoIterator<Item = &'a [u32]>, items: usize) -> f64 {
    let mut shown = vec![false; items];
    for item in lists.into_iter().flatten() {
        if let Some(seen) = shown.get_mut(*item as usize) {
            *seen = true;
        }
    }
    if items == 0 {
        return 0.0;
    }
    shown.iter().filter(|&&seen| seen).count() as f64 / items as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tied_candidates_share_the_expected_rank() {
        // Two higher, target ties with two others: 2 + 2/2 = 3.
        let scores = [5.0, 4.0, 1.0, 1.0, 1.0, 0.0];
        assert_eq!(expected_rank(&scores, 3, |_| false), Some(3.0));
        // One of the tied and one of the higher are excluded: 1 + 1/2.
        assert_eq!(
            expected_rank(&scores, 3, |item| item == 0 || item == 4),
            Some(1.5)
        );
        assert_eq!(expected_rank(&scores, 3, |item| item == 3), None);
        assert_eq!(expected_rank(&scores, 9, |_| false), None);
    }

    #[test]
    fn the_sort_keys_descend_with_the_scores() {
        let scores = [f32::MAX, 2.5, 1e-9, 0.0, -1e-9, -2.5, f32::MIN];
        assert!(scores.map(descending).is_sorted());
    }

    #[test]
    fn a_list_of_equal_scores_has_the_middle_rank() {
        assert_eq!(expected_rank(&[0.0; 11], 4, |_| false), Some(5.0));
    }

    #[test]
    fn single_target_metrics_follow_their_formulas() {
        assert_eq!(single_ndcg(0.0, 10), 1.0);
        assert!((single_ndcg(2.0, 10) - 0.5).abs() < 1e-12);
        assert_eq!(single_ndcg(10.0, 10), 0.0);
        assert!(single_ndcg(9.5, 10) > 0.0);
        assert_eq!((hit(9.5, 10), hit(10.0, 10)), (1.0, 0.0));
        assert_eq!(reciprocal_rank(3.0), 0.25);
    }

    #[test]
    fn list_metrics_match_a_hand_computed_case() {
        // Relevant at ranks 0 and 2 of five; truth of three.
        let metrics = list_metrics(&[7, 1, 9, 2, 3], &[7, 9, 50], 5).unwrap();
        assert!((metrics.precision - 0.4).abs() < 1e-12);
        assert!((metrics.recall - 2.0 / 3.0).abs() < 1e-12);
        let ideal = 1.0 + 1.0 / 3.0_f64.log2() + 0.5;
        assert!((metrics.ndcg - 1.5 / ideal).abs() < 1e-12);
        assert_eq!(metrics.hit, 1.0);
        assert!((metrics.average_precision - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_list_shorter_than_k_still_divides_precision_by_k() {
        let metrics = list_metrics(&[7], &[7], 5).unwrap();
        assert!((metrics.precision - 0.2).abs() < 1e-12);
        assert_eq!(
            (metrics.recall, metrics.ndcg, metrics.average_precision),
            (1.0, 1.0, 1.0)
        );
    }

    #[test]
    fn without_truth_nothing_is_measured() {
        assert_eq!(list_metrics(&[1, 2], &[], 5), None);
        assert_eq!(list_metrics(&[1, 2], &[1], 0), None);
        assert_eq!(first_relevant(&[1, 2], &[]), 0.0);
    }

    #[test]
    fn the_first_relevant_item_counts_and_coverage_counts_once() {
        assert_eq!(first_relevant(&[5, 4, 3], &[3, 4]), 0.5);
        let lists: [&[u32]; 2] = [&[0, 1], &[1, 2]];
        assert_eq!(coverage(lists, 6), 0.5);
        assert_eq!(coverage(std::iter::empty(), 0), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn expected_ranks_of_all_items_sum_to_the_triangle(
            scores in proptest::collection::vec(0_u8..5, 1..40),
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let n = scores.len() as f64;
            let total: f64 = (0..scores.len() as u32).filter_map(|item| expected_rank(&scores, item, |_| false)).sum();
            proptest::prop_assert!((total - n * (n - 1.0) / 2.0).abs() < 1e-6);
        }

        #[test]
        fn list_metrics_stay_within_the_unit_interval(
            truth in proptest::collection::btree_set(0_u32..30, 1..10),
            k in 1_usize..25,
        ) {
            let ranked: Vec<u32> = (0..20).collect();
            let truth: Vec<u32> = truth.into_iter().collect();
            let metrics = list_metrics(&ranked, &truth, k).unwrap();
            for value in [metrics.precision, metrics.recall, metrics.ndcg, metrics.hit, metrics.average_precision] {
                proptest::prop_assert!((0.0..=1.0 + 1e-12).contains(&value));
            }
        }
    }
}
