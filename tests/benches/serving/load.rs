//! Open-loop load: request n is due at n / rate whatever became of the others, and its latency counts from then, so that
//! a server that stalls is charged for everybody who would have waited (no coordinated omission).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;

/// Keep-alive connections; a request that finds its own busy waits, and its wait counts.
const CONNECTIONS: usize = 32;
/// As many as a crowd has: all that is due lies with the server then, and it is the server that must cope.
pub(crate) const CROWD: usize = 512;
const LONGEST_US: u64 = 60_000_000;

/// Longer than any answer is waited for by what the bench judges.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a thread that only writes a request and reads an answer.
const STACK_BYTES: usize = 256 << 10;

/// One connection and what is read from it.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self {
            stream,
            buffer: Vec::with_capacity(16 << 10),
        })
    }

    fn read(&mut self) -> Option<()> {
        let filled = self.buffer.len();
        self.buffer.resize(filled + (16 << 10), 0);
        let read = self.stream.read(&mut self.buffer[filled..]).ok()?;
        self.buffer.truncate(filled + read);
        (read > 0).then_some(())
    }

    /// Sends one request and reads its answer: the status, and where the body begins; `None` where the connection ended.
    fn exchange(&mut self, request: &[u8]) -> Option<(u16, usize)> {
        self.stream.write_all(request).ok()?;
        self.buffer.clear();
        loop {
            self.read()?;
            let Some(head) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            let text = std::str::from_utf8(&self.buffer[..head]).ok()?;
            let length: usize = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse().ok())?
            })?;
            let status = text.split(' ').nth(1)?.parse().ok()?;
            while self.buffer.len() < head + 4 + length {
                self.read()?;
            }
            return Some((status, head + 4));
        }
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
    let address = address.to_owned();
    let sent = move || send(connections, &address, rate, seconds, &request);
    tokio::task::spawn_blocking(sent).await.expect("a load")
}

/// A thread per connection: the kernel wakes it when its request is due, to some ten microseconds. (A runtime's timer
/// would round to its millisecond, and send what was due in between at once.)
fn send(
    connections: usize,
    address: &str,
    rate: u32,
    seconds: u32,
    request: &(impl Fn(u64) -> Vec<u8> + Sync),
) -> Load {
    let begun = Instant::now();
    let total = u64::from(rate) * u64::from(seconds);
    // Whichever connection is free takes the next request.
    let next = AtomicU64::new(0);
    let work = || {
        let mut own = Load::new();
        let mut connection = None;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= total {
                return own;
            }
            let message = request(n);
            let due = begun + Duration::from_secs_f64(n as f64 / f64::from(rate));
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if connection.is_none() {
                connection = Connection::open(address);
            }
            let answer = connection.as_mut().and_then(|open| open.exchange(&message));
            match answer {
                Some((200, _)) => own.latency_us.saturating_record(due.elapsed().as_micros() as u64),
                Some((503, _)) => own.shed += 1,
                Some(_) => own.failed += 1,
                None => {
                    own.failed += 1;
                    connection = None;
                }
            }
        }
    };
    let mut all = Load::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|_| {
                let thread = thread::Builder::new().stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, work).expect("a thread")
            })
            .collect();
        for worker in workers {
            let own = worker.join().expect("a worker");
            all.latency_us.add(own.latency_us).expect("the same bounds");
            all.shed += own.shed;
            all.failed += own.failed;
        }
    });
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
pub(crate) fn get(address: &str, path: &str) -> Option<String> {
    let mut connection = Connection::open(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    let (status, body) = connection.exchange(request.as_bytes())?;
    (status == 200).then(|| String::from_utf8_lossy(&connection.buffer[body..]).into_owned())
}

pub(crate) fn get_json(address: &str, path: &str) -> Option<Value> {
    serde_json::from_str(&get(address, path)?).ok()
}
