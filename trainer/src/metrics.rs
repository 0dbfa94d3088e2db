//! Numbers for Prometheus, in its text format, on `GET /metrics` of an address of the trainer's own.
//!
//! They are read from the registry when they are asked for, and from the training under way. A trainer has no other HTTP,
//! so a few lines do; whatever is asked, these numbers are the answer.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::pipeline::Progress;
use crate::registry::{ModelState, RegistryReader};
use crate::{Config, memory, registry, rollout};

/// How long somebody who asks may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers on `config.metrics_listen` until `token` is cancelled.
pub(crate) async fn serve(config: Config, progress: Progress, token: CancellationToken) {
    if config.metrics_listen.is_empty() {
        return;
    }
    let listener = match TcpListener::bind(&config.metrics_listen).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, address = config.metrics_listen, "no metrics are served");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // One at a time: a scraper asks every few seconds.
        if let Ok((stream, _)) = accepted {
            let (own, own_progress) = (config.clone(), progress.clone());
            let text = tokio::task::spawn_blocking(move || {
                let reader = registry::open_read_only(&own.registry_dir).ok();
                exposition(reader.as_ref(), &own_progress)
            });
            let Ok(text) = text.await else { continue };
            drop(tokio::time::timeout(PATIENCE, answer(stream, &text)).await);
        }
    }
}

async fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 16 << 10 {
        let read = stream.read(&mut part).await?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(&part[..read]);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn exposition(reader: Option<&RegistryReader>, progress: &Progress) -> String {
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, samples: &[(String, f64)]| {
        // Writing to a string cannot fail.
        writeln!(
            out,
            "# HELP marquee_trainer_{name} {help}\n# TYPE marquee_trainer_{name} gauge"
        )
        .ok();
        for (labels, value) in samples {
            writeln!(out, "marquee_trainer_{name}{labels} {value}").ok();
        }
    };
    let one = |value: f64| [(String::new(), value)];
    if let Some(reader) = reader {
        let state = reader.state();
        let of_state = |wanted, name: &str| {
            let count = reader.list().iter().filter(|entry| entry.state == wanted).count();
            (format!("{{state=\"{name}\"}}"), count as f64)
        };
        gauge(
            "versions",
            "Versions in the registry.",
            &[
                of_state(ModelState::None, "none"),
                of_state(ModelState::Staging, "staging"),
                of_state(ModelState::Production, "production"),
                of_state(ModelState::Archived, "archived"),
            ],
        );
        let champion = reader.champion().and_then(|version| version.ordinal());
        gauge(
            "champion",
            "Ordinal of the version that serves.",
            &one(champion.unwrap_or(0) as f64),
        );
        gauge(
            "waiting_retrain_events",
            "Retrain events that wait for the training under way.",
            &one(state.pending.len() as f64),
        );
        let attempts = state.run.as_ref().map_or(0, |run| run.attempts);
        gauge(
            "run_attempts",
            "Starts of the training under way; 0 without one.",
            &one(f64::from(attempts)),
        );
        let share = state.rollout.as_ref().map_or(0.0, |rollout| {
            rollout::SHARES.get(rollout.stage).copied().unwrap_or(1.0)
        });
        gauge(
            "rollout_share",
            "Share of the users that the challenger serves.",
            &one(share),
        );
        gauge(
            "unsent_events",
            "Model events that the broker has not acknowledged.",
            &one(state.outbox.len() as f64),
        );
    }
    let stages: Vec<(String, f64)> = progress
        .seconds_by_stage()
        .into_iter()
        .map(|(stage, seconds)| (format!("{{stage=\"{stage}\"}}"), seconds))
        .collect();
    gauge(
        "stage_seconds",
        "Duration of each stage of the newest training, as far as it has come.",
        &stages,
    );
    if let Some(bytes) = memory::peak_bytes() {
        gauge(
            "peak_memory_bytes",
            "Largest resident set since the newest training began.",
            &one(bytes as f64),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_gets_the_numbers_of_the_registry() {
        let dir = tempfile::tempdir().unwrap();
        registry::Registry::open(dir.path()).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let config = Config {
            registry_dir: dir.path().to_path_buf(),
            metrics_listen: address.clone(),
            ..Config::default()
        };
        let token = CancellationToken::new();
        let server = tokio::spawn(serve(config, Progress::default(), token.clone()));
        let mut stream = loop {
            match TcpStream::connect(&address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        for line in [
            "marquee_trainer_versions{state=\"production\"} 0",
            "marquee_trainer_champion 0",
            "# TYPE marquee_trainer_stage_seconds gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        token.cancel();
        server.await.unwrap();
    }
}
