//! Times training against the Python peers (`implicit`, NumPy) on the MovieLens-1M pairs, in one run, side by side,
//! with two threads each; checks quality on the same split; and shows how time grows with factors and pairs.
//!
//! `MARQUEE_DATA_DIR` names the directory of data sets (default: `../shared/data` from the project's root). The peers are installed by
//! `setup/implicit.sh` below the target directory. Every training is a process of its own, so that neither memory nor
//! warm threads leak from one into the next; ours and theirs alternate, and the best time of each counts, because the
//! machine's other work can only make a run slower. `MARQUEE_BENCH_QUICK=1` trains once and leaves out the growth.
//!
//! The last line is one JSON object; each figure has its unit in its name (`_x` is a ratio, greater is better for us).

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use marquee_models::als::{Als, AlsParams, AlsSolver};
use marquee_models::bpr::{Bpr, BprParams, Negatives};
use marquee_models::cosine::{Cosine, CosineParams};
use marquee_models::ease::{Ease, EaseParams};
use marquee_models::{HistoryItem, Interactions, Scorer, Scratch};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

const THREADS: &str = "2";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["worker", model, factors, iterations, source] => {
            let result = work(model, factors.parse()?, iterations.parse()?, source)?;
            println!("{result}");
            Ok(())
        }
        // Cargo passes `--bench`.
        _ => compare(),
    }
}

/// One comparison: our model's name, its iterations, the peer's name.
const MODELS: [(&str, usize, &str); 4] = [
    ("als_cg", 15, "implicit"),
    ("als_cholesky", 15, "implicit"),
    ("bpr", 100, "implicit"),
    ("ease", 1, "numpy"),
];

