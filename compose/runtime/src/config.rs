//! Layered configuration: built-in defaults < file < `MARQUEE_` environment < flags.

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::Serialize;
use serde::de::DeserializeOwned;

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
                // These are read before the configuration or by the tests, and are no keys of it.
                .ignore(&[
                    "CONFIG",
                    "DATA_DIR",
                    "LOG",
                    "LOG_FORMAT",
                    "REQUIRE_FOREIGN",
                    "REQUIRE_KAFKA",
                ])
                .split("__"),
        )
        .merge(Serialized::defaults(flags))
        .extract()
        .map_err(|error| ConfigError(error.to_string()))
}
