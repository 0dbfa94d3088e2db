use ndarray::{Array2, Axis, array};
use rand::RngExt;

use super::*;
use crate::tensors::Tensor;

/// Vectors in heaps, of lengths that differ as popularity does.
fn heaps(count: usize, dimensions: usize, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || (0..6).map(|_| rng.random::<f32>() - 0.5).sum::<f32>() * std::f32::consts::SQRT_2;
    let centres = Array2::from_shape_simple_fn((20, dimensions), &mut normal);
    let mut vectors = Array2::from_shape_simple_fn((count, dimensions), || 0.4 * normal());
    for (row, mut vector) in vectors.rows_mut().into_iter().enumerate() {
        vector += &centres.row(row * 7 % 20);
        vector *= 0.3 + 1.0 / (1.0 + (row % 50) as f32);
    }
    vectors
}

fn params(exact_below: usize) -> Checked<VectorIndexParams> {
    VectorIndexParams {
        exact_below,
        recall_at: 20,
        ..VectorIndexParams::default()
    }
    .check()
    .unwrap()
}

fn build(vectors: &Array2<f32>, metric: Metric, exact_below: usize) -> VectorIndex {
    VectorIndex::build(vectors.view(), None, metric, &params(exact_below), 5).unwrap()
}

fn items(hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(|hit| hit.item).collect()
}

#[test]
fn a_small_index_is_exact_by_either_metric() {
    let vectors = array![[1.0_f32, 0.0], [3.0, 3.0], [0.0, 1.0], [0.0, 0.0]];
    let mut scratch = SearchScratch::default();
    let by_product = build(&vectors, Metric::InnerProduct, 100);
    assert!(by_product.is_exact());
    let hits = by_product.search(&[1.0, 0.5], 3, |_| true, &mut scratch);
    assert_eq!(items(hits), [1, 0, 2]);
    assert_eq!(hits[0].score, 4.5);
    let by_cosine = build(&vectors, Metric::Cosine, 100);
    let hits = by_cosine.search(&[2.0, 0.5], 2, |_| true, &mut scratch);
    assert_eq!(items(hits), [0, 1]);
    assert!((hits[0].score - 2.0 / 4.25_f32.sqrt()).abs() < 1e-6);
    // A zero vector is like nothing, and equals come by number.
    assert_eq!(items(by_cosine.similar(3, 3, &mut scratch)), [0, 1, 2]);
    assert_eq!(items(by_cosine.similar(1, 1, &mut scratch)), [0]);
}

#[test]
fn lists_find_what_the_whole_scan_finds_at_the_recall_they_were_built_for() {
    let (vectors, asked) = (heaps(6000, 12, 1), heaps(300, 12, 2));
    for metric in [Metric::InnerProduct, Metric::Cosine] {
        let index = VectorIndex::build(vectors.view(), Some(asked.view()), metric, &params(1000), 5).unwrap();
        assert!(!index.is_exact() && index.sample_recall() >= 0.985);
        let (mut scratch, mut other) = (SearchScratch::default(), SearchScratch::default());
        let mut found = 0;
        // Queries that the index was not calibrated on.
        let unseen = heaps(500, 12, 2);
        for query in unseen.rows().into_iter().skip(300) {
            let query = query.to_vec();
            let exact = items(index.search_exactly(&query, 20, |_| true, &mut scratch));
            let hits = index.search(&query, 20, |_| true, &mut other);
            assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
            found += items(hits).iter().filter(|item| exact.contains(item)).count();
        }
        assert!(found as f64 >= 0.96 * 200.0 * 20.0, "{metric:?}: {found} of 4000");
    }
}

#[test]
fn the_same_seed_gives_the_same_index_on_any_number_of_threads() {
    let vectors = heaps(3000, 8, 3);
    let of = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| build(&vectors, Metric::InnerProduct, 100))
    };
    let index = of(1);
    assert!(!index.is_exact());
    assert_eq!(index, of(3));
}

