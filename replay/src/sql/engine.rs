//! Running queries within limits.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, ArrayData};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::StreamExt;
use marquee_runtime::Bus;

use super::hot::{self, Hot};
use super::session::{BATCH_ROWS, Snapshot, runtime, session_of};
use super::text::Text;
use super::{SqlError, SqlOptions};
use crate::table::Table;

/// How often a query is begun anew because a file it was about to read had been merged into another one and removed.
/// Replaced files outlast the longest query, so this is for what is not bounded in time, and for a sink that starts anew.
pub(crate) const ATTEMPTS: usize = 5;

/// What a query answers.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows.
    pub batches: Vec<RecordBatch>,
    /// What the reader should know besides, for example that the newest rows are missing.
    pub notices: Vec<String>,
    /// Time it took, ms.
    pub duration_ms: u64,
}

impl QueryResult {
    /// Number of rows.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Answers queries about one lake. Dropping the future of [`SqlEngine::run`] stops the query.
#[derive(Debug, Clone)]
pub struct SqlEngine {
    lake_dir: PathBuf,
    options: SqlOptions,
    runtime: Arc<RuntimeEnv>,
    bus: Option<Bus>,
}

impl SqlEngine {
    /// An engine for the lake in `lake_dir`, which need not exist yet.
    ///
    /// # Errors
    /// [`SqlError::Execution`] for limits that cannot be set.
    pub fn new(lake_dir: impl Into<PathBuf>, options: SqlOptions) -> Result<Self, SqlError> {
        Ok(Self {
            lake_dir: lake_dir.into(),
            runtime: runtime(&options)?,
            options,
            bus: None,
        })
    }

    /// Also shows the rows that are in the topics but not in the lake yet.
    #[must_use]
    pub fn with_hot_tail(mut self, bus: Bus) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Answers one query.
    ///
    /// # Errors
    /// A [`SqlError`] in words for the one who wrote the query.
    pub async fn run(&self, query: &str) -> Result<QueryResult, SqlError> {
        let limit = Duration::from_millis(self.options.timeout_ms);
        tokio::time::timeout(limit, self.run_unlimited(query))
            .await
            .map_err(|_| SqlError::Timeout(self.options.timeout_ms))?
    }

    async fn run_unlimited(&self, query: &str) -> Result<QueryResult, SqlError> {
        let started = Instant::now();
        let text = Text::read(query)?;
        let mut attempt = 1;
        loop {
            match self.attempt(query, text).await {
                Err(error) if attempt < ATTEMPTS && error.is_vanished_file() => {
                    tracing::debug!(attempt, "a file was compacted away, asking again");
                    attempt += 1;
                }
                Err(Failure::Answer(error)) => return Err(error),
                Err(Failure::Running(error)) => return Err(SqlError::of_run(&error)),
                Ok((schema, batches, notices)) => {
                    return Ok(QueryResult {
                        schema,
                        batches,
                        notices,
                        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    });
                }
            }
        }
    }

    /// Rows of a batch: a text of the query may go into each of them.
    fn batch_rows(&self, text: Text) -> usize {
        BATCH_ROWS.min(self.options.max_result_bytes / text.longest_literal.max(1))
    }

    async fn attempt(
        &self,
        query: &str,
        text: Text,
    ) -> Result<(SchemaRef, Vec<RecordBatch>, Vec<String>), Failure> {
        let snapshot = Snapshot::take(&self.lake_dir)?;
        let mut hot = self.hot(query, &snapshot).await;
        let notices = std::mem::take(&mut hot.notices);
        let context = session_of(
            &self.lake_dir,
            &snapshot,
            hot,
            &self.options,
            Arc::clone(&self.runtime),
            self.batch_rows(text),
        )
        .await?;
        let frame = plan(&context, query).await?;
        let schema = Arc::clone(frame.schema().inner());
        let mut stream = frame.execute_stream().await.map_err(Failure::Running)?;
        let mut batches = Vec::new();
        let mut rows = 0;
        let mut held = Held::default();
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(Failure::Running)?;
            rows += batch.num_rows();
            if rows > self.options.max_result_rows {
                return Err(SqlError::TooManyRows(self.options.max_result_rows).into());
            }
            held.add(&batch);
            if held.bytes > self.options.max_result_bytes {
                return Err(SqlError::TooManyBytes(self.options.max_result_bytes).into());
            }
            batches.push(batch);
        }
        Ok((schema, batches, notices))
    }

