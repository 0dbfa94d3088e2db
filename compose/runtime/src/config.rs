//! Layered configuration: built-in defaults < file < `MARQUEE_` environment < flags.

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// These are read before the configuration, by the tests or by the benchmarks, and are no keys of it.
const NO_KEYS: [&str; 16] = [
    "BENCH_QUICK",
    "BENCH_REQUESTS",
    "CONFIG",
    "DATA_DIR",
    "HANDOVER_BROKERS",
    "HANDOVER_STATE",
    "LOG",
    "LOG_FORMAT",
    "REQUIRE_FOREIGN",
    "REQUIRE_KAFKA",
    "REVISION",
    "SIMULATION_SEED",
    "TEST_BUCKET",
    "TEST_CACHE",
    "TEST_KILL_FOLDER",
    "UPDATE_GOLDEN",
];

/// A configuration that cannot be used; the message names the key and where it was set.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(String);

/// Merges the layers into `T`. Environment variables name a key with `__` between levels:
/// `MARQUEE_RECOMMENDER__MAX_K` sets `recommender.max_k`. Every section refuses unknown keys by name.
///
/// # Errors
/// [`ConfigError`] naming the offending key, or the file where it cannot be read.
pub fn load<T>(defaults: &T, file: Option<&Path>, flags: &impl Serialize) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned,
{
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(path) = file {
        if !path.is_file() {
            return Err(ConfigError(format!("no such file: {}", path.display())));
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    figment
        .merge(
            Env::prefixed("MARQUEE_")
                .ignore(&NO_KEYS)
                .filter(|name| !tells_of_a_service(name.as_str(), &value_of(name.as_str())))
                .split("__"),
        )
        .merge(Serialized::defaults(flags))
        .extract()
        .map_err(|error| ConfigError(error.to_string()))
}

fn value_of(name: &str) -> String {
    std::env::var(format!("MARQUEE_{name}")).unwrap_or_default()
}

/// Whether Kubernetes has set it: it tells each container of every service in its namespace, and of one that is called
/// `marquee` or `marquee-api` by names that look like ours (`SERVICE_HOST`, `API_PORT=tcp://10.0.0.1:80`,
/// `API_PORT_80_TCP_ADDR`).
fn tells_of_a_service(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words: Vec<&str> = name.split('_').collect();
    // No service's name has two hyphens running, or none of ours has one.
    if words.contains(&"") {
        return false;
    }
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let is_protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    words.ends_with(&["SERVICE", "HOST"])
        || words.windows(2).any(|pair| pair == ["SERVICE", "PORT"])
        || words
            .windows(3)
            .any(|three| three[0] == "PORT" && is_number(three[1]) && is_protocol(three[2]))
        || (words.ends_with(&["PORT"]) && value.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_says_of_services_is_no_setting() {
        for (name, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "80"),
            ("SERVICE_PORT_HTTP", "80"),
            ("PORT", "tcp://10.0.0.1:80"),
            ("PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("PORT_80_TCP_ADDR", "10.0.0.1"),
            ("MY_API_SERVICE_HOST", "10.0.0.1"),
            ("MY_API_PORT", "udp://10.0.0.1:80"),
            ("MY_API_PORT_80_UDP_PROTO", "udp"),
        ] {
            assert!(tells_of_a_service(name, value), "{name}");
        }
    }

    #[test]
    fn a_key_that_only_looks_like_it_is_still_refused() {
        for (name, value) in [
            ("PORT", "8080"),
            ("HTTP_PORT", "8080"),
            ("SERVICE", "x"),
            ("RECOMMENDER__SERVICE_HOST", "10.0.0.1"),
            ("RECOMMENDER__PORT", "tcp://10.0.0.1:80"),
            ("PORT_HTTP_TCP", "x"),
        ] {
            assert!(!tells_of_a_service(name, value), "{name}");
        }
    }
}