#[test]
fn what_is_not_admitted_is_replaced_by_the_next_best_however_far() {
    let vectors = heaps(3000, 8, 4);
    let index = build(&vectors, Metric::InnerProduct, 100);
    let mut scratch = SearchScratch::default();
    let query = vectors.row(0).to_vec();
    let few = [5, 700, 2999];
    let hits = index.search(&query, 10, |item| few.contains(&item), &mut scratch);
    let mut found = items(hits);
    found.sort_unstable();
    assert_eq!(found, few);
    assert!(index.search(&query, 0, |_| true, &mut scratch).is_empty());
    assert!(index.search(&query[1..], 5, |_| true, &mut scratch).is_empty());
    assert!(index.similar(3000, 5, &mut scratch).is_empty());
}

#[test]
fn appended_vectors_are_found_under_the_next_numbers() {
    let vectors = heaps(3000, 8, 4);
    let mut index = build(&vectors, Metric::InnerProduct, 100);
    let query = vectors.row(0).to_vec();
    let long = vectors.row(0).insert_axis(Axis(0)).mapv(|value| 100.0 * value);
    index.append(long.view()).unwrap();
    assert_eq!((index.len(), index.appended()), (3001, 1));
    let mut scratch = SearchScratch::default();
    assert_eq!(index.search(&query, 1, |_| true, &mut scratch)[0].item, 3000);
    assert!(index.append(Array2::zeros((1, 7)).view()).is_err());
    assert!(index.append(Array2::from_elem((1, 8), f32::NAN).view()).is_err());
    assert_eq!(index.len(), 3001);
}

#[test]
fn storage_keeps_an_index_and_refuses_what_does_not_fit() {
    for exact_below in [100, 100_000] {
        let mut index = build(&heaps(3000, 8, 6), Metric::Cosine, exact_below);
        index.append(heaps(3, 8, 7).view()).unwrap();
        let loaded = VectorIndex::from_tensors(index.to_tensors()).unwrap();
        assert_eq!(loaded.len(), index.len());
        let (mut scratch, mut other) = (SearchScratch::default(), SearchScratch::default());
        for item in [0, 17, 3002] {
            assert_eq!(
                loaded.similar(item, 9, &mut scratch),
                index.similar(item, 9, &mut other)
            );
        }
    }
    let index = build(&heaps(3000, 8, 6), Metric::Cosine, 100);
    let damaged = |name: &str, tensor| {
        let mut map = index.to_tensors();
        map.insert(name, tensor);
        VectorIndex::from_tensors(map)
    };
    for result in [
        damaged("items", Tensor::u32s(vec![0; 3000])),
        damaged("items", Tensor::u32s(vec![0])),
        damaged("metric", Tensor::u32s(vec![9])),
        damaged("ends", Tensor::u32s(vec![3000])),
        damaged("probes", Tensor::u32s(vec![0])),
        damaged("centroids", Tensor::matrix(&Array2::zeros((2, 8)))),
    ] {
        assert!(matches!(result, Err(Error::Stored(_))));
    }
}

#[test]
fn what_cannot_be_indexed_is_refused() {
    let build = |vectors: &Array2<f32>, queries: Option<&Array2<f32>>| {
        let queries = queries.map(|queries| queries.view());
        VectorIndex::build(vectors.view(), queries, Metric::Cosine, &params(10), 0)
    };
    assert!(matches!(build(&Array2::zeros((0, 4)), None), Err(Error::Data(_))));
    assert!(matches!(build(&Array2::zeros((4, 0)), None), Err(Error::Data(_))));
    assert!(matches!(
        build(&array![[0.0, f32::NAN]], None),
        Err(Error::Data(_))
    ));
    assert!(matches!(
        build(&heaps(20, 4, 0), Some(&heaps(20, 5, 0))),
        Err(Error::Data(_))
    ));
    let refused = VectorIndexParams {
        recall: 0.0,
        ..VectorIndexParams::default()
    };
    assert!(matches!(
        refused.check(),
        Err(Error::Hyperparameter {
            name: "ann.recall",
            ..
        })
    ));
}
