//! Child processes that end with the test, however it ends.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A child in a process group of its own. Dropping it kills the group. Where nothing is dropped (the test process is
/// killed, or the value lives in a `static`), a watchdog does: a shell that reads from a pipe whose other end this
/// process holds, and which the system closes at our death.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    watchdog: Child,
    ended: Option<ExitStatus>,
}

const WATCHDOG: &str = r#"cat >/dev/null; kill -s KILL -- "-$1" 2>/dev/null; if [ -n "$2" ]; then sleep 0.2; rm -rf -- "$2"; fi"#;

impl Guarded {
    /// Starts `command`.
    ///
    /// # Errors
    /// It, or the watchdog's `sh`, cannot be started.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        Self::spawn_in(command, None)
    }

    /// Starts `command`; the folder `remove` is deleted by the watchdog if this process dies first.
    ///
    /// # Errors
    /// As [`Guarded::spawn`].
    pub fn spawn_in(command: &mut Command, remove: Option<&Path>) -> std::io::Result<Self> {
        let mut child = command.process_group(0).spawn()?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", &child.id().to_string()])
            .arg(remove.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal reaches this process, and must not reach its watchdog.
            .process_group(0)
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self {
                child,
                watchdog,
                ended: None,
            }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// The process id, which is also that of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal (`TERM`, `INT`, `STOP`, `CONT`, `KILL`) to the whole group.
    pub fn signal(&mut self, name: &str) {
        // Once it is reaped, its id may belong to somebody else.
        if self.ended().is_none() {
            let sent = Command::new("sh")
                .args([
                    "-c",
                    r#"kill -s "$1" -- "-$2""#,
                    "signal",
                    name,
                    &self.id().to_string(),
                ])
                .stderr(Stdio::null())
                .status();
            drop(sent);
        }
    }

    /// Waits for its end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        while self.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.ended()
    }

    /// Asks it to end (SIGTERM), and kills it if it does not within `patience`. Returns its status and whether it
    /// ended by itself.
    pub fn stop(&mut self, patience: Duration) -> (Option<ExitStatus>, bool) {
        self.signal("TERM");
        let willing = self.wait(patience).is_some();
        (self.kill(), willing)
    }

    /// Kills the whole group at once (SIGKILL) and waits for the end.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        self.signal("KILL");
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
        self.ended
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // First the watchdog, so that it cannot strike a reused process id.
        drop(self.watchdog.kill());
        drop(self.watchdog.wait());
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    fn alive(pid: u32) -> bool {
        // A zombie has no command line.
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    }

    #[test]
    fn dropping_it_ends_the_child_and_its_children() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped());
        let mut guarded = Guarded::spawn(&mut command).unwrap();
        let mut line = String::new();
        let output = guarded.child().stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        assert!(alive(grandchild));
        drop(guarded);
        eventually("the grandchild ends", Duration::from_secs(5), || {
            (!alive(grandchild)).then_some(())
        });
    }

    #[test]
    fn the_watchdog_ends_it_and_clears_up_when_nobody_drops_it() {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut guarded = Guarded::spawn_in(Command::new("sleep").arg("600"), Some(&folder)).unwrap();
        let pid = guarded.id();
        // What the system does when this process dies.
        drop(guarded.watchdog.stdin.take());
        eventually("the child ends", Duration::from_secs(5), || {
            (!alive(pid)).then_some(())
        });
        eventually("its folder goes", Duration::from_secs(5), || {
            (!folder.exists()).then_some(())
        });
    }

    #[test]
    fn a_child_that_obeys_is_told_from_one_that_must_be_killed() {
        let mut obeys = Guarded::spawn(Command::new("sleep").arg("600")).unwrap();
        assert!(obeys.stop(Duration::from_secs(5)).1);
        let mut stubborn = Command::new("sh");
        stubborn
            .args(["-c", "trap '' TERM; echo; while :; do sleep 1; done"])
            .stdout(Stdio::piped());
        let mut stubborn = Guarded::spawn(&mut stubborn).unwrap();
        let output = stubborn.child().stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut String::new()).unwrap();
        assert!(!stubborn.stop(Duration::from_millis(100)).1);
    }
}
