//! A real MLflow tracking server, from PyPI, in a virtual environment in the cache.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Guarded, Unavailable, cache};

/// The Python packages, by exact version, so that the cache follows a change.
const REQUIREMENTS: &str = "mlflow==3.17.2";
/// Importing it takes seconds, on a busy machine many.
const START_PATIENCE: Duration = Duration::from_secs(180);

/// A server that may be started later than its address is known.
#[derive(Debug)]
pub struct MlflowServer {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    running: Option<Guarded>,
}

impl MlflowServer {
    /// Prepares a server without starting it.
    ///
    /// # Errors
    /// [`Unavailable`] without Python 3, its `venv` module, or the package.
    pub fn prepare() -> Result<Self, Unavailable> {
        let unavailable = |why: std::io::Error| Unavailable::new("MLflow", why.to_string());
        let folder = cache::filled("MLflow", "mlflow", REQUIREMENTS, |folder| {
            cache::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            cache::run(
                Command::new(folder.join("bin/python"))
                    .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                    .arg(REQUIREMENTS),
            )?;
            Ok(())
        })?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(unavailable)?
            .port();
        Ok(Self {
            program: folder.join("bin/python"),
            folder: tempfile::tempdir().map_err(unavailable)?,
            port,
            running: None,
        })
    }

    /// Its root.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it; it answers when this returns.
    ///
    /// # Errors
    /// [`Unavailable`] if it ends or does not answer in time.
    pub fn start(&mut self) -> Result<(), Unavailable> {
        let unavailable = |why: String| Unavailable::new("MLflow", why);
        let database = self.folder.path().join("mlflow.db");
        // The scripts in `bin` carry the path under which the environment was filled; the module does not.
        let mut command = Command::new(&self.program);
        command
            .args([
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--workers",
                "1",
                "--port",
            ])
            .arg(self.port.to_string())
            .arg("--backend-store-uri")
            .arg(format!("sqlite:///{}", database.display()))
            .arg("--artifacts-destination")
            .arg(self.folder.path().join("artifacts"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = Guarded::spawn(&mut command).map_err(|e| unavailable(e.to_string()))?;
        let deadline = Instant::now() + START_PATIENCE;
        while !self.answers() {
            if let Some(status) = server.ended() {
                return Err(unavailable(format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(unavailable(format!(
                    "it did not answer within {START_PATIENCE:?}"
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.running = Some(server);
        Ok(())
    }

    /// Whether it says that it is healthy.
    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let ask = || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /health HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains(" 200 "))
    }
}