    /// The hot tail of the tables that the query names.
    async fn hot(&self, query: &str, snapshot: &Snapshot) -> Hot {
        let Some(bus) = self.bus.clone() else {
            return Hot::default();
        };
        let tables = tables_in(query);
        if tables.is_empty() {
            return Hot::default();
        }
        let (snapshot, lake_dir) = (snapshot.clone(), self.lake_dir.clone());
        let options = self.options.hot.clone();
        let patience = Duration::from_millis(options.timeout_ms.saturating_add(500));
        let reading =
            tokio::task::spawn_blocking(move || hot::read(&bus, &lake_dir, &snapshot, &tables, &options));
        // A broker that does not answer at all is only noticed by the client after a while.
        match tokio::time::timeout(patience, reading).await {
            Ok(Ok(hot)) => hot,
            Ok(Err(error)) => notice(format!("the newest rows are missing: {error}")),
            Err(_) => notice("the newest rows are missing, for the broker does not answer".into()),
        }
    }
}

/// The memory that batches hold; a buffer that several of them share counts once.
#[derive(Debug, Default)]
struct Held {
    buffers: HashSet<usize>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, batch: &RecordBatch) {
        for column in batch.columns() {
            self.add_data(&column.to_data());
        }
    }

    fn add_data(&mut self, data: &ArrayData) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            if self.buffers.insert(buffer.data_ptr().as_ptr() as usize) {
                self.bytes = self.bytes.saturating_add(buffer.capacity());
            }
        }
        for child in data.child_data() {
            self.add_data(child);
        }
    }
}

fn notice(text: String) -> Hot {
    Hot {
        notices: vec![text],
        ..Hot::default()
    }
}

enum Failure {
    Answer(SqlError),
    Running(DataFusionError),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Answer(error)
    }
}

impl Failure {
    /// Whether a committed file was gone when it was to be read: compaction removes what it has merged.
    fn is_vanished_file(&self) -> bool {
        matches!(self, Self::Running(error) if is_vanished_file(&error.to_string()))
    }
}

/// Whether an error says that a file of the lake is gone. It reaches us through several layers as text.
pub(crate) fn is_vanished_file(error: &str) -> bool {
    error.contains(".parquet") && (error.contains("not found") || error.contains("No such file"))
}

async fn plan(context: &SessionContext, query: &str) -> Result<DataFrame, SqlError> {
    let read_only = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    context
        .sql_with_options(query, read_only)
        .await
        .map_err(|error| SqlError::of_plan(query, &error))
}

/// The stored tables that a query may read: those whose name occurs in it. A name in a text or a comment costs a
/// needless read and nothing else.
fn tables_in(query: &str) -> BTreeSet<Table> {
    let query = query.to_ascii_lowercase();
    let words: BTreeSet<&str> = query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    let mut tables: BTreeSet<Table> = Table::ALL
        .into_iter()
        .filter(|table| words.contains(table.name()))
        .collect();
    for (view, sources) in [
        ("impressions", &[Table::RequestLogs][..]),
        ("attributions", &[Table::RequestLogs, Table::Interactions]),
        ("models", &[Table::ModelEvents]),
        ("features_as_of", &[Table::Interactions, Table::Movies]),
    ] {
        if words.contains(view) {
            tables.extend(sources);
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tables_that_a_query_names_are_looked_up_in_their_topics() {
        assert_eq!(
            tables_in("SELECT * FROM Impressions i JOIN movies USING (movie_id)"),
            BTreeSet::from([Table::RequestLogs, Table::Movies])
        );
        assert_eq!(
            tables_in("SELECT * FROM attributions"),
            BTreeSet::from([Table::RequestLogs, Table::Interactions])
        );
        assert_eq!(tables_in("SELECT 1 FROM request_logs_old"), BTreeSet::new());
    }
}