fn compare() -> Outcome<()> {
    let quick = std::env::var_os("MARQUEE_BENCH_QUICK").is_some();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|directory| directory.join("tests/benches/setup").is_dir())
        .ok_or("tests/benches/setup is not above this crate")?;
    let setup = root.join("tests/benches/setup");
    let data =
        std::env::var_os("MARQUEE_DATA_DIR").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let cache = cache_directory()?;
    let python = run(Command::new("sh").arg(setup.join("implicit.sh")).arg(&cache))?;
    let python = python
        .lines()
        .last()
        .ok_or("the setup script names no interpreter")?
        .to_owned();
    let peer = |arguments: &[&str]| {
        run(Command::new(&python)
            .arg(setup.join("training_peer.py"))
            .args(arguments))
    };
    let split = cache.join("ml-1m-split.bin").display().to_string();
    let pairs = data.join("ml-1m/user-movie-pairs.parquet");
    peer(&["split", &pairs.display().to_string(), &split])?;

    let mut figures = BTreeMap::<String, Value>::new();
    println!(
        "ml-1m pairs, 80/20 per user, {THREADS} threads, 64 factors; best of several alternating runs\n"
    );
    println!(
        "model          iterations     ours      peer   speed-up   NDCG@10 ours/peer   Recall@20 ours/peer   MiB ours/peer"
    );
    for (model, iterations, theirs) in MODELS {
        let count = iterations.to_string();
        let (mut best, mut best_peer) = (Value::Null, Value::Null);
        for _ in 0..if quick { 1 } else { 3 } {
            keep_faster(&mut best, &worker(model, "64", &count, &split)?)?;
            let line = peer(&["train", &split, model, THREADS, "64", &count])?;
            keep_faster(&mut best_peer, &serde_json::from_str(&line)?)?;
        }
        let [ours_s, peer_s] = [number(&best, "seconds")?, number(&best_peer, "seconds")?];
        println!(
            "{model:<14} {iterations:>10} {ours_s:>7.2}s {peer_s:>8.2}s {:>9.2}x {:>11.4}/{:.4} {:>14.4}/{:.4} {:>9.0}/{:.0}",
            peer_s / ours_s,
            number(&best, "ndcg")?,
            number(&best_peer, "ndcg")?,
            number(&best, "recall")?,
            number(&best_peer, "recall")?,
            number(&best, "peak_rss_mib")?,
            number(&best_peer, "peak_rss_mib")?,
        );
        for (prefix, values) in [
            (model.to_owned(), &best),
            (format!("{theirs}_{model}"), &best_peer),
        ] {
            figures.insert(format!("{prefix}_seconds"), values["seconds"].clone());
            figures.insert(format!("{prefix}_peak_rss_mib"), values["peak_rss_mib"].clone());
            figures.insert(format!("{prefix}_ndcg_at_10"), values["ndcg"].clone());
            figures.insert(format!("{prefix}_recall_at_20"), values["recall"].clone());
        }
        figures.insert(format!("{model}_speedup_x"), json!(peer_s / ours_s));
        if let Some(fold_in) = best.get("fold_in_microseconds") {
            figures.insert(format!("{model}_fold_in_microseconds"), fold_in.clone());
        }
    }
    // Without a peer: cosine with every neighbour kept, and BPR as the paper has it.
    for (model, iterations) in [("cosine", "1"), ("bpr_uniform", "100")] {
        let result = worker(model, "64", iterations, &split)?;
        println!(
            "{model:<14} {iterations:>10} {:>7.2}s {:>32.4} {:>21.4}",
            number(&result, "seconds")?,
            number(&result, "ndcg")?,
            number(&result, "recall")?,
        );
        figures.insert(format!("{model}_seconds"), result["seconds"].clone());
        figures.insert(format!("{model}_ndcg_at_10"), result["ndcg"].clone());
        figures.insert(format!("{model}_recall_at_20"), result["recall"].clone());
    }
    if !quick {
        growth(&split, &mut figures)?;
    }
    let peaks = MODELS
        .iter()
        .filter_map(|(model, ..)| figures.get(&format!("{model}_peak_rss_mib"))?.as_f64());
    figures.insert("peak_rss_mib".into(), json!(peaks.fold(0.0, f64::max)));
    println!("\n{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// Seconds per iteration over factors (ml-1m) and over simulated pairs (64 factors).
fn growth(split: &str, figures: &mut BTreeMap<String, Value>) -> Outcome<()> {
    println!("\nseconds per iteration by factors, ml-1m");
    println!("model              32       64      128      256");
    for model in ["als_cg", "als_cholesky", "bpr"] {
        print!("{model:<14}");
        for factors in ["32", "64", "128", "256"] {
            let seconds = number(&worker(model, factors, "4", split)?, "seconds")? / 4.0;
            print!(" {seconds:>8.3}");
            figures.insert(
                format!("{model}_{factors}_factors_seconds_per_iteration"),
                json!(seconds),
            );
        }
        println!();
    }
    println!("\nseconds per iteration by simulated pairs, 64 factors (cosine: the whole fit)");
    println!("model            100k       1M      10M");
    for model in ["als_cg", "als_cholesky", "bpr", "cosine"] {
        print!("{model:<14}");
        for (name, pairs) in [("100k", "100000"), ("1m", "1000000"), ("10m", "10000000")] {
            let result = worker(model, "64", "2", &format!("simulated:{pairs}"))?;
            let seconds = number(&result, "seconds")? / if model == "cosine" { 1.0 } else { 2.0 };
            print!(" {seconds:>8.3}");
            let unit = if model == "cosine" {
                "seconds"
            } else {
                "seconds_per_iteration"
            };
            figures.insert(format!("{model}_{name}_pairs_{unit}"), json!(seconds));
            figures.insert(
                format!("{model}_{name}_pairs_peak_rss_mib"),
                result["peak_rss_mib"].clone(),
            );
        }
        println!();
    }
    Ok(())
}

/// A directory below the target directory, which is where the running benchmark lies.
fn cache_directory() -> Outcome<PathBuf> {
    let executable = std::env::current_exe()?;
    let target = executable
        .ancestors()
        .nth(3)
        .ok_or("the benchmark lies in no target directory")?;
    let cache = target.join("training-bench");
    std::fs::create_dir_all(&cache)?;
    Ok(cache)
}

fn worker(model: &str, factors: &str, iterations: &str, source: &str) -> Outcome<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env("RAYON_NUM_THREADS", THREADS);
    Ok(serde_json::from_str(&run(
        command.args(["worker", model, factors, iterations, source])
    )?)?)
}

