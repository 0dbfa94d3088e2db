//! The trials of a search, one JSON line each, under a line that says which search they belong to.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use marquee_models::tune::{Dimension, Trial};
use serde::{Deserialize, Serialize};

/// What trials must share to be comparable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    datasets: Vec<String>,
    retrain_every: usize,
    seed: u64,
    /// Setting, least and greatest value.
    space: Vec<(String, f64, f64)>,
}

impl Header {
    pub(super) fn new(datasets: &[String], retrain_every: usize, seed: u64, space: &[Dimension]) -> Self {
        Self {
            datasets: datasets.to_vec(),
            retrain_every,
            seed,
            space: space
                .iter()
                .map(|dimension| (dimension.path.to_owned(), dimension.low, dimension.high))
                .collect(),
        }
    }
}

/// The file and what it holds.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    trials: Vec<Trial>,
}

impl Journal {
    /// Opens or begins the journal of the search that `header` describes. A last line that a kill has torn is dropped;
    /// its trial runs again.
    pub(super) fn open(path: &Path, header: &Header) -> Result<Self> {
        Self::read(path, header).with_context(|| format!("the journal {}", path.display()))
    }

    fn read(path: &Path, header: &Header) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut trials: Vec<Trial> = Vec::new();
        if let Some(first) = lines.next() {
            let found: Header = serde_json::from_str(first).context("is no journal of a search")?;
            ensure!(
                found == *header,
                "belongs to another search (data sets, seed, retrains or space differ): name another file"
            );
            for line in lines {
                let trial: Trial = serde_json::from_str(line)
                    .with_context(|| format!("is damaged after trial {}", trials.len()))?;
                ensure!(
                    trial.index == trials.len(),
                    "lacks trial {}, {} follows",
                    trials.len(),
                    trial.index
                );
                trials.push(trial);
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if whole < text.len() {
            file.set_len(whole as u64)?;
        }
        let mut journal = Self { file, trials };
        if whole == 0 {
            journal.line(header)?;
        }
        Ok(journal)
    }

    pub(super) fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Makes a trial durable.
    pub(super) fn append(&mut self, trial: Trial) -> Result<()> {
        self.line(&trial)?;
        self.trials.push(trial);
        Ok(())
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(value)?;
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        Ok(self.file.sync_data()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(seed: u64) -> Header {
        Header::new(
            &["ml-100k".to_owned()],
            3000,
            seed,
            &marquee_models::tune::served_space(),
        )
    }

    fn trial(index: usize) -> Trial {
        Trial {
            index,
            point: vec![0.1, 1.0 / 3.0],
            value: 0.125,
        }
    }

    #[test]
    fn a_journal_goes_on_where_it_ended_even_if_a_line_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, &header(1)).unwrap();
        journal.append(trial(0)).unwrap();
        journal.append(trial(1)).unwrap();
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        // Wherever a kill may cut the file, whole trials stay and the next one is written behind them.
        for length in (0..text.len()).step_by(11) {
            std::fs::write(&path, &text[..length]).unwrap();
            let mut journal = Journal::open(&path, &header(1)).unwrap();
            let kept = text[..length].matches('\n').count().saturating_sub(1);
            assert_eq!(journal.trials().len(), kept, "cut at {length}");
            journal.append(trial(kept)).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path, &header(1)).unwrap().trials().len(), kept + 1);
        }
    }

    #[test]
    fn trials_of_another_search_are_not_mixed_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        Journal::open(&path, &header(1)).unwrap();
        let refused = format!("{:#}", Journal::open(&path, &header(2)).unwrap_err());
        assert!(refused.contains("another search"), "{refused}");
        std::fs::write(&path, "something else\n").unwrap();
        assert!(Journal::open(&path, &header(1)).is_err());
    }
}
