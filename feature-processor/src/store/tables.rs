//! The layout of `features-<partition>.redb`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format`, `partition` | little-endian `u32` |
//! | `progress` | `""` | [`super::Counters`]: offsets and counts |
//! | | `"rows"` | number and checksum of the rows, see `rows.rs` |
//! | | `"copied"` | what the topic of rows holds already, see `copy.rs` |
//! | `users` | user id, `u64` | [`crate::UserState`] |
//! | `history` | user id, `u64`; chunk, `u32` | up to 64 entries, see `history.rs` |
//! | `movies` | movie id, `u32` | [`crate::MovieState`] |
//! | `transitions` | movie id, `u32` | [`crate::TransitionRow`], at most 32 followers |
//! | `global` | `""` | [`crate::GlobalState`] |
//! | `genres` | number, `u32` | the genre's name |
//! | `erased` | user id, `u64` | offset of the user's last erasure, `i64` |
//! | `event_ids` | segment, `u64` | up to 128 hashed event ids, see `dedupe.rs` |
//! | `observations` | segment, `u64` | up to 128 observations, see `observations.rs` |
//! | `outbox` | batch, `u64` | what is still to be published, see `outbox.rs` |
//!
//! # How large it grows
//! Bounded are `event_ids` (16 bytes for each of `dedupe_window_events`), `observations` (31 bytes for each of
//! `observations_per_partition`), `movies` and `transitions` (at most some 400 and 600 bytes per movie of the
//! catalogue), `global`, `genres`, and `outbox` (the keys of what is not yet published). `users` takes a few hundred
//! bytes per user, with at most 10,000 movies on a watchlist. What grows with the log is `history` alone: 17 bytes per
//! entry, because the whole history is what models learn from; a user who is erased takes it along. redb reuses the
//! pages that a transaction frees, so that the file stays within a small multiple of that. `erased` takes 16 bytes per
//! user who was erased, for ever: whoever returns, however late, returns in another epoch, and the state must not depend
//! on how the log was cut into batches. It says no more of them than the tombstone in the log.
//!
//! Every value begins with a version byte of its own, so that a new layout of one kind of value is read beside the
//! old one and written in its place when the key is next touched. `meta/format` counts changes that need the whole
//! file rewritten; [`migrate`] is where such a rewrite belongs. New features are new tables: an older file simply
//! lacks them until it is opened.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::rows::{RowKey, Rows};
use crate::wire::corrupt;

pub(super) const META: TableDefinition<'static, &str, u32> = TableDefinition::new("meta");
pub(super) const PROGRESS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("progress");
pub(super) const USERS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("users");
pub(super) const HISTORY: TableDefinition<'static, (u64, u32), &[u8]> = TableDefinition::new("history");
pub(super) const MOVIES: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("movies");
pub(super) const TRANSITIONS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("transitions");
pub(super) const GLOBAL: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("global");
pub(super) const GENRES: TableDefinition<'static, u32, &str> = TableDefinition::new("genres");
pub(super) const ERASED: TableDefinition<'static, u64, i64> = TableDefinition::new("erased");
pub(super) const EVENT_IDS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("event_ids");
pub(super) const OBSERVATIONS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("observations");
pub(super) const OUTBOX: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("outbox");

/// The format this build writes.
const FORMAT: u32 = 1;

/// Keys of [`PROGRESS`].
pub(super) const COUNTERS: &str = "";
pub(super) const ROWS: &str = "rows";
pub(super) const COPIED: &str = "copied";

/// Counts the rows of a file that was written before they were counted.
pub(super) fn count_rows(txn: &WriteTransaction) -> Result<(), redb::Error> {
    let mut progress = txn.open_table(PROGRESS)?;
    if progress.get(ROWS)?.is_some() {
        return Ok(());
    }
    let mut rows = Rows::default();
    for row in txn.open_table(USERS)?.iter()? {
        let (user, bytes) = row?;
        rows.add(RowKey::User(user.value()), bytes.value());
    }
    for row in txn.open_table(HISTORY)?.iter()? {
        let (key, bytes) = row?;
        let (user, chunk) = key.value();
        rows.add(RowKey::History(user, chunk), bytes.value());
    }
    for row in txn.open_table(MOVIES)?.iter()? {
        let (movie, bytes) = row?;
        rows.add(RowKey::Movie(movie.value()), bytes.value());
    }
    for row in txn.open_table(TRANSITIONS)?.iter()? {
        let (movie, bytes) = row?;
        rows.add(RowKey::Transitions(movie.value()), bytes.value());
    }
    if let Some(bytes) = txn.open_table(GLOBAL)?.get("")? {
        rows.add(RowKey::Global, bytes.value());
    }
    for row in txn.open_table(GENRES)?.iter()? {
        let (number, name) = row?;
        rows.add(RowKey::Genre(number.value()), name.value().as_bytes());
    }
    for row in txn.open_table(ERASED)?.iter()? {
        let (user, offset) = row?;
        rows.add(RowKey::Erased(user.value()), &offset.value().to_le_bytes());
    }
    progress.insert(ROWS, rows.encode().as_slice())?;
    Ok(())
}

/// Creates what is missing and brings an older file up to date; the inner error says why it cannot be used.
pub(super) fn migrate(txn: &WriteTransaction, partition: i32) -> Result<Result<(), String>, redb::Error> {
    let mut meta = txn.open_table(META)?;
    let found = meta.get("format")?.map(|guard| guard.value());
    match found {
        None => {
            meta.insert("format", FORMAT)?;
            meta.insert("partition", partition.cast_unsigned())?;
        }
        Some(FORMAT) => {}
        Some(other) => {
            return Ok(Err(format!("format {other}, this build reads {FORMAT}")));
        }
    }
    let owner = meta.get("partition")?.map(|guard| guard.value().cast_signed());
    match owner {
        Some(owner) if owner == partition => {}
        Some(owner) => {
            return Ok(Err(format!("state of partition {owner}, wanted is {partition}")));
        }
        None => return Err(corrupt("meta")),
    }
    drop(meta);
    txn.open_table(PROGRESS)?;
    txn.open_table(USERS)?;
    txn.open_table(HISTORY)?;
    txn.open_table(MOVIES)?;
    txn.open_table(TRANSITIONS)?;
    txn.open_table(GLOBAL)?;
    txn.open_table(GENRES)?;
    txn.open_table(ERASED)?;
    txn.open_table(EVENT_IDS)?;
    txn.open_table(OBSERVATIONS)?;
    txn.open_table(OUTBOX)?;
    Ok(Ok(()))
}