fn run(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn keep_faster(best: &mut Value, next: &Value) -> Outcome<()> {
    if best.is_null() || number(next, "seconds")? < number(best, "seconds")? {
        *best = next.clone();
    }
    Ok(())
}

fn number(values: &Value, name: &str) -> Outcome<f64> {
    values[name]
        .as_f64()
        .ok_or_else(|| format!("{name} is missing in {values}").into())
}

/// Trains one model in this process and reports on it.
fn work(model: &str, factors: usize, iterations: usize, source: &str) -> Outcome<Value> {
    let (train, test) = match source.strip_prefix("simulated:") {
        Some(pairs) => (simulated(pairs.parse()?)?, Vec::new()),
        None => read_split(source)?,
    };
    let als = |solver| AlsParams {
        factors,
        iterations,
        regularization: 1.0,
        alpha: 10.0,
        solver,
        ..AlsParams::default()
    };
    let begin = Instant::now();
    let fitted = match model {
        "als_cg" => {
            let params = als(AlsSolver::ConjugateGradient { steps: 3 }).check()?;
            Fitted::Als(Als::fit(&train, &params)?)
        }
        "als_cholesky" => Fitted::Als(Als::fit(&train, &als(AlsSolver::Cholesky).check()?)?),
        // The peer draws its negatives by popularity; the paper, and our default, uniformly.
        "bpr" | "bpr_uniform" => {
            let params = BprParams {
                factors,
                iterations,
                learning_rate: 0.01,
                regularization: 0.01,
                negatives: if model == "bpr" {
                    Negatives::Popular
                } else {
                    Negatives::Uniform
                },
                ..BprParams::default()
            };
            Fitted::Bpr(Bpr::fit(&train, &params.check()?)?)
        }
        "ease" => Fitted::Other(Box::new(Ease::fit(
            &train,
            &EaseParams { lambda: 500.0 }.check()?,
        )?)),
        "cosine" => {
            let params = CosineParams {
                // On the real pairs all, as the literature's plain item-item model does.
                neighbours: if test.is_empty() { 100 } else { train.items() },
                shrinkage: 0.0,
            };
            Fitted::Other(Box::new(Cosine::fit(&train, &params.check()?)?))
        }
        other => return Err(format!("no model {other}").into()),
    };
    let seconds = begin.elapsed().as_secs_f64();
    let peak_rss_mib = peak_rss_mib()?;
    let mut result = json!({ "seconds": seconds, "peak_rss_mib": peak_rss_mib });
    if !test.is_empty() {
        let (trained, folded_in, microseconds) = fitted.evaluate(&train, &test);
        result["ndcg"] = json!(trained.0);
        result["recall"] = json!(trained.1);
        result["fold_in_ndcg"] = json!(folded_in.0);
        result["fold_in_recall"] = json!(folded_in.1);
        result["fold_in_microseconds"] = json!(microseconds);
    }
    Ok(result)
}

enum Fitted {
    Als(Als),
    Bpr(Bpr),
    Other(Box<dyn Scorer>),
}

/// NDCG@10 and Recall@20.
type Quality = (f64, f64);

impl Fitted {
    /// Quality of the trained user vectors (as the peers are judged), quality of the fold-in of the same histories,
    /// and the median time of a fold-in of the latest ten choices in microseconds.
    fn evaluate(&self, train: &Interactions, test: &[Vec<u32>]) -> (Quality, Quality, f64) {
        let mut scratch = Scratch::default();
        let scorer: &dyn Scorer = match self {
            Self::Als(model) => model,
            Self::Bpr(model) => model,
            Self::Other(model) => model.as_ref(),
        };
        let folded_in = quality(train, test, |user, out| {
            scorer.score_into(&history(train, user), &mut scratch, out);
        });
        let trained = match self {
            Self::Als(model) => quality(train, test, |user, out| {
                let scores = model.item_factors().dot(&model.user_factors().row(user));
                out.iter_mut().zip(&scores).for_each(|(out, &score)| *out = score);
            }),
            Self::Bpr(model) => quality(train, test, |user, out| {
                let scores = model.item_factors().dot(&model.user_factors().row(user)) + model.item_biases();
                out.iter_mut().zip(&scores).for_each(|(out, &score)| *out = score);
            }),
            Self::Other(_) => folded_in,
        };
        let mut vector = match self {
            Self::Als(model) => vec![0.0; model.factors()],
            Self::Bpr(model) => vec![0.0; model.factors()],
            Self::Other(model) => vec![0.0; model.items()],
        };
        let mut times: Vec<f64> = (0..train.users().min(2000))
            .map(|user| {
                let history = history(train, user);
                let latest = &history[history.len().saturating_sub(10)..];
                let begin = Instant::now();
                match self {
                    Self::Als(model) => model.fold_in_into(latest, &mut scratch, &mut vector),
                    Self::Bpr(model) => model.fold_in_into(latest, &mut scratch, &mut vector),
                    Self::Other(model) => model.score_into(latest, &mut scratch, &mut vector),
                }
                begin.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (trained, folded_in, times[times.len() / 2])
    }
}

fn history(train: &Interactions, user: usize) -> Vec<HistoryItem> {
    let row = train.by_user().outer_view(user);
    let items = row.as_ref().map_or(&[][..], |row| row.indices());
    items
        .iter()
        .map(|&item| HistoryItem { item, weight: 1.0 })
        .collect()
}

/// Means over all users with test pairs; the full catalogue is ranked without the training pairs.
fn quality(train: &Interactions, test: &[Vec<u32>], mut score: impl FnMut(usize, &mut [f32])) -> Quality {
    let discount = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let mut scores = vec![0.0_f32; train.items()];
    let (mut ndcg, mut recall, mut users) = (0.0, 0.0, 0.0);
    for (user, truth) in test.iter().enumerate().filter(|(_, truth)| !truth.is_empty()) {
        score(user, &mut scores);
        for seen in history(train, user) {
            scores[seen.item as usize] = f32::NEG_INFINITY;
        }
        let mut order: Vec<u32> = (0_u32..).take(scores.len()).collect();
        let descending =
            |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
        if order.len() > 20 {
            order.select_nth_unstable_by(20, descending);
            order.truncate(20);
        }
        order.sort_unstable_by(descending);
        let hits = order
            .iter()
            .enumerate()
            .filter(|(_, item)| truth.contains(item))
            .map(|(rank, _)| rank);
        let gain: f64 = hits.clone().filter(|&rank| rank < 10).map(discount).sum();
        ndcg += gain / (0..truth.len().min(10)).map(discount).sum::<f64>();
        recall += hits.count() as f64 / truth.len() as f64;
        users += 1.0;
    }
    (ndcg / users, recall / users)
}

/// Reads what `training_peer.py split` wrote: the training matrix, and each user's test items.
fn read_split(path: &str) -> Outcome<(Interactions, Vec<Vec<u32>>)> {
    let bytes = std::fs::read(path)?;
    let numbers: Vec<u32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&word| u32::from_le_bytes(word))
        .collect();
    let [users, items, count, _, pairs @ ..] = numbers.as_slice() else {
        return Err("the split is too short".into());
    };
    let (pairs, _) = pairs.as_chunks::<2>();
    let (train, rest) = pairs
        .split_at_checked(*count as usize)
        .ok_or("the split is truncated")?;
    let triplets: Vec<_> = train.iter().map(|&[user, item]| (user, item, 1.0)).collect();
    let mut test = vec![Vec::new(); *users as usize];
    for &[user, item] in rest {
        test.get_mut(user as usize)
            .ok_or("the split names an unknown user")?
            .push(item);
    }
    Ok((
        Interactions::from_triplets(*users as usize, *items as usize, &triplets)?,
        test,
    ))
}

/// Pairs with the long-tailed popularity of real catalogues: item = catalogue · u³ for uniform u, a hundred per user.
fn simulated(pairs: usize) -> Outcome<Interactions> {
    let (users, items) = (pairs / 100, 20_000.min(pairs / 50));
    let mut state = 1_u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 24) as f64
    };
    let triplets: Vec<_> = (0..pairs)
        .map(|pair| {
            (
                (pair % users) as u32,
                (items as f64 * uniform().powi(3)) as u32,
                1.0,
            )
        })
        .collect();
    Ok(Interactions::from_triplets(users, items, &triplets)?)
}

/// The greatest resident size of this process so far, as Linux counts it.
fn peak_rss_mib() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .ok_or("no VmHWM line")?;
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .ok_or("an empty VmHWM line")?
        .parse()?;
    Ok(kib / 1024.0)
}
