use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::Dataset;

const NAME: &str = "ml-test";

/// How the server treats one file.
#[derive(Clone, Default)]
struct Served {
    bytes: Vec<u8>,
    /// Bodies are cut off after so many bytes, for so many requests.
    cut: Option<(usize, u32)>,
    /// So many requests are answered 503 first.
    busy: u32,
    no_ranges: bool,
    /// No Content-Length: the body ends with the connection.
    no_length: bool,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Served>,
    /// Path and range of every request.
    requests: Vec<(String, Option<String>)>,
}

/// An HTTP/1.1 server of a few files that can break.
struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &shared);
            }
        });
        Self { address, state }
    }

    fn serve(&self, path: &str, served: Served) {
        self.state
            .lock()
            .unwrap()
            .files
            .insert(format!("/{path}"), served);
    }

    /// An archive with its digest.
    fn publish(&self, archive: Served) {
        let digest = md5_of(&archive.bytes);
        self.serve(&format!("{NAME}.zip"), archive);
        self.serve(
            &format!("{NAME}.zip.md5"),
            Served {
                bytes: format!("{digest}  {NAME}.zip\n").into_bytes(),
                ..Default::default()
            },
        );
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        let archives = state.requests.iter().filter(|(path, _)| path.ends_with(".zip"));
        archives.map(|(_, range)| range.clone()).collect()
    }

    fn downloader(&self, cache: &Path) -> Downloader {
        Downloader::new(DownloadConfig {
            base_url: format!("http://{}", self.address),
            cache_dir: cache.to_path_buf(),
            attempts: 3,
            first_backoff_ms: 1,
            ..Default::default()
        })
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range:") {
            range = Some(value.trim().to_owned());
        }
    }
    let mut state = state.lock().unwrap();
    state.requests.push((path.clone(), range.clone()));
    let (status, extra, body, length) = match state.files.get_mut(&path) {
        None => ("404 Not Found", String::new(), b"not here".to_vec(), Some(8)),
        Some(served) if served.busy > 0 => {
            served.busy -= 1;
            ("503 Service Unavailable", String::new(), Vec::new(), Some(0))
        }
        Some(served) => {
            let total = served.bytes.len();
            let from: usize = range
                .filter(|_| !served.no_ranges)
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
                .unwrap_or(0);
            if from > 0 && from >= total {
                (
                    "416 Range Not Satisfiable",
                    format!("Content-Range: bytes */{total}\r\n"),
                    Vec::new(),
                    Some(0),
                )
            } else {
                let whole = served.bytes[from..].to_vec();
                let length = (!served.no_length).then_some(whole.len());
                let body = match &mut served.cut {
                    Some((at, times)) if *times > 0 => {
                        *times -= 1;
                        whole[..(*at).min(whole.len())].to_vec()
                    }
                    _ => whole,
                };
                if from > 0 {
                    let range = format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1);
                    ("206 Partial Content", range, body, length)
                } else {
                    ("200 OK", String::new(), body, length)
                }
            }
        }
    };
    let length = length
        .map(|length| format!("Content-Length: {length}\r\n"))
        .unwrap_or_default();
    let head = format!("HTTP/1.1 {status}\r\n{length}{extra}Connection: close\r\n\r\n");
    // The client may hang up first.
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body))
        .ok();
    stream.shutdown(Shutdown::Both).ok();
}

fn md5_of(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, bytes).unwrap();
    digest::of(&file).unwrap()
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A data set of some size that does not compress well.
fn archive() -> Vec<u8> {
    let mut ratings = String::from("userId,movieId,rating,timestamp\n");
    let mut noise = 12_345_u32;
    for user in 1..5_000 {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ratings.push_str(&format!("{user},1,{}.0,{}\n", noise % 5 + 1, 1 + noise / 7));
    }
    zip_of(&[
        (
            "ml-inside/movies.csv",
            b"movieId,title,genres\n1,One (1999),Drama\n",
        ),
        ("ml-inside/ratings.csv", ratings.as_bytes()),
        ("ml-inside/README.txt", b"hello"),
    ])
}

