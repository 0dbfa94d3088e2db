//! What happened, in the order in which it can be told again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Float32Type, TimestampMillisecondType, UInt32Type, UInt64Type};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::prelude::{SessionContext, col, lit};
use marquee_models::live::{HistoryEntry, Interaction};
use marquee_schemas::{Kind, Movie, UserId};
use marquee_trainer::signal;

use crate::error::Error;
use crate::evaluation::{misshapen, text_at, with_session};
use crate::rows::movies_of;

/// One applied interaction of a user, by its feature version.
#[derive(Debug, Clone, Copy)]
struct Step {
    feature_version: u64,
    entry: HistoryEntry,
}

/// All applied interactions and the catalogue.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// By ascending movie id; the position is the dense index.
    pub(super) movies: Vec<Movie>,
    index: BTreeMap<u32, u32>,
    /// What makes history, by event time.
    pub(super) events: Vec<Interaction>,
    /// Each user's history in the order it was applied.
    histories: HashMap<UserId, Vec<Step>>,
}

impl Past {
    pub(super) async fn load(lake_dir: &Path, to_ms: i64) -> Result<Self, Error> {
        with_session(
            lake_dir,
            |context| async move { Self::read(&context, to_ms).await },
        )
        .await
    }

    async fn read(context: &SessionContext, to_ms: i64) -> Result<Self, DataFusionError> {
        let mut past = Self::default();
        for batch in context.table("movies").await?.collect().await? {
            past.movies.extend(movies_of(&batch).ok_or_else(misshapen)?);
        }
        past.movies.sort_by_key(|movie| movie.movie_id);
        past.index = past
            .movies
            .iter()
            .map(|movie| movie.movie_id.0)
            .zip(0..)
            .collect();

        let until = lit(ScalarValue::TimestampMillisecond(Some(to_ms), Some("UTC".into())));
        let columns = ["event_id", "user_id", "movie_id", "kind", "rating", "timestamp"];
        let batches = context
            .table("interactions")
            .await?
            .filter(col("timestamp").lt(until))?
            .sort(vec![
                col("kafka_partition").sort(true, false),
                col("kafka_offset").sort(true, false),
            ])?
            .select_columns(&columns)?
            .collect()
            .await?;
        let mut users: HashMap<UserId, (u32, u64)> = HashMap::new();
        let mut seen: HashSet<(UserId, String)> = HashSet::new();
        for batch in &batches {
            let user_ids = batch
                .column(1)
                .as_primitive_opt::<UInt64Type>()
                .ok_or_else(misshapen)?;
            let movies = batch
                .column(2)
                .as_primitive_opt::<UInt32Type>()
                .ok_or_else(misshapen)?;
            let ratings = batch
                .column(4)
                .as_primitive_opt::<Float32Type>()
                .ok_or_else(misshapen)?;
            let times = batch
                .column(5)
                .as_primitive_opt::<TimestampMillisecondType>()
                .ok_or_else(misshapen)?;
            for row in 0..batch.num_rows() {
                let user = UserId(user_ids.value(row));
                let item = movies
                    .is_valid(row)
                    .then(|| past.index.get(&movies.value(row)).copied());
                // A movie that is not in the catalogue was refused, a repeated event passed over.
                if item == Some(None) {
                    continue;
                }
                let event = text_at(batch.column(0), row)?.ok_or_else(misshapen)?;
                if !seen.insert((user, event.to_owned())) {
                    continue;
                }
                let next = u32::try_from(users.len()).unwrap_or(u32::MAX);
                let (index, version) = users.entry(user).or_insert((next, 0));
                *version += 1;
                let kind = text_at(batch.column(3), row)?.ok_or_else(misshapen)?;
                let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
                let (Some(Some(item)), Some(weight)) = (item, kind.and_then(signal::weight)) else {
                    continue;
                };
                let entry = HistoryEntry {
                    item,
                    rating: ratings.is_valid(row).then(|| ratings.value(row)),
                    weight,
                    time_ms: times.value(row),
                };
                past.events.push(Interaction {
                    user: *index,
                    item,
                    rating: entry.rating,
                    weight,
                    time_ms: entry.time_ms,
                });
                past.histories.entry(user).or_default().push(Step {
                    feature_version: *version,
                    entry,
                });
            }
        }
        // Stable: of equal times the log's order stays.
        past.events.sort_by_key(|event| event.time_ms);
        Ok(past)
    }

    /// A user's history at a feature version, oldest first, and the movies in it, ascending.
    pub(super) fn history(
        &self,
        user: Option<u64>,
        feature_version: Option<u64>,
    ) -> (Vec<HistoryEntry>, Vec<u32>) {
        let version = feature_version.unwrap_or(0);
        let steps = user.and_then(|user| self.histories.get(&UserId(user)));
        let mut history: Vec<HistoryEntry> = steps
            .into_iter()
            .flatten()
            .take_while(|step| step.feature_version <= version)
            .map(|step| step.entry)
            .collect();
        history.sort_by_key(|entry| entry.time_ms);
        let mut movies: Vec<u32> = history.iter().map(|entry| entry.item).collect();
        movies.sort_unstable();
        movies.dedup();
        (history, movies)
    }
}
