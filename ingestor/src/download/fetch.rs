//! One file over HTTP, in as many pieces as the connection needs.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use ureq::http::header::{CONTENT_RANGE, RANGE};
use ureq::http::{Response, StatusCode};

use super::Downloader;
use crate::Error;

const MAX_TEXT_BYTES: u64 = 64 * 1024;

/// What one attempt came to.
enum Attempt {
    Complete,
    /// Worth another attempt.
    Broken(Broken),
}

struct Broken {
    cause: String,
    /// Whether the server was reached at all.
    reached: bool,
    /// The status, where one came.
    status: Option<u16>,
}

impl Broken {
    fn connection(error: &ureq::Error) -> Self {
        Self {
            cause: error.to_string(),
            reached: false,
            status: None,
        }
    }

    fn transfer(cause: impl ToString) -> Self {
        Self {
            cause: cause.to_string(),
            reached: true,
            status: None,
        }
    }

    fn status(status: StatusCode) -> Self {
        Self {
            cause: format!("the server answers {status}"),
            reached: true,
            status: Some(status.as_u16()),
        }
    }
}

impl Downloader {
    /// A small text file.
    pub(super) fn fetch_text(&self, url: &str) -> Result<String, Error> {
        let mut text = String::new();
        self.attempts(
            url,
            || 0,
            || {
                let response = match self.agent.get(url).call() {
                    Ok(response) => response,
                    Err(error) => return Ok(Attempt::Broken(Broken::connection(&error))),
                };
                if response.status() != StatusCode::OK {
                    return refusal(url, response.status());
                }
                let limited = response.into_body().into_with_config().limit(MAX_TEXT_BYTES);
                match limited.lossy_utf8(true).read_to_string() {
                    Ok(read) => {
                        text = read;
                        Ok(Attempt::Complete)
                    }
                    Err(error) => Ok(Attempt::Broken(Broken::transfer(error))),
                }
            },
        )?;
        Ok(text)
    }

    /// Completes `part`, going on from what it already holds where the server can.
    pub(super) fn fetch_file(&self, url: &str, part: &Path, progress: &ProgressBar) -> Result<(), Error> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(part)
            .map_err(Error::io(part))?;
        let received = || std::fs::metadata(part).map_or(0, |found| found.len());
        self.attempts(url, received, || {
            self.continue_file(url, part, &mut file, progress)
        })?;
        file.sync_all().map_err(Error::io(part))?;
        progress.finish();
        Ok(())
    }

    fn attempts(
        &self,
        url: &str,
        received: impl Fn() -> u64,
        mut once: impl FnMut() -> Result<Attempt, Error>,
    ) -> Result<(), Error> {
        let attempts = self.config.attempts.max(1);
        let mut pause = Duration::from_millis(self.config.first_backoff_ms);
        let mut made = 1;
        loop {
            let broken = match once()? {
                Attempt::Complete => return Ok(()),
                Attempt::Broken(broken) => broken,
            };
            // A host that cannot be reached at all will hardly be a few seconds later.
            let allowed = if broken.reached || received() > 0 {
                attempts
            } else {
                attempts.min(2)
            };
            if made >= allowed {
                let url = url.to_owned();
                return Err(match broken {
                    Broken {
                        status: Some(status), ..
                    } => Error::HttpStatus { url, status },
                    Broken {
                        reached: false,
                        cause,
                        ..
                    } if received() == 0 => Error::Unreachable { url, cause },
                    Broken { cause, .. } => Error::Interrupted {
                        url,
                        received: received(),
                        attempts: made,
                        cause,
                    },
                });
            }
            tracing::warn!(%url, attempt = made, cause = %broken.cause, "the download broke off, trying again");
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2);
            made += 1;
        }
    }

    fn continue_file(
        &self,
        url: &str,
        part: &Path,
        file: &mut File,
        progress: &ProgressBar,
    ) -> Result<Attempt, Error> {
        let held = file.seek(SeekFrom::End(0)).map_err(Error::io(part))?;
        let mut request = self.agent.get(url);
        if held > 0 {
            request = request.header(RANGE, format!("bytes={held}-"));
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Broken(Broken::connection(&error))),
        };
        let status = response.status();
        let range = content_range(&response);
        let from = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range.and_then(|range| range.start) == Some(held) => held,
            // Nothing is left to send: complete, unless the file over there is another one.
            StatusCode::RANGE_NOT_SATISFIABLE if range.and_then(|range| range.total) == Some(held) => {
                progress.set_length(held);
                progress.set_position(held);
                return Ok(Attempt::Complete);
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if held > 0 => {
                file.set_len(0).map_err(Error::io(part))?;
                return Ok(Attempt::Broken(Broken::transfer("the server sent another range")));
            }
            other => return refusal(url, other),
        };
        file.set_len(from).map_err(Error::io(part))?;
        file.seek(SeekFrom::Start(from)).map_err(Error::io(part))?;
        let total = match status {
            StatusCode::OK => response.body().content_length(),
            _ => range.and_then(|range| range.total),
        };
        let limit = self.config.max_archive_bytes;
        let too_large = |bytes: u64| Error::Archive {
            path: part.to_path_buf(),
            detail: format!("{bytes} bytes or more, allowed are {limit}"),
        };
        if let Some(total) = total {
            if total > limit {
                return Err(too_large(total));
            }
            progress.set_length(total);
        }
        progress.set_position(from);
        // One byte above the limit tells "at the limit" from "beyond it".
        let body = response.into_body().into_with_config().limit(u64::MAX);
        let mut body = body.reader().take(limit.saturating_add(1).saturating_sub(from));
        let mut at = from;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Broken(Broken::transfer(error))),
            };
            file.write_all(&buffer[..read]).map_err(Error::io(part))?;
            at += read as u64;
            progress.set_position(at);
        }
        if at > limit {
            return Err(too_large(at));
        }
        match total {
            Some(total) if at != total => Ok(Attempt::Broken(Broken::transfer(format!(
                "{at} of {total} bytes arrived"
            )))),
            _ => Ok(Attempt::Complete),
        }
    }
}

/// An answer that is not the file: final for the client's own mistakes, worth another attempt for the server's.
fn refusal(url: &str, status: StatusCode) -> Result<Attempt, Error> {
    if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
        return Ok(Attempt::Broken(Broken::status(status)));
    }
    Err(Error::HttpStatus {
        url: url.to_owned(),
        status: status.as_u16(),
    })
}

#[derive(Clone, Copy)]
struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

/// `bytes 100-199/200`, `bytes */200` (RFC 9110, section 14.4).
fn content_range<T>(response: &Response<T>) -> Option<ContentRange> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (span, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some(ContentRange {
        start: span
            .split_once('-')
            .and_then(|(start, _)| start.trim().parse().ok()),
        total: total.trim().parse().ok(),
    })
}
