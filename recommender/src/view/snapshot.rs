//! The view in a file, for a fast restart: what a first load would read from the topics and fold, as of some positions.
//!
//! The file is only ever a shortcut. Nothing is lost without it; one that is damaged, of another build, too old, or that
//! does not belong to the log is passed over, and the view is loaded from the topics. Old is what the topics may no longer
//! correct: they forget erasures some time after compaction (`delete.retention.ms`, a day by default).

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use marquee_models::live::LiveState;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{Movie, MovieId, Topic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Movies, Users, View, ViewState};

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"mqview\r\n";
/// Version of what follows. To be raised with every change of a type in it; a test notices.
const VERSION: u32 = 2;
/// Older files are passed over: half of the time for which Kafka keeps tombstones by default.
const MAX_AGE: Duration = Duration::from_secs(12 * 3600);
const DIGEST_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + size_of::<u32>();

/// Why a file is passed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is of another build")]
    Version,
    #[error("it is damaged")]
    Damaged,
    #[error("it is {0:?} old")]
    Age(Duration),
    #[error("it does not belong to this log")]
    Log,
}

/// How far into the topics of a view a snapshot reaches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reach(BTreeMap<Place, Newest>);

/// Which of [`View::TOPICS`], and its partition.
type Place = (usize, i32);

fn place(topic: Topic, partition: i32) -> Option<Place> {
    let topic = View::TOPICS.iter().position(|&known| known == topic)?;
    Some((topic, partition))
}

/// The newest record that is in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Newest {
    offset: i64,
    timestamp_ms: i64,
}

impl Reach {
    /// Notes that a record is in.
    pub(super) fn note(&mut self, record: &RawRecord) {
        let newest = Newest {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
        };
        if let Some(place) = place(record.topic, record.partition) {
            self.0.insert(place, newest);
        }
    }

    /// Where to read on: from the newest record that is in, so that [`Self::admits`] can tell whether it still is that.
    pub(super) fn from(&self, topic: Topic) -> BTreeMap<i32, i64> {
        let within = |&(&(of, partition), newest): &(&Place, &Newest)| {
            (place(topic, partition) == Some((of, partition))).then_some((partition, newest.offset))
        };
        self.0.iter().filter_map(|entry| within(&entry)).collect()
    }

    /// Whether a record is news.
    ///
    /// # Errors
    /// [`Unfit::Log`] where another record was in at this offset: the topic was made anew.
    pub(super) fn admits(&self, record: &RawRecord) -> Result<bool, Unfit> {
        let place = place(record.topic, record.partition);
        let Some(newest) = place.and_then(|place| self.0.get(&place)) else {
            return Ok(true);
        };
        if record.offset == newest.offset && record.timestamp_ms != newest.timestamp_ms {
            return Err(Unfit::Log);
        }
        Ok(record.offset > newest.offset)
    }
}

/// A view taken at one moment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    taken_at_ms: i64,
    pub(super) reach: Reach,
    /// By index; those that are not in the catalogue have an id only. As text, which survives a change of the type.
    movies: Vec<(MovieId, Option<String>)>,
    users: Users,
    live: LiveState,
    refold: bool,
}

impl Snapshot {
    /// Copies what is needed of `state`; the view stands still meanwhile, its readers do not.
    pub(super) fn of(state: &ViewState, reach: &Reach, now_ms: i64) -> Self {
        let text = |movie: &Movie| serde_json::to_string(movie).ok();
        Self {
            taken_at_ms: now_ms,
            reach: reach.clone(),
            movies: state
                .movies
                .rows()
                .iter()
                .map(|row| (row.id, row.movie.as_deref().and_then(text)))
                .collect(),
            users: state.users.clone(),
            live: state.live.clone(),
            refold: state.refold,
        }
    }

