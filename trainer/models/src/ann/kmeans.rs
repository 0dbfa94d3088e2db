//! Lloyd's k-means on rows, the same whatever the number of threads.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::kernels::dot;
use crate::padded::Padded;

/// `count` centroids of the `sample` (rows in random order, at least `count` of them). They begin as its first rows; one
/// that is nearest to nothing begins again at a random row.
pub(super) fn fit(
    rows: &Padded,
    sample: &[usize],
    count: usize,
    iterations: usize,
    rng: &mut ChaCha8Rng,
) -> Padded {
    let mut learned = Padded::zeros(sample.len(), rows.factors());
    for (to, &from) in learned.rows_mut().zip(sample) {
        to.copy_from_slice(rows.row(from as u32));
    }
    let mut centroids = Padded::zeros(count, rows.factors());
    for (list, centroid) in (0_u32..).zip(centroids.rows_mut()) {
        centroid.copy_from_slice(learned.row(list));
    }
    for _ in 0..iterations {
        let (members, ends) = grouped(&assign(&learned, &centroids), count);
        let restarts: Vec<u32> = (0..count)
            .map(|_| rng.random_range(0..sample.len() as u32))
            .collect();
        let stride = centroids.stride();
        centroids
            .values_mut()
            .par_chunks_exact_mut(stride)
            .enumerate()
            .for_each(|(list, centroid)| {
                let begin = if list == 0 { 0 } else { ends[list - 1] };
                let members = &members[begin as usize..ends[list] as usize];
                if members.is_empty() {
                    centroid.copy_from_slice(learned.row(restarts[list]));
                    return;
                }
                centroid.fill(0.0);
                for &member in members {
                    for (sum, value) in centroid.iter_mut().zip(learned.row(member)) {
                        *sum += value;
                    }
                }
                let count = members.len() as f32;
                centroid.iter_mut().for_each(|sum| *sum /= count);
            });
    }
    centroids
}

/// The nearest centroid of each row, of equals the first: `|x − c|²` is least where `x·c − |c|²/2` is greatest.
pub(super) fn assign(rows: &Padded, centroids: &Padded) -> Vec<u32> {
    let offsets: Vec<f32> = (0..centroids.rows() as u32)
        .map(|list| {
            let centroid = centroids.row(list);
            dot(centroid, centroid) / 2.0
        })
        .collect();
    (0..rows.rows() as u32)
        .into_par_iter()
        .map(|row| {
            let (mut nearest, mut best) = (0, f32::NEG_INFINITY);
            centroids.score_each(rows.row(row), |list, score| {
                let score = score - offsets[list];
                if score > best {
                    (nearest, best) = (list as u32, score);
                }
            });
            nearest
        })
        .collect()
}

/// Rows by list, ascending within each, and where each list ends.
pub(super) fn grouped(assigned: &[u32], lists: usize) -> (Vec<u32>, Vec<u32>) {
    let mut ends = vec![0_u32; lists];
    for &list in assigned {
        ends[list as usize] += 1;
    }
    let mut next = Vec::with_capacity(lists);
    let mut end = 0;
    for count in &mut ends {
        next.push(end);
        end += *count;
        *count = end;
    }
    let mut members = vec![0_u32; assigned.len()];
    for (row, &list) in (0_u32..).zip(assigned) {
        let place = &mut next[list as usize];
        members[*place as usize] = row;
        *place += 1;
    }
    (members, ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use rand::SeedableRng;

    #[test]
    fn two_heaps_get_a_centroid_each_at_their_means() {
        let points = array![[0.0_f32, 0.0], [9.0, 8.0], [0.0, 2.0], [9.0, 10.0], [3.0, 1.0]];
        let rows = Padded::from_array(&points.view());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let centroids = fit(&rows, &[0, 1, 2, 3, 4], 2, 5, &mut rng);
        assert_eq!(centroids.row(0)[..2], [1.0, 1.0]);
        assert_eq!(centroids.row(1)[..2], [9.0, 9.0]);
        assert_eq!(assign(&rows, &centroids), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn groups_keep_the_order_of_rows() {
        assert_eq!(grouped(&[2, 0, 2, 0], 4), (vec![1, 3, 0, 2], vec![2, 2, 4, 4]));
    }
}
