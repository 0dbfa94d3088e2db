//! The few operations that change the lake's files: a seam at which tests let the process die.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Operations that change files. Every one of them is a point at which the process may be killed.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Creates a folder and makes it durable; its parent must exist. No error if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Writes a whole file; its bytes are durable when this returns.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Renames atomically, replacing what was there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OsDisk;

impl OsDisk {
    pub(crate) fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Ok(()) => path.parent().map_or(Ok(()), |parent| self.sync_dir(parent)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// A disk that dies at a chosen operation, as a killed process does: that operation happens not at all, half, or
/// fully, and none after it.
#[cfg(test)]
pub(crate) mod faulty {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Last {
        Undone,
        Half,
        Done,
    }

    #[derive(Debug)]
    pub(crate) struct FaultyDisk {
        left: AtomicU64,
        last: Last,
    }

    impl FaultyDisk {
        /// Survives `operations`, then dies with the next one in state `last`.
        pub(crate) fn dying_after(operations: u64, last: Last) -> Arc<Self> {
            Arc::new(Self {
                left: AtomicU64::new(operations + 1),
                last,
            })
        }

        /// Never dies.
        pub(crate) fn immortal() -> Arc<Self> {
            Self::dying_after(u64::MAX - 1, Last::Done)
        }

        pub(crate) fn is_dead(&self) -> bool {
            self.left.load(Ordering::SeqCst) == 0
        }

        fn step(
            &self,
            half: impl FnOnce() -> io::Result<()>,
            full: impl FnOnce() -> io::Result<()>,
        ) -> io::Result<()> {
            let dead = || Err(io::Error::other("killed"));
            match self.left.load(Ordering::SeqCst) {
                0 => dead(),
                1 => {
                    self.left.store(0, Ordering::SeqCst);
                    match self.last {
                        Last::Undone => {}
                        Last::Half => half()?,
                        Last::Done => full()?,
                    }
                    dead()
                }
                left => {
                    self.left.store(left - 1, Ordering::SeqCst);
                    full()
                }
            }
        }
    }

    // Nothing is synced here: a killed process does not lose what it wrote, and tests stay fast.
    impl Disk for FaultyDisk {
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.step(
                || Ok(()),
                || match fs::create_dir(path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => Ok(()),
                },
            )
        }

        fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            self.step(
                || fs::write(path, &bytes[..bytes.len() / 2]),
                || fs::write(path, bytes),
            )
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step(|| Ok(()), || fs::rename(from, to))
        }

        fn sync_dir(&self, _: &Path) -> io::Result<()> {
            self.step(|| Ok(()), || Ok(()))
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step(|| Ok(()), || fs::remove_file(path))
        }
    }
}
