//! The catalogue: one file that holds every current movie, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{DeadLetter, Movie, MovieId};

use super::Context;
use crate::error::Error;
use crate::lake::{FileEntry, Gap, NewFile, Shard, read_file, write_file};
use crate::rows::{Poison, movies_batch, movies_of, read};
use crate::table::Table;

/// One partition of the catalogue.
#[derive(Debug)]
pub(super) struct CatalogueShard {
    shard: Shard,
    movies: BTreeMap<MovieId, Movie>,
    refused: Vec<DeadLetter>,
    next_offset: Option<i64>,
    /// Records applied since the last commit.
    applied: u64,
    bytes: usize,
    since_ms: Option<i64>,
}

/// A record of the catalogue's topic: the newest of a movie replaces the older ones, an empty one removes it.
pub(crate) fn apply(movies: &mut BTreeMap<MovieId, Movie>, record: &RawRecord) -> Result<(), Poison> {
    if record.value.as_ref().is_none_or(Vec::is_empty) {
        let movie = record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok())
            .and_then(|key| key.parse().ok());
        let Some(movie) = movie else {
            return Err(Poison {
                reason: marquee_schemas::Reason::Empty,
                detail: "a removal whose key is no movie id".into(),
            });
        };
        movies.remove(&MovieId(movie));
        return Ok(());
    }
    let movie: Movie = read(record)?;
    movies.insert(movie.movie_id, movie);
    Ok(())
}

impl CatalogueShard {
    pub(super) fn open(shard: Shard) -> Result<Self, Error> {
        let mut movies = BTreeMap::new();
        for entry in &shard.manifest().files {
            let path = shard.path_of(entry);
            for batch in read_file(&path, &Table::Movies.schema())? {
                let found = movies_of(&batch)
                    .ok_or_else(|| Error::damaged(&path, "its columns are not those of the catalogue"))?;
                movies.extend(found.into_iter().map(|movie| (movie.movie_id, movie)));
            }
        }
        let next_offset = shard.next_offset();
        Ok(Self {
            shard,
            movies,
            refused: Vec::new(),
            next_offset,
            applied: 0,
            bytes: 0,
            since_ms: None,
        })
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    pub(super) fn shard_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }

    pub(super) fn skip(&mut self, gap: Gap) -> Result<(), Error> {
        self.next_offset = Some(gap.to);
        self.shard.skip(gap)
    }

    pub(super) fn take(&mut self, record: &RawRecord, context: &Context) -> Result<(), Error> {
        if self.next_offset.is_some_and(|next| record.offset < next) {
            context.counts.repeat();
            return Ok(());
        }
        context.counts.take();
        match apply(&mut self.movies, record) {
            Ok(()) => self.applied += 1,
            Err(poison) => self.refused.push(context.refusal(record, &poison)),
        }
        self.next_offset = Some(record.next_offset());
        self.bytes += record.value.as_ref().map_or(0, Vec::len);
        self.since_ms.get_or_insert_with(|| context.clock.now_ms());
        let taken = usize::try_from(self.applied).unwrap_or(usize::MAX) + self.refused.len();
        if taken >= context.flush.max_rows || self.bytes >= context.flush.max_bytes {
            self.flush(context)?;
        }
        Ok(())
    }

    pub(super) fn flush_if_due(&mut self, context: &Context) -> Result<(), Error> {
        if context.is_due(&self.shard, self.since_ms) {
            self.flush(context)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, context: &Context) -> Result<(), Error> {
        let Some(next_offset) = self.next_offset.filter(|_| self.since_ms.is_some()) else {
            return Ok(());
        };
        let bytes = write_file(&[movies_batch(self.movies.values())?])?;
        let entry = FileEntry {
            path: self.shard.file_path("", 0, next_offset),
            first_offset: 0,
            next_offset,
            rows: self.movies.len() as u64,
            bytes: bytes.len() as u64,
            min_ms: None,
            max_ms: None,
            purged_to: 0,
        };
        if !self.refused.is_empty() {
            context.publish_refused(&self.refused)?;
        }
        let obsolete: BTreeSet<String> = self
            .shard
            .manifest()
            .files
            .iter()
            .map(|file| file.path.clone())
            .collect();
        let poison = self.refused.len() as u64;
        self.shard
            .commit(vec![NewFile { entry, bytes }], &obsolete, next_offset, poison)?;
        context.counts.committed(self.applied, poison);
        self.refused.clear();
        self.applied = 0;
        self.bytes = 0;
        self.since_ms = None;
        Ok(())
    }
}