    /// The view that was taken. Movies keep their indices.
    pub(super) fn into_state(self) -> Result<ViewState, Unfit> {
        let mut movies = Movies::default();
        for (id, described) in self.movies {
            movies.index_of(id);
            if let Some(text) = described {
                movies.upsert(serde_json::from_str(&text).map_err(|_| Unfit::Damaged)?);
            }
        }
        let mut users = self.users;
        users.index();
        Ok(ViewState {
            movies,
            users,
            live: self.live,
            recent: super::ahead::RecentIds::default(),
            refold: self.refold,
        })
    }

    /// Replaces the file at `path`, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = fresh(path);
        let file = std::fs::File::create(&fresh)?;
        let mut out = Hashing {
            out: BufWriter::with_capacity(1 << 20, file),
            digest: Sha256::new(),
        };
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        postcard::to_io(self, &mut out).map_err(io::Error::other)?;
        let Hashing { mut out, digest } = out;
        out.write_all(&digest.finalize())?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        std::fs::rename(&fresh, path)?;
        if let Some(folder) = path.parent() {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Reads the file at `path`; `None` if there is none.
    pub(super) fn read(path: &Path, now_ms: i64) -> Result<Option<Self>, Unfit> {
        let mut bytes = Vec::new();
        match std::fs::File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(Unfit::Damaged)?;
        let (head, body) = content.split_at_checked(HEAD_BYTES).ok_or(Unfit::Damaged)?;
        if !head.starts_with(MAGIC) || !head.ends_with(&VERSION.to_le_bytes()) {
            return Err(Unfit::Version);
        }
        if Sha256::digest(content)[..] != digest[..] {
            return Err(Unfit::Damaged);
        }
        let snapshot: Self = postcard::from_bytes(body).map_err(|_| Unfit::Damaged)?;
        // One from the future is as good as any: the clock was set back.
        let age = u64::try_from(now_ms.saturating_sub(snapshot.taken_at_ms)).unwrap_or(0);
        let age = Duration::from_millis(age);
        if age > MAX_AGE {
            return Err(Unfit::Age(age));
        }
        Ok(Some(snapshot))
    }
}

fn fresh(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Hashes what it hands on.
struct Hashing<W> {
    out: W,
    digest: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// When and where snapshots are written: by one thread at a time, beside the one that keeps the view.
#[derive(Debug)]
pub(crate) struct Snapshots {
    path: PathBuf,
    every: Duration,
    writing: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    last: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// The file of a state directory, written every so often and at the end.
    pub(crate) fn new(state_dir: &Path, every: Duration) -> Self {
        Self {
            path: state_dir.join("view.snapshot"),
            every,
            writing: Mutex::new(Writing {
                last: Instant::now(),
                thread: None,
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a snapshot aside, if it is time and none is being written. For the thread that keeps the view: it must not
    /// write meanwhile, so that view and reach are of one moment.
    pub(super) fn write_if_due(&self, view: &View, reach: &Reach, now_ms: i64) {
        let mut writing = self.writing();
        let busy = writing
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        if busy || writing.last.elapsed() < self.every {
            return;
        }
        writing.last = Instant::now();
        let snapshot = Snapshot::of(&view.read(), reach, now_ms);
        let path = self.path.clone();
        let thread = std::thread::Builder::new()
            .name("recommender-snapshot".into())
            .spawn(move || {
                marquee_runtime::priority::yield_to_others();
                save(&snapshot, &path);
            });
        match thread {
            Ok(thread) => writing.thread = Some(thread),
            Err(error) => tracing::warn!(%error, "no thread for a snapshot of the view"),
        }
    }

    /// Writes the last one, after any that is being written.
    pub(super) fn finish(&self, view: &View, reach: &Reach, now_ms: i64) {
        let mut writing = self.writing();
        if let Some(thread) = writing.thread.take() {
            drop(thread.join());
        }
        save(&Snapshot::of(&view.read(), reach, now_ms), &self.path);
    }
}

fn save(snapshot: &Snapshot, path: &Path) {
    let begun = Instant::now();
    match snapshot.write(path) {
        Ok(()) => tracing::info!(
            path = %path.display(),
            duration_ms = begun.elapsed().as_millis() as u64,
            "snapshot of the view written"
        ),
        Err(error) => tracing::warn!(path = %path.display(), %error, "no snapshot of the view"),
    }
}

#[cfg(test)]
mod tests {
    use marquee_models::live::LiveParams;
    use marquee_schemas::{FeatureRecord, HistoryChunk, Kind, SchemaVersion, UserId};

    use super::*;
    use crate::testing::{changes, chunk_record, chunks, movie, rated, record, tombstone, user_features};

    const NOW_MS: i64 = 1_000_000_000;

    fn in_epoch(epoch: i64, mut chunks: Vec<HistoryChunk>) -> HistoryChunk {
        HistoryChunk {
            epoch: Some(epoch),
            ..chunks.remove(0)
        }
    }

    /// A view with a bit of everything: viewers, a watchlist, an event ahead, an erased user and one who returned, a
    /// movie that is gone and one that was met in a history only.
    fn view() -> View {
        let view = View::new(LiveParams::default(), 32).unwrap();
        view.apply_changes(changes());
        let mut described = user_features(3, 9, &["Drama"]);
        described.watchlist = vec![MovieId(104)];
        let event = marquee_schemas::Interaction {
            schema_version: SchemaVersion,
            event_id: "ahead".into(),
            user_id: UserId(4),
            movie_id: Some(MovieId(109)),
            kind: Kind::Rating,
            rating: Some(5.0),
            genres: Vec::new(),
            timestamp: 20_000_000,
            session_id: None,
            request_id: None,
            source: None,
        };
        let records = [
            record(0, 50, &FeatureRecord::User(described)),
            chunk_record(1, 7, chunks(77, &[rated(999, 2.5, 5)]).remove(0)),
            tombstone(Topic::Features, 0, 51, "u/5"),
            chunk_record(0, 53, in_epoch(40, chunks(6, &[rated(102, 4.0, 6_000_000)]))),
            tombstone(Topic::Movies, 0, 52, "103"),
            record(0, 9, &event),
        ];
        view.apply(&records, NOW_MS, |record, error| panic!("{record:?}: {error}"));
        view
    }

    fn reach() -> Reach {
        let mut reach = Reach::default();
        reach.note(&tombstone(Topic::Features, 1, 7, "u/1"));
        reach.note(&tombstone(Topic::Interactions, 0, 7, "u/1"));
        reach
    }

    fn described(state: &ViewState) -> (Vec<(MovieId, Option<Movie>)>, Vec<String>) {
        let movies = state.movies.rows().iter();
        let movies = movies
            .map(|row| (row.id, row.movie.as_deref().cloned()))
            .collect();
        let users = (0..100)
            .map(|user| format!("{:?}", state.users.find(UserId(user))))
            .collect();
        (movies, users)
    }

    #[test]
    fn what_is_read_back_is_what_was_taken_and_goes_on_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.snapshot");
        assert!(Snapshot::read(&path, NOW_MS).unwrap().is_none());
        let original = view();
        Snapshot::of(&original.read(), &reach(), NOW_MS)
            .write(&path)
            .unwrap();
        let snapshot = Snapshot::read(&path, NOW_MS + 1).unwrap().unwrap();
        assert_eq!(snapshot.reach, reach());
        let resumed = View::new(LiveParams::default(), 32).unwrap();
        resumed.replace(snapshot.into_state().unwrap());
        let same = |a: &View, b: &View| {
            let (a, b) = (a.read(), b.read());
            assert_eq!(described(&a), described(&b));
            assert_eq!(a.live, b.live);
            assert_eq!(a.movies.present(), b.movies.present());
            assert_eq!(a.users.len(), b.users.len());
        };
        same(&original, &resumed);
        assert!(resumed.read().users.find(UserId(5)).is_none(), "erased is erased");
        // The event ahead is confirmed, the erased user returns, a movie is new; of who had returned before, something
        // older comes up.
        let mut fourth: Vec<_> = (0..8)
            .map(|step| rated(100 + step, 4.5, 4_000_000 + i64::from(step) * 1_000))
            .collect();
        fourth.push(rated(109, 5.0, 20_000_000));
        let more = [
            chunk_record(0, 60, chunks(4, &fourth).remove(0)),
            chunk_record(0, 61, chunks(5, &[rated(101, 3.0, 30_000_000)]).remove(0)),
            record(0, 62, &movie(500)),
            chunk_record(
                0,
                63,
                chunks(6, &[rated(101, 3.0, 1), rated(103, 3.0, 2)]).remove(0),
            ),
        ];
        for view in [&original, &resumed] {
            view.apply(&more, NOW_MS, |record, error| panic!("{record:?}: {error}"));
        }
        same(&original, &resumed);
        let state = resumed.read();
        let (_, returned) = state.users.find(UserId(6)).unwrap();
        assert_eq!(returned.parts[0].entries.len(), 1);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing left behind"
        );
    }

    #[test]
    fn a_file_that_is_damaged_old_or_of_another_build_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.snapshot");
        Snapshot::of(&view().read(), &reach(), NOW_MS)
            .write(&path)
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        let read = |bytes: &[u8], now_ms: i64| {
            std::fs::write(&path, bytes).unwrap();
            Snapshot::read(&path, now_ms)
        };
        for length in [0, 5, HEAD_BYTES, DIGEST_BYTES, whole.len() / 2, whole.len() - 1] {
            assert!(matches!(
                read(&whole[..length], NOW_MS),
                Err(Unfit::Damaged | Unfit::Version)
            ));
        }
        for place in (0..whole.len()).step_by(101) {
            let mut damaged = whole.clone();
            damaged[place] ^= 4;
            assert!(read(&damaged, NOW_MS).is_err(), "byte {place}");
        }
        let mut other = whole.clone();
        other[MAGIC.len()] += 1;
        assert!(matches!(read(&other, NOW_MS), Err(Unfit::Version)));
        let age_ms = MAX_AGE.as_millis() as i64;
        assert!(matches!(read(&whole, NOW_MS + age_ms + 1), Err(Unfit::Age(_))));
        assert!(read(&whole, NOW_MS + age_ms).unwrap().is_some());
        assert!(
            read(&whole, NOW_MS - age_ms).unwrap().is_some(),
            "a clock set back"
        );
    }

    #[test]
    fn a_log_is_read_on_from_its_newest_record_which_must_still_be_that() {
        let mut reach = reach();
        assert_eq!(reach.from(Topic::Features), BTreeMap::from([(1, 7)]));
        assert_eq!(reach.from(Topic::Movies), BTreeMap::new());
        let at = |partition, offset, timestamp_ms| RawRecord {
            timestamp_ms,
            ..tombstone(Topic::Features, partition, offset, "u/1")
        };
        assert!(!reach.admits(&at(1, 7, 0)).unwrap());
        assert!(reach.admits(&at(1, 8, 3)).unwrap() && reach.admits(&at(0, 0, 3)).unwrap());
        assert!(matches!(reach.admits(&at(1, 7, 3)), Err(Unfit::Log)));
        reach.note(&at(1, 8, 3));
        assert!(!reach.admits(&at(1, 8, 3)).unwrap());
    }

    /// When this fails, a type in the file has changed: raise [`VERSION`], then put the new digest here.
    #[test]
    fn the_layout_is_that_of_its_version() {
        // All at one time: no number depends on how a machine computes powers.
        let entries = [rated(101, 4.5, 1_000), rated(102, 2.0, 1_000)];
        let view = View::new(LiveParams::default(), 32).unwrap();
        let records = [
            record(0, 1, &movie(101)),
            chunk_record(0, 2, chunks(7, &entries).remove(0)),
        ];
        view.apply(&records, NOW_MS, |record, error| panic!("{record:?}: {error}"));
        let bytes = postcard::to_allocvec(&Snapshot::of(&view.read(), &reach(), NOW_MS)).unwrap();
        let digest = &Sha256::digest(&bytes)[..4];
        assert_eq!((VERSION, digest), (2, &[111, 246, 204, 54][..]));
    }
}
