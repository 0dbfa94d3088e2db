//! Open-loop load: request n is due at n / rate whatever became of the others, and its latency counts from then, so that
//! a server that stalls is charged for everybody who would have waited (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keep-alive connections; a request that finds its own busy waits, and its wait counts.
const CONNECTIONS: usize = 32;
/// As many as a crowd has: all that is due lies with the server then, and it is the server that must cope.
pub(crate) const CROWD: usize = 512;
const LONGEST_US: u64 = 60_000_000;

/// Sends one request over an open connection and reads its answer; `None` where the connection ended.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Option<u16> {
    stream.write_all(request).await.ok()?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head]).ok()?;
        let length: usize = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        })?;
        let status = text.split(' ').nth(1)?.parse().ok();
        while buffer.len() < head + 4 + length {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        return status;
    }
}

/// What came of a load.
pub(crate) struct Load {
    latency_us: Histogram<u64>,
    pub(crate) answered: u64,
    /// Refused with 503.
    pub(crate) shed: u64,
    /// Any other answer, and none.
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
}

impl Load {
    fn new() -> Self {
        Self {
            latency_us: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("a histogram"),
            answered: 0,
            shed: 0,
            failed: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Latency of what was answered, milliseconds.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Lists per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn told(&self, name: &str, rate: u32) -> String {
        format!(
            "{name}: {:.0}/s of {rate}/s, p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, max {:.1} ms, {} shed, {} failed",
            self.rate(),
            self.ms(0.5),
            self.ms(0.95),
            self.ms(0.99),
            self.ms(1.0),
            self.shed,
            self.failed
        )
    }
}

/// `rate` requests per second for `seconds`; request n is `request(n)`.
pub(crate) async fn load(
    address: &str,
    rate: u32,
    seconds: u32,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Load {
    load_over(CONNECTIONS, address, rate, seconds, request).await
}

/// [`load`] over so many connections.
pub(crate) async fn load_over(
    connections: usize,
    address: &str,
    rate: u32,
    seconds: u32,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Load {
    let request = Arc::new(request);
    let begun = Instant::now();
    let total = u64::from(rate) * u64::from(seconds);
    // Whichever connection is free takes the next request.
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (address, request, next) = (address.to_owned(), Arc::clone(&request), Arc::clone(&next));
            tokio::spawn(async move {
                let mut own = Load::new();
                let (mut stream, mut buffer) = (None, Vec::with_capacity(16 << 10));
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= total {
                        return own;
                    }
                    let due = begun + Duration::from_secs_f64(n as f64 / f64::from(rate));
                    tokio::time::sleep_until(due.into()).await;
                    if stream.is_none() {
                        stream = TcpStream::connect(&address).await.ok();
                        if let Some(stream) = &stream {
                            stream.set_nodelay(true).expect("no delay");
                        }
                    }
                    let status = match &mut stream {
                        Some(open) => exchange(open, &request(n), &mut buffer).await,
                        None => None,
                    };
                    match status {
                        Some(200) => own.latency_us.saturating_record(due.elapsed().as_micros() as u64),
                        Some(503) => own.shed += 1,
                        Some(_) => own.failed += 1,
                        None => {
                            own.failed += 1;
                            stream = None;
                        }
                    }
                }
            })
        })
        .collect();
    let mut all = Load::new();
    for worker in workers {
        let own = worker.await.expect("a worker");
        all.latency_us.add(own.latency_us).expect("the same bounds");
        all.shed += own.shed;
        all.failed += own.failed;
    }
    all.answered = all.latency_us.len();
    all.elapsed = begun.elapsed();
    all
}

pub(crate) fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The body of an answer with status 200.
pub(crate) async fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut buffer = Vec::new();
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    (exchange(&mut stream, request.as_bytes(), &mut buffer).await? == 200).then_some(())?;
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(String::from_utf8_lossy(&buffer[head + 4..]).into_owned())
}

pub(crate) async fn get_json(address: &str, path: &str) -> Option<Value> {
    serde_json::from_str(&get(address, path).await?).ok()
}
