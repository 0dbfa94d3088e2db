//! Fetches a data set from GroupLens.
//!
//! The archive is written to a `.part` file, which a later call continues; it is checked against the MD5 published
//! beside it, unpacked beside its final place, and moved there in one step. So a data-set directory in the cache is
//! always complete.

mod digest;
mod fetch;
#[cfg(test)]
mod tests;
mod unpack;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::dataset::{check_name, holds_dataset};

/// Where GroupLens publishes the data sets.
pub const GROUPLENS: &str = "https://files.grouplens.org/datasets/movielens";

/// Settings of the download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DownloadConfig {
    /// Directory of the archives: `<base_url>/<name>.zip` and `<name>.zip.md5`.
    pub base_url: String,
    /// Where data sets are kept: `<cache_dir>/<name>`.
    pub cache_dir: PathBuf,
    /// Attempts per file before giving up; each goes on where the one before broke off.
    pub attempts: u32,
    /// Pause before the second attempt, ms; doubled for each further one.
    pub first_backoff_ms: u64,
    /// How long to wait for a connection, ms.
    pub connect_timeout_ms: u64,
    /// How long the server may be silent, ms.
    pub read_timeout_ms: u64,
    /// The largest archive accepted, bytes.
    pub max_archive_bytes: u64,
    /// The largest sum of unpacked files accepted, bytes.
    pub max_unpacked_bytes: u64,
    /// Whether an archive without a published digest is refused. GroupLens publishes none for the `latest` ones,
    /// which change from time to time; then only the checksums inside the archive are checked.
    pub require_digest: bool,
}

impl Default for DownloadConfig {
    fn default() -> Self {
        Self {
            base_url: GROUPLENS.to_owned(),
            cache_dir: PathBuf::from(".marquee/data"),
            attempts: 5,
            first_backoff_ms: 500,
            connect_timeout_ms: 10_000,
            read_timeout_ms: 30_000,
            max_archive_bytes: 2 << 30,
            max_unpacked_bytes: 8 << 30,
            require_digest: false,
        }
    }
}

/// Fetches archives.
#[derive(Debug, Clone)]
pub struct Downloader {
    config: DownloadConfig,
    agent: ureq::Agent,
}

impl Downloader {
    /// A downloader with these settings.
    #[must_use]
    pub fn new(config: DownloadConfig) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("marquee/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_millis(config.connect_timeout_ms)))
            .timeout_recv_response(Some(Duration::from_millis(config.read_timeout_ms)))
            .timeout_per_read(Some(Duration::from_millis(config.read_timeout_ms)))
            .build()
            .new_agent();
        Self { config, agent }
    }

    /// The URL of a data set's archive.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}.zip", self.config.base_url.trim_end_matches('/'))
    }

    /// The directory of the data set `name`, downloaded if it is not there yet. Two processes that do so at once wait
    /// for each other. Blocks: not for async code, see [`Downloader::fetch`].
    ///
    /// # Errors
    /// [`Error::Unreachable`] without a network, [`Error::HttpStatus`] (404: no such data set),
    /// [`Error::Interrupted`] after the last attempt, [`Error::Digest`], [`Error::Archive`], [`Error::Io`].
    pub fn fetch_blocking(&self, name: &str, progress: &ProgressBar) -> Result<PathBuf, Error> {
        check_name(name)?;
        let home = self.config.cache_dir.join(name);
        if holds_dataset(&home) {
            return Ok(home);
        }
        let cache = &self.config.cache_dir;
        fs::create_dir_all(cache).map_err(Error::io(cache))?;
        let lock_path = cache.join(format!(".{name}.lock"));
        let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
        lock.lock().map_err(Error::io(&lock_path))?;
        if holds_dataset(&home) {
            return Ok(home);
        }
        let archive = self.archive(name, progress)?;
        unpack::unpack(&archive, &home, self.config.max_unpacked_bytes)?;
        fs::remove_file(&archive).map_err(Error::io(&archive))?;
        Ok(home)
    }

    /// [`Downloader::fetch_blocking`] on a thread of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn fetch(&self, name: &str, progress: &ProgressBar) -> Result<PathBuf, Error> {
        let (this, name, progress) = (self.clone(), name.to_owned(), progress.clone());
        tokio::task::spawn_blocking(move || this.fetch_blocking(&name, &progress))
            .await
            .map_err(|error| Error::Internal(format!("the download ended: {error}")))?
    }

    /// A complete archive with the right digest, at its place in the cache.
    fn archive(&self, name: &str, progress: &ProgressBar) -> Result<PathBuf, Error> {
        let url = self.url(name);
        let expected = self.published_digest(&url)?;
        let part = self.config.cache_dir.join(format!("{name}.zip.part"));
        let resumed = fs::metadata(&part).is_ok_and(|found| found.len() > 0);
        self.fetch_file(&url, &part, progress)?;
        let mut outcome = digest::check(&part, expected.as_deref(), &url);
        if resumed && matches!(outcome, Err(Error::Digest { .. })) {
            // The first half may be of an older edition of the archive.
            tracing::warn!(%url, "the resumed archive has a wrong digest, fetching it anew");
            self.fetch_file(&url, &part, progress)?;
            outcome = digest::check(&part, expected.as_deref(), &url);
        }
        outcome?;
        let archive = self.config.cache_dir.join(format!("{name}.zip"));
        fs::rename(&part, &archive).map_err(Error::io(&archive))?;
        Ok(archive)
    }

    fn published_digest(&self, url: &str) -> Result<Option<String>, Error> {
        let digest_url = format!("{url}.md5");
        match self.fetch_text(&digest_url) {
            Ok(text) => digest::parse(&text, &digest_url).map(Some),
            Err(Error::HttpStatus { status: 404, .. }) if !self.config.require_digest => {
                tracing::warn!(url = %digest_url, "no digest is published, the archive's own checksums must do");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A progress bar for a download: size, speed and time left.
#[must_use]
pub fn progress_bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template(
        "{msg} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
    );
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(format!("downloading {name}"));
    bar
}

/// The user's cache directory for data sets from the values of `XDG_CACHE_HOME` and `HOME`; `None` without either.
#[must_use]
pub fn default_cache_dir(xdg_cache_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let absolute = |dir: &&Path| dir.is_absolute();
    xdg_cache_home
        .filter(absolute)
        .map(Path::to_path_buf)
        .or_else(|| home.filter(absolute).map(|home| home.join(".cache")))
        .map(|cache| cache.join("marquee").join("data"))
}
