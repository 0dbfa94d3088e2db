//! A real process, really killed: this test runs its own binary as a child and ends it with SIGKILL.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use marquee_feature_processor::MemorySink;
use marquee_runtime::bus::{Handler, Start};
use marquee_schemas::Topic;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::harness::{Log, catalogue, config, processor, rating, undisturbed};

const FOLDER: &str = "MARQUEE_TEST_KILL_FOLDER";
const PARTITIONS: i32 = 2;

fn log() -> Log {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut log = Log::default();
    for n in 0..12_000_i64 {
        let (user, movie) = (
            rng.next_u64() % 100,
            u32::try_from(1 + rng.next_u64() % 40).unwrap(),
        );
        log.event(
            2,
            &rating(&format!("{n}"), user, movie, 4.0, 1_000_000 + n * 1_000),
        );
    }
    log
}

/// The child: folds the log in small batches from wherever it was, one line per batch.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let (log, movies) = (log(), catalogue(40));
    let mut fold = processor(&config(&folder), &movies, &MemorySink::default());
    let partitions: Vec<i32> = (0..PARTITIONS).collect();
    let starts = fold.assigned(Topic::Interactions, &partitions).unwrap();
    let from = |partition: i32| match starts[&partition] {
        Start::At(offset) => offset,
        _ => 0,
    };
    let left: Vec<Vec<_>> = partitions
        .iter()
        .map(|&partition| {
            let records = log.0[&partition].iter();
            records
                .filter(|record| record.offset >= from(partition))
                .cloned()
                .collect()
        })
        .collect();
    let (mut even, mut odd) = (left[0].chunks(40), left[1].chunks(40));
    loop {
        let batch: Vec<_> = [even.next(), odd.next()]
            .into_iter()
            .flatten()
            .flatten()
            .cloned()
            .collect();
        if batch.is_empty() {
            break;
        }
        fold.handle(batch).unwrap();
        writeln!(std::io::stderr(), "batch").unwrap();
    }
}

#[test]
fn a_process_killed_ten_times_ends_with_the_state_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut kills = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let lifetime = if kills < 10 {
            usize::try_from(2 + rng.next_u64() % 10).unwrap()
        } else {
            usize::MAX
        };
        let lived = lines
            .map_while(Result::ok)
            .filter(|line| line == "batch")
            .take(lifetime)
            .count();
        if lived == lifetime {
            // Another moment of the next batch each time.
            for _ in 0..rng.next_u64() % 2_000_000 {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        } else {
            assert!(child.wait().unwrap().success());
            break;
        }
    }
    assert_eq!(kills, 10);
    let peace = tempfile::tempdir().unwrap();
    let (log, movies) = (log(), catalogue(40));
    let (_open, expected) = undisturbed(&config(peace.path()), &movies, &log, 1_000);
    let mut fold = processor(&config(folder.path()), &movies, &MemorySink::default());
    fold.assigned(Topic::Interactions, &log.partitions()).unwrap();
    for (partition, hash) in &expected.hashes {
        assert_eq!(fold.stores()[partition].state_hash().unwrap(), *hash);
    }
}
