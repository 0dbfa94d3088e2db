//! Kafka clients that are not ours: `kcat`, and Python's `confluent-kafka`. The scripts lie in `tests/foreign/` and are
//! those that the README shows.
//!
//! librdkafka before 2.2.0 misreads the tagged fields of the embedded broker's first answer ("ApiVersionRequest failed:
//! Read underflow"); Debian 12 and Ubuntu 22.04 still carry such a one under their kcat. There, and against that broker
//! only, kcat runs here on the newer library that comes with `confluent-kafka`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Broker, Unavailable, cache};

/// The Python packages, by exact version, so that the cache follows a change.
const REQUIREMENTS: &str = "confluent-kafka==2.16.1";

/// The first librdkafka that understands the embedded broker.
const OLDEST_LIBRARY: [u32; 3] = [2, 2, 0];

/// Both foreign clients, ready to run.
#[derive(Debug, Clone)]
pub struct Foreign {
    python: PathBuf,
    scripts: PathBuf,
    /// Where newer libraries lie, if kcat's own librdkafka is too old for the embedded broker.
    library: Option<String>,
}

/// The version of the librdkafka under an installed `kcat` (Debian's package of the same name).
///
/// # Errors
/// [`Unavailable`] where it is not installed.
pub fn kcat() -> Result<[u32; 3], Unavailable> {
    let unavailable = |why| Unavailable::new("kcat", why);
    let said = cache::run(Command::new("kcat").arg("-V")).map_err(unavailable)?;
    library_version(&said).ok_or_else(|| unavailable(format!("no version in what it says: {said}")))
}

/// From `Version 1.7.1 (JSON, ..., librdkafka 2.0.2 builtin.features=...)`.
fn library_version(said: &str) -> Option<[u32; 3]> {
    let (_, rest) = said.split_once("librdkafka ")?;
    let mut parts = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some([parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?])
}

/// A Python with `confluent-kafka`, in a virtual environment in the cache.
///
/// # Errors
/// [`Unavailable`] without Python 3, its `venv` module, or the package.
pub fn python() -> Result<PathBuf, Unavailable> {
    python_with(REQUIREMENTS)
}

/// A Python with these packages (parted by spaces, with exact versions), in a virtual environment in the cache.
///
/// # Errors
/// [`Unavailable`] without Python 3, its `venv` module, or a package.
pub fn python_with(requirements: &str) -> Result<PathBuf, Unavailable> {
    cache::filled("a Python package", "python", requirements, |folder| {
        cache::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        cache::run(
            Command::new(folder.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(requirements.split(' ')),
        )?;
        Ok(())
    })
    .map(|folder| folder.join("bin/python"))
}

/// A folder with the client library that came with `confluent-kafka`, under the name by which kcat looks for it, and
/// the folder of the library's own libraries.
fn newer_librdkafka(python: &Path) -> Result<String, Unavailable> {
    let lacking = |why: String| Unavailable::new("a newer librdkafka for kcat", why);
    let environment = python
        .parent()
        .and_then(Path::parent)
        .ok_or_else(|| lacking(format!("{} lies in no environment", python.display())))?;
    let script = "import glob, os, confluent_kafka as c; \
                  print(glob.glob(os.path.join(os.path.dirname(c.__file__) + '.libs', 'librdkafka-*.so*'))[0])";
    let found = cache::run(Command::new(python).args(["-c", script])).map_err(lacking)?;
    let library = Path::new(found.trim());
    let folder = environment.join("librdkafka");
    std::fs::create_dir_all(&folder).map_err(|e| lacking(e.to_string()))?;
    match std::os::unix::fs::symlink(library, folder.join("librdkafka.so.1")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(lacking(error.to_string()));
        }
        _ => {}
    }
    let own = library.parent().unwrap_or(library).display();
    Ok(format!("{}:{own}", folder.display()))
}

impl Foreign {
    /// Set to `1`, it makes tests that need foreign clients fail where they would be skipped.
    pub const REQUIRE: &'static str = "MARQUEE_REQUIRE_FOREIGN";

    /// Finds or prepares both.
    ///
    /// # Errors
    /// [`Unavailable`] where one is missing.
    pub fn find() -> Result<Self, Unavailable> {
        let version = kcat()?;
        let python = python()?;
        let library = if version < OLDEST_LIBRARY {
            Some(newer_librdkafka(&python)?)
        } else {
            None
        };
        Ok(Self {
            python,
            scripts: Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign"),
            library,
        })
    }

    fn kcat_script(&self, name: &str, broker: &Broker) -> Command {
        let mut command = Command::new("sh");
        command.arg(self.scripts.join(name)).arg(broker.brokers());
        if let (Broker::Embedded(_), Some(library)) = (broker, &self.library) {
            command.env("LD_LIBRARY_PATH", library);
        }
        command
    }

    /// `produce.sh`: publishes `user_id|JSON` lines to `interactions` with kcat.
    ///
    /// # Errors
    /// What kcat said.
    pub fn kcat_produce(&self, broker: &Broker, lines: &str) -> Result<(), String> {
        let mut child = self
            .kcat_script("produce.sh", broker)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(lines.as_bytes()).map_err(|e| e.to_string())?;
        }
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// `consume.sh`: every record of `request-logs`, one a line, read with kcat.
    ///
    /// # Errors
    /// What kcat said.
    pub fn kcat_consume(&self, broker: &Broker) -> Result<String, String> {
        cache::run(&mut self.kcat_script("consume.sh", broker))
    }

    /// `produce.py`: publishes one rating with `confluent-kafka` and returns the JSON that it sent.
    ///
    /// # Errors
    /// What the script said.
    pub fn python_produce(
        &self,
        broker: &Broker,
        user_id: u64,
        movie_id: u32,
        rating: f32,
    ) -> Result<String, String> {
        cache::run(
            Command::new(&self.python)
                .arg(self.scripts.join("produce.py"))
                .arg(broker.brokers())
                .args([user_id.to_string(), movie_id.to_string(), rating.to_string()]),
        )
    }

    /// `consume.py`: every record of `request-logs`, one a line, read with `confluent-kafka`.
    ///
    /// # Errors
    /// What the script said.
    pub fn python_consume(&self, broker: &Broker) -> Result<String, String> {
        cache::run(
            Command::new(&self.python)
                .arg(self.scripts.join("consume.py"))
                .arg(broker.brokers()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_under_kcat_is_found_in_what_it_says_of_itself() {
        let said = "kcat - Apache Kafka producer and consumer tool\nVersion 1.7.1 (JSON, librdkafka 2.0.2 builtin.features=gzip)\n";
        assert_eq!(library_version(said), Some([2, 0, 2]));
        assert!([2, 0, 2] < OLDEST_LIBRARY && [2, 16, 1] > OLDEST_LIBRARY);
        assert_eq!(library_version("kcat: command not found"), None);
    }
}
