//! Merging small files of one date and shard.
//!
//! Files are ranked by size in powers of eight, and a run of neighbours of at most the same rank is merged once it
//! is long enough: a row is rewritten a number of times that grows with the logarithm of the day's size. Only
//! neighbours in offset order are merged, so ranges within a folder never come to overlap.

use std::collections::{BTreeMap, BTreeSet};

use super::{FileEntry, NewFile, Shard, read_file, write_file};
use crate::config::CompactionConfig;
use crate::error::Error;

const SMALLEST: u64 = 16 * 1024;

fn rank(bytes: u64) -> u32 {
    (bytes / SMALLEST).checked_ilog(8).map_or(0, |rank| rank + 1)
}

/// The first run of neighbouring files that is worth merging.
fn run_to_merge<'a>(files: &[&'a FileEntry], config: &CompactionConfig) -> Option<Vec<&'a FileEntry>> {
    for limit in 0..=rank(config.max_file_bytes) {
        let mut run: Vec<&FileEntry> = Vec::new();
        let mut bytes = 0;
        for &file in files {
            let fits = file.bytes < config.max_file_bytes && rank(file.bytes) <= limit;
            if !fits || bytes + file.bytes > config.max_file_bytes {
                if run.len() >= config.min_files {
                    return Some(run);
                }
                run.clear();
                bytes = 0;
            }
            if fits {
                bytes += file.bytes;
                run.push(file);
            }
        }
        if run.len() >= config.min_files {
            return Some(run);
        }
    }
    None
}

impl Shard {
    /// Merges runs of small files until none is left that is worth it. Returns the number of files merged away.
    pub(crate) fn compact(&mut self, config: &CompactionConfig) -> Result<usize, Error> {
        if config.min_files < 2 {
            return Ok(0);
        }
        let mut merged = 0;
        while let Some((folder, run)) = self.next_run(config) {
            let mut batches = Vec::new();
            let schema = self.table().schema();
            for entry in &run {
                batches.extend(read_file(&self.path_of(entry), &schema)?);
            }
            let first_offset = run.iter().map(|entry| entry.first_offset).min().unwrap_or(0);
            let next_offset = run.iter().map(|entry| entry.next_offset).max().unwrap_or(0);
            let rows: u64 = run.iter().map(|entry| entry.rows).sum();
            let read: usize = batches.iter().map(|batch| batch.num_rows()).sum();
            let path = self.file_path(&folder, first_offset, next_offset);
            if u64::try_from(read).ok() != Some(rows) {
                return Err(Error::damaged(
                    &self.path_of(&run[0]),
                    format!("files hold {read} rows where the manifest counts {rows}"),
                ));
            }
            let bytes = write_file(&batches)?;
            let entry = FileEntry {
                path,
                first_offset,
                next_offset,
                rows,
                bytes: bytes.len() as u64,
                min_ms: run.iter().filter_map(|entry| entry.min_ms).min(),
                max_ms: run.iter().filter_map(|entry| entry.max_ms).max(),
                purged_to: run.iter().map(|entry| entry.purged_to).min().unwrap_or(0),
            };
            let obsolete: BTreeSet<String> = run.iter().map(|entry| entry.path.clone()).collect();
            tracing::debug!(
                table = %self.table(), kafka.partition = self.partition(), files = run.len(), rows, "compacting"
            );
            let position = self.manifest().next_offset;
            self.commit(vec![NewFile { entry, bytes }], &obsolete, position, 0)?;
            merged += run.len();
        }
        Ok(merged)
    }

    fn next_run(&self, config: &CompactionConfig) -> Option<(String, Vec<FileEntry>)> {
        let mut folders: BTreeMap<&str, Vec<&FileEntry>> = BTreeMap::new();
        for file in &self.manifest().files {
            folders.entry(file.folder()).or_default().push(file);
        }
        folders.into_iter().find_map(|(folder, mut files)| {
            files.sort_by_key(|file| file.first_offset);
            let run = run_to_merge(&files, config)?;
            Some((folder.to_owned(), run.into_iter().cloned().collect()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: i64, bytes: u64) -> FileEntry {
        FileEntry {
            path: format!("0-{first}"),
            first_offset: first,
            next_offset: first + 1,
            rows: 1,
            bytes,
            min_ms: None,
            max_ms: None,
            purged_to: 0,
        }
    }

    fn run(sizes: &[u64], config: &CompactionConfig) -> Option<Vec<i64>> {
        let files: Vec<FileEntry> = sizes
            .iter()
            .zip(0..)
            .map(|(&bytes, at)| file(at, bytes))
            .collect();
        let files: Vec<&FileEntry> = files.iter().collect();
        run_to_merge(&files, config).map(|run| run.iter().map(|file| file.first_offset).collect())
    }

    #[test]
    fn only_long_runs_of_small_neighbours_are_merged_and_the_smallest_first() {
        let config = CompactionConfig {
            min_files: 3,
            max_file_bytes: 8 << 20,
        };
        assert_eq!(run(&[1_000, 1_000], &config), None);
        assert_eq!(run(&[1_000, 2_000, 3_000], &config), Some(vec![0, 1, 2]));
        assert_eq!(run(&[9 << 20, 1_000, 9 << 20, 1_000, 1_000], &config), None);
        assert_eq!(
            run(&[500_000, 500_000, 500_000, 1_000, 1_000, 1_000], &config),
            Some(vec![3, 4, 5])
        );
    }

    #[test]
    fn a_merge_never_exceeds_the_largest_file_size() {
        let config = CompactionConfig {
            min_files: 2,
            max_file_bytes: 100_000,
        };
        assert_eq!(run(&[60_000, 60_000], &config), None);
        assert_eq!(run(&[60_000, 60_000, 30_000], &config), Some(vec![1, 2]));
    }

    #[test]
    fn small_files_between_larger_ones_still_come_to_be_merged() {
        let config = CompactionConfig {
            min_files: 4,
            max_file_bytes: 8 << 20,
        };
        let sizes = [1_000, 200_000, 1_000, 200_000, 1_000];
        assert_eq!(run(&sizes, &config), Some(vec![0, 1, 2, 3, 4]));
    }
}
