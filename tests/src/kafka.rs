//! A real Apache Kafka on this machine: one node, KRaft, from the ordinary Maven artifacts.
//!
//! Needs a Java of at least 17, and Maven the first time. Nothing is installed: the jars lie in [`crate::cache_dir`],
//! the log in a temporary folder that goes with the server.

mod properties;

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{Guarded, Unavailable, cache};

/// Set to `1`, it makes tests that need Apache Kafka fail where they would be skipped.
pub const REQUIRE: &str = "MARQUEE_REQUIRE_KAFKA";

const WHAT: &str = "Apache Kafka";
const POM: &str = include_str!("../kafka/pom.xml");
const START_PATIENCE: Duration = Duration::from_secs(90);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A broker that can be stopped, killed and restarted on the same port and data. Dropping it kills it.
#[derive(Debug)]
pub struct KafkaServer {
    jars: PathBuf,
    folder: PathBuf,
    port: u16,
    running: Option<Guarded>,
}

impl KafkaServer {
    /// Resolves the artifacts if needed, formats a fresh log and starts a broker on a free port; it answers when this
    /// returns.
    ///
    /// # Errors
    /// [`Unavailable`] where Java, Maven or the artifacts are missing, or the broker does not come up; the reason
    /// carries the end of its log.
    pub fn start() -> Result<Self, Unavailable> {
        let jars = artifacts()?;
        let folder = tempfile::Builder::new()
            .prefix("marquee-kafka-")
            .tempdir()
            .map_err(|e| unavailable(e.to_string()))?
            .keep();
        let mut server = Self {
            jars,
            folder,
            port: 0,
            running: None,
        };
        server.format()?;
        server.restart()?;
        Ok(server)
    }

    /// `host:port` to connect to.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether it was started and not stopped.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Ends it in good order (SIGTERM); its log stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.running.take() {
            process.stop(STOP_PATIENCE);
        }
    }

    /// Ends it at once (SIGKILL); its log stays as it is.
    pub fn kill(&mut self) {
        drop(self.running.take());
    }

    /// Starts it again on the same port and log; it answers when this returns. Does nothing while it runs.
    ///
    /// # Errors
    /// It does not come up; the reason carries the end of its log.
    pub fn restart(&mut self) -> Result<(), Unavailable> {
        if self.running.is_some() {
            return Ok(());
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .map_err(|e| unavailable(e.to_string()))?;
        let errors = log.try_clone().map_err(|e| unavailable(e.to_string()))?;
        let mut command = self.java();
        command
            .arg("kafka.Kafka")
            .arg(self.properties_file())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let mut process =
            Guarded::spawn_in(&mut command, Some(&self.folder)).map_err(|e| unavailable(e.to_string()))?;
        let deadline = Instant::now() + START_PATIENCE;
        while !answers(&self.brokers()) {
            if let Some(status) = process.ended() {
                return Err(unavailable(format!(
                    "the broker ended with {status}: {}",
                    self.log_tail()
                )));
            }
            if Instant::now() >= deadline {
                return Err(unavailable(format!(
                    "the broker does not answer within {START_PATIENCE:?}: {}",
                    self.log_tail()
                )));
            }
        }
        self.running = Some(process);
        Ok(())
    }

    fn format(&mut self) -> Result<(), Unavailable> {
        let [client, controller] = free_ports().map_err(|e| unavailable(e.to_string()))?;
        self.port = client;
        std::fs::write(
            self.properties_file(),
            properties::server(client, controller, &self.folder.join("log")),
        )
        .map_err(|e| unavailable(e.to_string()))?;
        let mut command = self.java();
        command
            // Any cluster id will do: 16 bytes in URL-safe base64.
            .args([
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                "bWFycXVlZS10ZXN0cy0xNg",
                "--config",
            ])
            .arg(self.properties_file());
        cache::run(&mut command).map_err(unavailable)?;
        Ok(())
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        // Small and quick to start; the second compiler does not pay within a test's life.
        command
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-cp")
            .arg(self.jars.join("*"));
        command
    }

    fn properties_file(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    /// What the broker wrote to its output.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn unavailable(why: impl Into<String>) -> Unavailable {
    Unavailable::new(WHAT, why)
}

/// The folder with the broker's jars, by Maven coordinates.
fn artifacts() -> Result<PathBuf, Unavailable> {
    cache::run(Command::new("java").arg("-version")).map_err(unavailable)?;
    cache::filled(WHAT, "kafka", POM, |folder| {
        let pom = folder.join("pom.xml");
        std::fs::write(&pom, POM).map_err(|e| e.to_string())?;
        cache::run(
            Command::new("mvn")
                .args(["--batch-mode", "--quiet", "dependency:copy-dependencies"])
                .arg("-DincludeScope=runtime")
                .arg("--file")
                .arg(&pom)
                .arg(format!("-DoutputDirectory={}", folder.join("libs").display())),
        )?;
        Ok(())
    })
    .map(|folder| folder.join("libs"))
}

/// Two ports that were free a moment ago; both are held until both are known, so that they differ.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let first = TcpListener::bind("127.0.0.1:0")?;
    let second = TcpListener::bind("127.0.0.1:0")?;
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}

/// Whether a broker gives its metadata within half a second.
pub(crate) fn answers(brokers: &str) -> bool {
    let asker: Result<BaseConsumer, _> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        // Refused connections are what we expect here; they are not worth a line each.
        .set("log_level", "0")
        .create();
    asker.is_ok_and(|asker| {
        asker
            .fetch_metadata(None, Duration::from_millis(500))
            .is_ok_and(|metadata| !metadata.brokers().is_empty())
    })
}

/// Resolves the artifacts without starting anything, for those who want to prepare a machine.
///
/// # Errors
/// As [`KafkaServer::start`].
pub fn prepare() -> Result<PathBuf, Unavailable> {
    artifacts()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::required;

    #[test]
    fn it_starts_stops_and_comes_back_on_the_same_port() {
        let Some(mut server) = required(KafkaServer::start(), REQUIRE) else {
            return;
        };
        let brokers = server.brokers();
        assert!(answers(&brokers));
        server.stop();
        assert!(!answers(&brokers));
        server.restart().unwrap();
        assert!(answers(&brokers));
        server.kill();
        server.restart().unwrap();
        assert_eq!(server.brokers(), brokers);
        let folder = server.folder.clone();
        drop(server);
        assert!(!answers(&brokers) && !folder.exists());
    }
}