fn left_over(cache: &Path) -> Vec<String> {
    let names = fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

#[test]
fn an_archive_is_fetched_checked_unpacked_and_then_taken_from_the_cache() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let bytes = archive();
    let size = bytes.len() as u64;
    server.publish(Served {
        bytes,
        ..Default::default()
    });
    let downloader = server.downloader(cache.path());
    let progress = ProgressBar::hidden();
    let home = downloader.fetch_blocking(NAME, &progress).unwrap();
    assert_eq!(home, cache.path().join(NAME));
    assert_eq!((progress.position(), progress.length()), (size, Some(size)));
    let data = Dataset::load(&home).unwrap();
    assert_eq!((data.name.as_str(), data.ratings.len()), (NAME, 4_999));
    assert_eq!(left_over(cache.path()), [NAME]);
    assert_eq!(downloader.fetch_blocking(NAME, &progress).unwrap(), home);
    assert_eq!(server.ranges(), [None]);
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    for no_length in [false, true] {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        let bytes = archive();
        server.publish(Served {
            bytes,
            cut: Some((1_000, if no_length { 0 } else { 2 })),
            no_length,
            ..Default::default()
        });
        let home = server
            .downloader(cache.path())
            .fetch_blocking(NAME, &ProgressBar::hidden())
            .unwrap();
        assert_eq!(Dataset::load(&home).unwrap().ratings.len(), 4_999);
        if !no_length {
            let expected = [
                None,
                Some("bytes=1000-".to_owned()),
                Some("bytes=2000-".to_owned()),
            ];
            assert_eq!(server.ranges(), expected);
        }
    }
}

#[test]
fn a_later_call_resumes_what_an_earlier_one_had_to_give_up() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.publish(Served {
        bytes: archive(),
        cut: Some((500, 3)),
        ..Default::default()
    });
    let downloader = server.downloader(cache.path());
    let error = downloader
        .fetch_blocking(NAME, &ProgressBar::hidden())
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Interrupted {
                received: 1_500,
                attempts: 3,
                ..
            }
        ) && error.is_transient(),
        "{error}"
    );
    downloader.fetch_blocking(NAME, &ProgressBar::hidden()).unwrap();
    assert_eq!(server.ranges().last().unwrap().as_deref(), Some("bytes=1500-"));
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole_again() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.publish(Served {
        bytes: archive(),
        cut: Some((1_000, 1)),
        no_ranges: true,
        ..Default::default()
    });
    let home = server
        .downloader(cache.path())
        .fetch_blocking(NAME, &ProgressBar::hidden())
        .unwrap();
    assert_eq!(Dataset::load(&home).unwrap().ratings.len(), 4_999);
    assert_eq!(server.ranges().len(), 2);
}

#[test]
fn a_complete_part_needs_no_more_bytes_and_a_foreign_one_is_replaced() {
    for (part, requests) in [(archive(), 1), (vec![7; 3_000], 2), (vec![7; 10_000_000], 2)] {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        server.publish(Served {
            bytes: archive(),
            ..Default::default()
        });
        fs::write(cache.path().join(format!("{NAME}.zip.part")), part).unwrap();
        let home = server
            .downloader(cache.path())
            .fetch_blocking(NAME, &ProgressBar::hidden())
            .unwrap();
        assert_eq!(Dataset::load(&home).unwrap().ratings.len(), 4_999);
        assert_eq!(server.ranges().len(), requests);
    }
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_of_the_archive_stays() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.publish(Served {
        bytes: archive(),
        ..Default::default()
    });
    let wrong = "00000000000000000000000000000000";
    server.serve(
        &format!("{NAME}.zip.md5"),
        Served {
            bytes: wrong.as_bytes().to_vec(),
            ..Default::default()
        },
    );
    let error = server
        .downloader(cache.path())
        .fetch_blocking(NAME, &ProgressBar::hidden())
        .unwrap_err();
    assert!(
        matches!(&error, Error::Digest { expected, .. } if expected == wrong),
        "{error}"
    );
    assert!(left_over(cache.path()).is_empty());
}

#[test]
fn an_archive_without_a_published_digest_is_taken_unless_one_is_required() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.serve(
        &format!("{NAME}.zip"),
        Served {
            bytes: archive(),
            ..Default::default()
        },
    );
    let mut downloader = server.downloader(cache.path());
    downloader.config.require_digest = true;
    let error = downloader
        .fetch_blocking(NAME, &ProgressBar::hidden())
        .unwrap_err();
    assert!(matches!(error, Error::HttpStatus { status: 404, .. }), "{error}");
    downloader.config.require_digest = false;
    downloader.fetch_blocking(NAME, &ProgressBar::hidden()).unwrap();
}

