//! From how many vectors on an index beats scoring all of them, at what recall, and what building it costs.
//!
//! The vectors are made to be like factors of a trained model: heaps of items that resemble each other, a spectrum that
//! falls off, lengths that vary as popularity does; queries are people who like one to three of the heaps. Recall is
//! counted on queries the index has not seen. One thread searches; all threads build. `MARQUEE_BENCH_QUICK=1` leaves out
//! what is larger than 100,000.
//!
//! The last line is one JSON object; each figure has its unit in its name.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use marquee_models::ann::{Hit, Metric, SearchScratch, VectorIndex, VectorIndexParams};
use ndarray::{Array2, ArrayView2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

const DIMENSIONS: usize = 64;
const SIZES: [(&str, usize); 9] = [
    ("1k", 1_000),
    ("3k", 3_000),
    ("5k", 5_000),
    ("10k", 10_000),
    ("20k", 20_000),
    ("50k", 50_000),
    ("100k", 100_000),
    ("300k", 300_000),
    ("1m", 1_000_000),
];
/// Queries that the index is calibrated with, and as many to judge it.
const QUERIES: usize = 300;
/// Items asked for.
const LIST: usize = 100;
/// Recall without which speed is worth nothing.
const RECALL: f64 = 0.98;

fn main() -> Outcome<()> {
    let largest = if std::env::var_os("MARQUEE_BENCH_QUICK").is_some() {
        100_000
    } else {
        1_000_000
    };
    let mut figures = BTreeMap::<String, Value>::new();
    println!(
        "{DIMENSIONS} dimensions, the best {LIST}; latencies are medians over {QUERIES} unseen queries, one thread\n"
    );
    println!("metric          vectors    build      exact        ann   speed-up  recall@{LIST}");
    for metric in [Metric::InnerProduct, Metric::Cosine] {
        let name = match metric {
            Metric::InnerProduct => "inner_product",
            Metric::Cosine => "cosine",
        };
        let mut border = None;
        for (label, count) in SIZES.into_iter().filter(|&(_, count)| count <= largest) {
            let row = measure(metric, count)?;
            println!(
                "{name:<14} {count:>8} {:>7.2}s {:>7.0} µs {:>7.0} µs {:>9.1}x {:>11.4}",
                row.build_seconds,
                row.exact_us,
                row.ann_us,
                row.exact_us / row.ann_us,
                row.recall,
            );
            let wins = !row.is_exact && row.recall >= RECALL && row.ann_us < row.exact_us;
            border = if wins { border.or(Some(count)) } else { None };
            for (figure, value) in [
                ("build_seconds", row.build_seconds),
                ("exact_p50_microseconds", row.exact_us),
                ("ann_p50_microseconds", row.ann_us),
                ("recall_at_100", row.recall),
            ] {
                figures.insert(format!("{name}_{label}_{figure}"), json!(value));
            }
        }
        figures.insert(format!("{name}_border_vectors"), json!(border));
    }
    println!("\n{}", serde_json::to_string(&figures)?);
    Ok(())
}

struct Row {
    build_seconds: f64,
    exact_us: f64,
    ann_us: f64,
    recall: f64,
    is_exact: bool,
}

fn measure(metric: Metric, count: usize) -> Outcome<Row> {
    let world = World::new();
    let vectors = world.items(count);
    let people = world.people(2 * QUERIES);
    let (known, unseen) = people.view().split_at(ndarray::Axis(0), QUERIES);
    let params = VectorIndexParams {
        exact_below: 0,
        ..VectorIndexParams::default()
    };
    let begin = Instant::now();
    let index = VectorIndex::build(vectors.view(), Some(known), metric, &params.check()?, 0)?;
    let build_seconds = begin.elapsed().as_secs_f64();
    let mut scratch = SearchScratch::default();
    let (ann_us, found) = ask(unseen, |query| {
        index.search(query, LIST, |_| true, &mut scratch).to_vec()
    });
    let (exact_us, truth) = ask(unseen, |query| {
        index.search_exactly(query, LIST, |_| true, &mut scratch).to_vec()
    });
    let common: usize = found
        .iter()
        .zip(&truth)
        .map(|(found, truth)| {
            found
                .iter()
                .filter(|hit| truth.iter().any(|true_hit| true_hit.item == hit.item))
                .count()
        })
        .sum();
    Ok(Row {
        is_exact: index.is_exact(),
        build_seconds,
        exact_us,
        ann_us,
        recall: common as f64 / truth.iter().map(Vec::len).sum::<usize>() as f64,
    })
}

/// The median time of an answer in microseconds, and the answers.
fn ask(queries: ArrayView2<'_, f32>, mut search: impl FnMut(&[f32]) -> Vec<Hit>) -> (f64, Vec<Vec<Hit>>) {
    let (mut times, mut answers) = (Vec::new(), Vec::new());
    for query in queries.rows() {
        let query = query.to_vec();
        let begin = Instant::now();
        let hits = search(&query);
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        answers.push(hits);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], answers)
}

/// Heaps of items, and how much each dimension matters.
struct World {
    heaps: Array2<f32>,
    spectrum: Vec<f32>,
}

impl World {
    const HEAPS: usize = 200;

    fn new() -> Self {
        let mut draw = Draw::new(1);
        Self {
            heaps: Array2::from_shape_simple_fn((Self::HEAPS, DIMENSIONS), || draw.normal()),
            spectrum: (0..DIMENSIONS)
                .map(|dimension| 1.0 / ((1 + dimension) as f32).sqrt())
                .collect(),
        }
    }

    fn items(&self, count: usize) -> Array2<f32> {
        let mut draw = Draw::new(2);
        let mut items = Array2::zeros((count, DIMENSIONS));
        for mut item in items.rows_mut() {
            let heap = self.heaps.row(draw.below(Self::HEAPS));
            let length = (0.5 * draw.normal()).exp();
            for ((value, &centre), &weight) in item.iter_mut().zip(heap).zip(&self.spectrum) {
                *value = length * weight * (centre + 0.6 * draw.normal());
            }
        }
        items
    }

    fn people(&self, count: usize) -> Array2<f32> {
        let mut draw = Draw::new(3);
        let mut people = Array2::zeros((count, DIMENSIONS));
        for mut person in people.rows_mut() {
            let tastes = 1 + draw.below(3);
            for _ in 0..tastes {
                person += &self.heaps.row(draw.below(Self::HEAPS));
            }
            for (value, &weight) in person.iter_mut().zip(&self.spectrum) {
                *value = weight * (*value / (tastes as f32).sqrt() + 0.5 * draw.normal());
            }
        }
        people
    }
}

struct Draw(ChaCha8Rng);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// Box, Muller 1958.
    fn normal(&mut self) -> f32 {
        let (a, b) = (1.0 - self.0.random::<f32>(), self.0.random::<f32>());
        (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos()
    }
}
