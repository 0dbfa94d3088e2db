//! Letting go of what is older than its table keeps.
//!
//! A file goes once its newest row is too old, by the same commit that compaction uses: the manifest forgets it first,
//! then it is removed. The shard's position does not move, so nothing that was let go is read again. Rows go by their
//! event time; a file without dates (history read at once) goes when all of its rows are old.

use std::collections::BTreeSet;

use super::Shard;
use crate::config::RetentionConfig;
use crate::error::Error;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Shard {
    /// Removes the files whose rows are all older than `retention` allows at `now_ms`. Returns how many.
    pub(crate) fn expire(&mut self, retention: &RetentionConfig, now_ms: i64) -> Result<usize, Error> {
        if retention.days == 0 || !self.table().is_perishable() {
            return Ok(0);
        }
        let horizon = now_ms.saturating_sub(i64::from(retention.days) * DAY_MS);
        let old: BTreeSet<String> = self
            .manifest()
            .files
            .iter()
            .filter(|file| file.max_ms.is_some_and(|newest| newest < horizon))
            .map(|file| file.path.clone())
            .collect();
        if old.is_empty() {
            return Ok(0);
        }
        tracing::info!(
            table = %self.table(), kafka.partition = self.partition(), files = old.len(), days = retention.days,
            "letting go of old rows"
        );
        let position = self.manifest().next_offset;
        self.commit(Vec::new(), &old, position, 0)?;
        Ok(old.len())
    }
}
