//! `cargo bench --bench freshness`: from a new user's five published ratings to a changed list, over 1,000 such users
//! under 1,000 other events per second, on the whole product as one process (`marquee up`, embedded broker, ml-100k
//! where `MARQUEE_DATA_DIR` has it, the synthetic data set otherwise).
//!
//! The peer in the same run is the broker alone: a plain consumer of the same topic and the same events. What lies
//! between the two is marquee's own share. Ends with one JSON line.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() {
    let binary = env!("CARGO_BIN_EXE_marquee");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let has_data =
        std::env::var_os("MARQUEE_DATA_DIR").is_some_and(|dir| Path::new(&dir).join("ml-100k").is_dir());
    let dataset = if has_data { "ml-100k" } else { "synthetic" };
    let up = Command::new(binary)
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--kafka-listen",
            "127.0.0.1:0",
            "--live-speed",
            "20/s",
        ])
        .args(["--dataset", dataset, "--log", "warn"])
        .arg("--state-dir")
        .arg(&state)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.path().join("up.log")).expect("a log file"))
        .spawn()
        .expect("starting marquee");
    let _up = Up(up);
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let log = std::fs::read_to_string(folder.path().join("up.log")).unwrap_or_default();
        if log.contains("ready  ") {
            print!("{log}");
            break;
        }
        assert!(Instant::now() < deadline, "not ready in time:\n{log}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = Command::new(binary)
        .args(["e2e-check", "--users", "1000", "--background", "1000", "--json"])
        .arg("--state-dir")
        .arg(&state)
        .status()
        .expect("running the check");
    assert!(status.success(), "the check failed");
}
