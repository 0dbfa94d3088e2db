//! The state directory: its layout, its lock, and the note that tells tools where the running instance listens.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli::ServiceName;

/// The note of a process that runs all parts.
const WHOLE: &str = "instance.json";

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// Where a running instance can be reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) pid: u32,
    pub(crate) brokers: String,
    pub(crate) http: Option<SocketAddr>,
    /// Where features are served.
    #[serde(default)]
    pub(crate) features: Option<SocketAddr>,
}

/// The parts of the state directory; each belongs to one process at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Broker,
    FeatureProcessor,
    Trainer,
    Replay,
    Recommender,
}

impl Part {
    pub(crate) const ALL: [Part; 5] = [
        Part::Recommender,
        Part::Broker,
        Part::FeatureProcessor,
        Part::Trainer,
        Part::Replay,
    ];

    fn name(self) -> &'static str {
        match self {
            Part::Broker => "broker",
            Part::FeatureProcessor => "feature-processor",
            Part::Trainer => "trainer",
            Part::Replay => "replay",
            Part::Recommender => "recommender",
        }
    }
}

impl From<ServiceName> for Part {
    fn from(service: ServiceName) -> Self {
        match service {
            ServiceName::FeatureProcessor => Self::FeatureProcessor,
            ServiceName::Trainer => Self::Trainer,
            ServiceName::Replay => Self::Replay,
            ServiceName::Recommender => Self::Recommender,
        }
    }
}

/// Held while an instance runs; the system lets go of it with the process.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    files: Vec<File>,
    note: PathBuf,
}

impl StateDir {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("creating the state directory {}", path.display()))?;
        let path = std::fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn features(&self) -> PathBuf {
        self.0.join("features")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.0.join("lake")
    }

    pub(crate) fn sql_history(&self) -> PathBuf {
        self.0.join("sql-history.jsonl")
    }

    pub(crate) fn recommender(&self) -> PathBuf {
        self.0.join("recommender")
    }

    pub(crate) fn trainer_cache(&self) -> PathBuf {
        self.0.join("trainer-cache")
    }

    pub(crate) fn exports(&self) -> PathBuf {
        self.0.join("exports")
    }

    pub(crate) fn broker_database(&self) -> PathBuf {
        self.0.join("broker.db")
    }

    pub(crate) fn ingest_position(&self) -> PathBuf {
        self.0.join("ingest.json")
    }

    pub(crate) fn reports(&self) -> PathBuf {
        self.0.join("reports")
    }

    fn lock_file(&self, part: Part) -> PathBuf {
        self.0.join(format!("{}.lock", part.name()))
    }

    /// Takes parts of the directory for this process.
    pub(crate) fn lock(&self, parts: &[Part], instance: &Instance) -> Result<InstanceLock> {
        let mut files = Vec::with_capacity(parts.len());
        for &part in parts {
            let path = self.lock_file(part);
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("opening {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => files.push(file),
                Err(TryLockError::WouldBlock) => bail!(
                    "another marquee runs the {} on {}; stop it or choose another --state-dir",
                    part.name(),
                    self.0.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("locking {}", path.display()));
                }
            }
        }
        let name = match parts {
            [part] => format!("instance-{}.json", part.name()),
            _ => WHOLE.to_owned(),
        };
        let lock = InstanceLock {
            files,
            note: self.0.join(name),
        };
        lock.announce(instance)?;
        Ok(lock)
    }

    /// Whether a process runs this part now.
    pub(crate) fn is_running(&self, part: Part) -> bool {
        OpenOptions::new()
            .write(true)
            .open(self.lock_file(part))
            .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// A running instance, if there is one; the notes of killed processes are passed over.
    pub(crate) fn running(&self) -> Option<Instance> {
        Part::ALL
            .into_iter()
            .filter(|&part| self.is_running(part))
            .find_map(|part| {
                [format!("instance-{}.json", part.name()), WHOLE.to_owned()]
                    .iter()
                    .find_map(|name| serde_json::from_slice(&std::fs::read(self.0.join(name)).ok()?).ok())
            })
    }
}

impl InstanceLock {
    /// Tells tools where to find this instance.
    pub(crate) fn announce(&self, instance: &Instance) -> Result<()> {
        write_json(&self.note, instance)
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.note) {
            tracing::debug!(%error, "removing the instance note");
        }
        self.files.clear();
    }
}

/// Replaces a small JSON file in one step.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        std::fs::write(&temporary, serde_json::to_vec(value)?)?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}
