//! Numbers for Prometheus, in its text format. No label carries a user, a movie, or anything else without bound.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Quantiles of latency that are told.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];
/// The longest latency told apart, µs.
const LONGEST_US: u64 = 60_000_000;
/// Quantiles are those of the current and the last period of this length.
const PERIOD: Duration = Duration::from_secs(60);

/// Requests counted by endpoint and status, with their latency.
#[derive(Debug, Default)]
pub struct HttpMetrics {
    endpoints: Mutex<BTreeMap<&'static str, Endpoint>>,
    shed: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Clone)]
struct Endpoint {
    by_status: BTreeMap<u16, u64>,
    seconds_sum: f64,
    count: u64,
    current: Histogram<u64>,
    last: Histogram<u64>,
    since: Instant,
}

impl Endpoint {
    fn new() -> Option<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3).ok()?;
        Some(Self {
            by_status: BTreeMap::new(),
            seconds_sum: 0.0,
            count: 0,
            last: histogram.clone(),
            current: histogram,
            since: Instant::now(),
        })
    }

    fn turn(&mut self) {
        let age = self.since.elapsed();
        if age < PERIOD {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.last);
        self.current.reset();
        if age >= 2 * PERIOD {
            self.last.reset();
        }
        self.since = Instant::now();
    }
}

impl HttpMetrics {
    /// Counts one answer.
    pub fn observe(&self, endpoint: &'static str, status: u16, latency: Duration) {
        let mut endpoints = self.endpoints();
        let entry = match endpoints.entry(endpoint) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => match Endpoint::new() {
                Some(new) => entry.insert(new),
                None => return,
            },
        };
        entry.turn();
        *entry.by_status.entry(status).or_default() += 1;
        entry.count += 1;
        entry.seconds_sum += latency.as_secs_f64();
        entry
            .current
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US).max(1));
    }

    /// Counts a request that was turned away because too many are being worked on or wait.
    pub fn shed(&self) {
        self.shed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<&'static str, Endpoint>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoints as they are now. One is copied at a time: each request needs the lock, too.
    fn copied(&self) -> Vec<(&'static str, Endpoint)> {
        let names: Vec<&'static str> = self.endpoints().keys().copied().collect();
        let copy = |name| {
            let mut endpoints = self.endpoints();
            let endpoint = endpoints.get_mut(name)?;
            endpoint.turn();
            Some((name, endpoint.clone()))
        };
        names.into_iter().filter_map(copy).collect()
    }

    /// Writes the metrics of this part.
    pub fn expose(&self, text: &mut Exposition) {
        let endpoints = self.copied();
        text.family(
            "marquee_http_requests_total",
            "counter",
            "Requests answered, by endpoint and status.",
        );
        for (endpoint, entry) in &endpoints {
            for (status, count) in &entry.by_status {
                text.sample(
                    "marquee_http_requests_total",
                    &[("endpoint", endpoint), ("status", &status.to_string())],
                    *count as f64,
                );
            }
        }
        let name = "marquee_http_request_duration_seconds";
        text.family(
            name,
            "summary",
            "Time to answer; quantiles over the last one to two minutes.",
        );
        for (endpoint, mut entry) in endpoints {
            let both = &mut entry.last;
            if both.add(&entry.current).is_err() {
                continue;
            }
            for quantile in QUANTILES {
                text.sample(
                    name,
                    &[("endpoint", endpoint), ("quantile", &quantile.to_string())],
                    both.value_at_quantile(quantile) as f64 / 1e6,
                );
            }
            text.sample(
                &format!("{name}_sum"),
                &[("endpoint", endpoint)],
                entry.seconds_sum,
            );
            text.sample(
                &format!("{name}_count"),
                &[("endpoint", endpoint)],
                entry.count as f64,
            );
        }
        text.single(
            "marquee_http_shed_total",
            "counter",
            "Requests turned away because too many were being worked on or waited.",
            self.shed.load(std::sync::atomic::Ordering::Relaxed) as f64,
        );
    }
}

/// Text in the Prometheus exposition format, version 0.0.4.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a family of samples.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let escaped = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let open = if place == 0 { '{' } else { ',' };
            self.0.push_str(&format!("{open}{label}=\"{escaped}\""));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.0.push_str(&format!(" {value}\n"));
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_endpoint_and_status_and_labels_are_escaped() {
        let metrics = HttpMetrics::default();
        metrics.observe("/recommend", 200, Duration::from_millis(2));
        metrics.observe("/recommend", 200, Duration::from_millis(4));
        metrics.observe("/recommend", 422, Duration::from_millis(1));
        metrics.shed();
        let mut text = Exposition::default();
        metrics.expose(&mut text);
        text.sample("x", &[("a", "q\"\\\n")], 1.0);
        let text = text.finish();
        for line in [
            "marquee_http_requests_total{endpoint=\"/recommend\",status=\"200\"} 2",
            "marquee_http_requests_total{endpoint=\"/recommend\",status=\"422\"} 1",
            "marquee_http_request_duration_seconds_count{endpoint=\"/recommend\"} 3",
            "marquee_http_shed_total 1",
            "x{a=\"q\\\"\\\\\\n\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