#[test]
fn a_data_set_that_is_not_there_is_404_at_once_and_a_busy_server_is_asked_again() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let downloader = server.downloader(cache.path());
    let error = downloader
        .fetch_blocking(NAME, &ProgressBar::hidden())
        .unwrap_err();
    assert!(
        matches!(error, Error::HttpStatus { status: 404, .. }) && !error.is_transient(),
        "{error}"
    );
    assert!(error.to_string().contains("name right?"), "{error}");
    assert_eq!(server.ranges().len(), 1);
    server.publish(Served {
        bytes: archive(),
        busy: 2,
        ..Default::default()
    });
    downloader.fetch_blocking(NAME, &ProgressBar::hidden()).unwrap();
    assert_eq!(server.ranges().len(), 4);
}

#[test]
fn without_a_network_the_message_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    // A port that was free a moment ago and that nobody listens on.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let downloader = Downloader::new(DownloadConfig {
        base_url: format!("http://{address}"),
        cache_dir: cache.path().to_path_buf(),
        attempts: 2,
        first_backoff_ms: 1,
        ..Default::default()
    });
    let error = downloader
        .fetch_blocking(NAME, &ProgressBar::hidden())
        .unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.is_transient(),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("--data-dir") && text.contains(&address.to_string()) && text.contains("synthetic"),
        "{text}"
    );
}

#[test]
fn archives_that_are_unsafe_to_unpack_are_refused_and_leave_nothing() {
    let csv: &[u8] = b"movieId,title,genres\n";
    let mut link = ZipWriter::new(Cursor::new(Vec::new()));
    link.add_symlink("d/movies.csv", "/etc/passwd", SimpleFileOptions::default())
        .unwrap();
    let link = link.finish().unwrap().into_inner();
    let many: Vec<_> = (0..1_001).map(|n| format!("d/{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let mut broken = archive();
    broken.truncate(2_000);
    for (bytes, fault) in [
        (zip_of(&[("../movies.csv", csv)]), "leads outside"),
        (zip_of(&[("d/../../movies.csv", csv)]), "leads outside"),
        (link, "is a link"),
        (
            zip_of(&[("d/movies.csv", &vec![0; 2_000_000])]),
            "more than 1000000 bytes",
        ),
        (zip_of(&many), "1001 entries"),
        (zip_of(&[("d/readme", csv)]), "no MovieLens data set"),
        (broken, ""),
        (b"<html>".to_vec(), ""),
    ] {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        let inside = cache.path().join("inside");
        server.publish(Served {
            bytes,
            ..Default::default()
        });
        let mut downloader = server.downloader(&inside);
        downloader.config.max_unpacked_bytes = 1_000_000;
        let error = downloader
            .fetch_blocking(NAME, &ProgressBar::hidden())
            .unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Archive { .. }) && text.contains(fault),
            "{fault}: {text}"
        );
        assert!(left_over(&inside).is_empty(), "{fault}: {:?}", left_over(&inside));
        assert_eq!(left_over(cache.path()), ["inside"], "{fault}");
    }
}

#[test]
fn an_archive_beyond_the_limit_is_refused_with_and_without_a_stated_length() {
    for no_length in [false, true] {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        server.publish(Served {
            bytes: archive(),
            no_length,
            ..Default::default()
        });
        let mut downloader = server.downloader(cache.path());
        downloader.config.max_archive_bytes = 1_000;
        let error = downloader
            .fetch_blocking(NAME, &ProgressBar::hidden())
            .unwrap_err();
        assert!(error.to_string().contains("allowed are 1000"), "{error}");
    }
}

#[tokio::test]
async fn two_callers_at_once_fetch_it_once() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.publish(Served {
        bytes: archive(),
        ..Default::default()
    });
    let downloader = server.downloader(cache.path());
    let progress = ProgressBar::hidden();
    let (a, b) = tokio::join!(
        downloader.fetch(NAME, &progress),
        downloader.fetch(NAME, &progress)
    );
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn the_cache_follows_the_environment() {
    let (xdg, home) = (Path::new("/x"), Path::new("/home/u"));
    assert_eq!(
        default_cache_dir(Some(xdg), Some(home)).unwrap(),
        Path::new("/x/marquee/data")
    );
    assert_eq!(
        default_cache_dir(None, Some(home)).unwrap(),
        Path::new("/home/u/.cache/marquee/data")
    );
    assert_eq!(default_cache_dir(Some(Path::new("relative")), None), None);
}
