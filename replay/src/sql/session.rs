//! A snapshot of the lake as a DataFusion session.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::attributions::Attributions;
use super::functions;
use super::hot::Hot;
use super::provider::LakeTable;
use super::views::VIEWS;
use super::{SqlError, SqlOptions, bounded, documentation};
use crate::lake::{Erasures, Manifest, manifests};
use crate::table::Table;

/// What the manifests said at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot(pub(super) BTreeMap<Table, Vec<Manifest>>);

impl Snapshot {
    pub(super) fn take(lake_dir: &Path) -> Result<Self, SqlError> {
        Table::ALL
            .into_iter()
            .map(|table| {
                let manifests =
                    manifests(lake_dir, table).map_err(|error| SqlError::Lake(error.to_string()))?;
                Ok((table, manifests))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Partition → next offset that the files do not hold.
    pub(super) fn positions(&self, table: Table) -> BTreeMap<i32, i64> {
        self.0
            .get(&table)
            .into_iter()
            .flatten()
            .map(|manifest| (manifest.partition, manifest.next_offset))
            .collect()
    }
}

/// Memory and files that queries share. Nothing is written: a query too large for its memory fails.
pub(super) fn runtime(options: &SqlOptions) -> Result<Arc<RuntimeEnv>, SqlError> {
    RuntimeEnvBuilder::new()
        .with_memory_limit(options.memory_limit_bytes, 1.0)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(|error| SqlError::Execution(error.to_string()))
}

/// A session with the lake's tables as they are now ([`documentation`] names them), `documentation`, which describes
/// their columns, and marquee's own [functions](super::FUNCTIONS). A table of which nothing is stored yet is there and
/// empty.
///
/// For queries of one's own; it does not refuse statements that write. [`super::SqlEngine`] does.
///
/// # Errors
/// [`SqlError::Lake`] if a manifest cannot be read.
pub async fn session(lake_dir: &Path, options: &SqlOptions) -> Result<SessionContext, SqlError> {
    let snapshot = Snapshot::take(lake_dir)?;
    session_of(
        lake_dir,
        &snapshot,
        Hot::default(),
        options,
        runtime(options)?,
        BATCH_ROWS,
    )
    .await
}

/// Rows of a batch.
pub(super) const BATCH_ROWS: usize = 8_192;

pub(super) async fn session_of(
    lake_dir: &Path,
    snapshot: &Snapshot,
    mut hot: Hot,
    options: &SqlOptions,
    runtime: Arc<RuntimeEnv>,
    batch_rows: usize,
) -> Result<SessionContext, SqlError> {
    let fail = |error: DataFusionError| SqlError::Lake(error.to_string());
    let lake_dir = std::path::absolute(lake_dir).map_err(|error| SqlError::Lake(error.to_string()))?;
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_batch_size(batch_rows.max(1));
    if options.parallelism > 0 {
        config = config.with_target_partitions(options.parallelism);
    }
    config.options_mut().sql_parser.collect_spans = true;
    let context = SessionContext::new_with_config_rt(config, runtime);
    let manifests_of = |table| snapshot.0.get(&table).into_iter().flatten();
    let mut erasures = Erasures::of(manifests_of(Table::Interactions));
    for (partition, erasure) in hot.tables.values().flat_map(|rows| &rows.erasures) {
        erasures.add(*partition, erasure);
    }
    let erasures = Arc::new(erasures);
    let mut providers = BTreeMap::new();
    for table in Table::ALL {
        let rows = hot.tables.remove(&table).unwrap_or_default();
        let mut hides = !rows.batches.is_empty() && Erasures::columns(table).is_some();
        let mut files = Vec::new();
        if !rows.replaces_files {
            for manifest in manifests_of(table) {
                let of = manifest.partition;
                hides |= manifest
                    .files
                    .iter()
                    .any(|file| erasures.may_concern(table, of, file));
                files.extend(manifest.files.iter().filter(|file| file.rows > 0).cloned());
            }
        }
        let hidden = (hides && !erasures.is_empty()).then(|| Arc::clone(&erasures));
        let provider = LakeTable::new(&lake_dir, table, files, rows.batches, hidden).map_err(fail)?;
        let provider = Arc::new(provider);
        context
            .register_table(table.name(), Arc::clone(&provider) as _)
            .map_err(fail)?;
        providers.insert(table, provider);
    }
    if let (Some(logs), Some(interactions)) = (
        providers.remove(&Table::RequestLogs),
        providers.remove(&Table::Interactions),
    ) {
        let attributions = Attributions::new(logs, interactions, options.attribution_window_ms.max(0));
        context
            .register_table("attributions", Arc::new(attributions))
            .map_err(fail)?;
    }
    for (name, definition) in VIEWS {
        let view = context.sql(definition).await.map_err(fail)?.into_view();
        context.register_table(name, view).map_err(fail)?;
    }
    for function in functions::aggregates() {
        context.register_udaf(function);
    }
    for function in functions::scalars() {
        context.register_udf(function);
    }
    bounded::bound(&context, options.max_result_bytes).map_err(fail)?;
    let docs = documentation_batch().map_err(|error| SqlError::Lake(error.to_string()))?;
    context.register_batch("documentation", docs).map_err(fail)?;
    Ok(context)
}

fn documentation_batch() -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let rows: Vec<(&str, &str, &str)> = documentation()
        .iter()
        .flat_map(|table| {
            table
                .columns
                .iter()
                .map(|column| (table.name, column.name, column.description))
        })
        .collect();
    let column = |of: fn(&(&'static str, &'static str, &'static str)) -> &'static str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    RecordBatch::try_from_iter([
        ("table_name", column(|row| row.0)),
        ("column_name", column(|row| row.1)),
        ("description", column(|row| row.2)),
    ])
}
