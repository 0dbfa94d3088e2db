//! One table of a snapshot, as DataFusion scans it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Date32Array, TimestampMillisecondArray};
use datafusion::arrow::compute::{max, min};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMillisecondType};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column as LogicalColumn, DFSchema, DataFusionError, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, TableProviderFilterPushDown, Volatility, create_udf, when,
};
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::{col, lit};

use crate::date;
use crate::evaluation::Span;
use crate::lake::{Erasures, FileEntry};
use crate::table::Table;

/// The column that is derived from the event time.
pub(super) const DATE: &str = "date";

/// Filters narrow what is read at all; the plan above applies each of them in any case.
pub(super) fn narrowing(filters: &[&Expr]) -> Vec<TableProviderFilterPushDown> {
    vec![TableProviderFilterPushDown::Inexact; filters.len()]
}

/// Whether an erasure concerns a row, and the columns that are emptied where one does; without any, the row is not
/// shown.
type Concerned = (Expr, &'static [&'static str]);

/// One table: committed files, and rows that are not in them yet.
#[derive(Debug)]
pub(super) struct LakeTable {
    table: Table,
    /// Columns of the files.
    stored: SchemaRef,
    /// The same with `date` at the end, where the table has a time.
    shown: SchemaRef,
    files: Vec<(ObjectPath, FileEntry)>,
    hot: Vec<RecordBatch>,
    /// Erasures that may concern rows of these.
    hidden: Option<Arc<Erasures>>,
}

impl LakeTable {
    pub(super) fn new(
        lake_dir: &Path,
        table: Table,
        files: Vec<FileEntry>,
        hot: Vec<RecordBatch>,
        hidden: Option<Arc<Erasures>>,
    ) -> Result<Self, DataFusionError> {
        let stored = table.schema();
        let shown = match table.time_column() {
            None => Arc::clone(&stored),
            Some(_) => {
                let mut fields = stored.fields().to_vec();
                fields.push(Arc::new(Field::new(DATE, DataType::Date32, false)));
                Arc::new(Schema::new(fields))
            }
        };
        let dir = lake_dir.join(table.name());
        let files = files
            .into_iter()
            .map(|file| {
                let path = ObjectPath::from_absolute_path(dir.join(&file.path))
                    .map_err(|e| DataFusionError::External(Box::new(e)))?;
                Ok((path, file))
            })
            .collect::<Result<_, DataFusionError>>()?;
        Ok(Self {
            table,
            stored,
            shown,
            files,
            hot,
            hidden,
        })
    }

    fn concerned(&self) -> Result<Option<Concerned>, DataFusionError> {
        let table = self.table;
        let (Some(erasures), Some(names)) = (&self.hidden, Erasures::columns(table)) else {
            return Ok(None);
        };
        let kinds: Result<Vec<DataType>, ArrowError> = names
            .iter()
            .map(|name| Ok(self.stored.field_with_name(name)?.data_type().clone()))
            .collect();
        let erasures = Arc::clone(erasures);
        let function = create_udf(
            "is_erased",
            kinds?,
            DataType::Boolean,
            Volatility::Immutable,
            Arc::new(move |arguments: &[ColumnarValue]| {
                let columns = ColumnarValue::values_to_arrays(arguments)?;
                let concerned = erasures.concerned(table, &columns)?;
                Ok::<_, DataFusionError>(ColumnarValue::Array(Arc::new(concerned)))
            }),
        );
        let columns = names.iter().map(|name| col(*name)).collect();
        Ok(Some((function.call(columns), Erasures::emptied(table))))
    }

    /// The event times of each file and of each batch of newer rows.
    pub(super) fn spans(&self) -> Vec<Span> {
        let of_files = self.files.iter().filter_map(|(_, file)| {
            Some(Span {
                first_ms: file.min_ms?,
                last_ms: file.max_ms?,
                rows: file.rows,
            })
        });
        let of_rows = self.hot.iter().filter_map(|batch| {
            let times = batch
                .column_by_name(self.table.time_column()?)?
                .as_primitive_opt::<TimestampMillisecondType>()?;
            Some(Span {
                first_ms: min(times)?,
                last_ms: max(times)?,
                rows: batch.num_rows() as u64,
            })
        });
        of_files.chain(of_rows).collect()
    }

    /// The files that may hold rows which pass `filters`, by the times that the manifest keeps of them.
    fn relevant(&self, state: &dyn Session, filters: &[Expr]) -> Vec<&(ObjectPath, FileEntry)> {
        let all = || self.files.iter().collect();
        let Some(filter) = conjunction(filters.iter().cloned()) else {
            return all();
        };
        let Ok(schema) = DFSchema::try_from(Arc::clone(&self.shown)) else {
            return all();
        };
        // A filter that cannot be judged here prunes nothing; the plan above applies it in any case.
        let kept = state.create_physical_expr(filter, &schema).and_then(|filter| {
            PruningPredicateBuilder::new()
                .with_file_schema(Arc::clone(&self.shown))
                .try_build(filter)?
                .prune(&FileTimes(self))
        });
        match kept {
            Ok(kept) => self
                .files
                .iter()
                .zip(kept)
                .filter_map(|(file, keep)| keep.then_some(file))
                .collect(),
            Err(error) => {
                tracing::debug!(%error, "a filter prunes no files");
                all()
            }
        }
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        columns: &[usize],
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
        let files = self.relevant(state, filters);
        if files.is_empty() {
            return Ok(None);
        }
        let rows = files
            .iter()
            .map(|(_, file)| usize::try_from(file.rows).unwrap_or(usize::MAX));
        let mut statistics = Statistics::new_unknown(&self.stored);
        statistics.num_rows = Precision::Exact(rows.fold(0, usize::saturating_add));
        let store = ObjectStoreUrl::local_filesystem();
        let runtime = state.runtime_env();
        // Committed files never change, so their footers are read once per engine; and what a filter lets go is not
        // decoded in the other columns.
        let reader = CachedParquetFileReaderFactory::new(
            runtime.object_store(&store)?,
            runtime.cache_manager.get_file_metadata_cache(),
        );
        let mut source = ParquetSource::new(Arc::clone(&self.stored))
            .with_parquet_file_reader_factory(Arc::new(reader))
            .with_pushdown_filters(true)
            .with_reorder_filters(true);
        // Nor may a filter see what is hidden: a row with an emptied column must not be let go for what it was.
        let emptied = self
            .hidden
            .as_ref()
            .map_or(&[][..], |_| Erasures::emptied(self.table));
        let stored = filters
            .iter()
            .filter(|filter| {
                let columns = filter.column_refs();
                let mut names = columns.iter().map(|column| column.name.as_str());
                names.all(|name| name != DATE && !emptied.contains(&name))
            })
            .cloned();
        if let Some(filter) = conjunction(stored) {
            let schema = DFSchema::try_from(Arc::clone(&self.stored))?;
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        let group: Vec<PartitionedFile> = files
            .into_iter()
            .map(|(path, file)| {
                let mut listed = PartitionedFile::new(path.to_string(), file.bytes);
                listed.object_meta.location = path.clone();
                listed
            })
            .collect();
        let groups = FileGroup::new(group).split_files(state.config().target_partitions().max(1));
        let config = FileScanConfigBuilder::new(store, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_limit(limit)
            .with_projection_indices(Some(columns.to_vec()))?
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    fn scan_hot(&self, columns: &[usize]) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
        if self.hot.is_empty() {
            return Ok(None);
        }
        let plan = MemorySourceConfig::try_new_exec(
            std::slice::from_ref(&self.hot),
            Arc::clone(&self.stored),
            Some(columns.to_vec()),
        )?;
        Ok(Some(plan))
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shown)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(narrowing(filters))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let wanted: Vec<usize> = projection
            .cloned()
            .unwrap_or_else(|| (0..self.shown.fields().len()).collect());
        let date = self.stored.fields().len();
        let mut columns: Vec<usize> = wanted.iter().copied().filter(|&column| column != date).collect();
        let wants_date = wanted.contains(&date);
        let mut needed = |name: &str| -> Result<usize, DataFusionError> {
            let needed = self.stored.index_of(name)?;
            let at = columns.iter().position(|&column| column == needed);
            Ok(at.unwrap_or_else(|| {
                columns.push(needed);
                columns.len() - 1
            }))
        };
        let mut time_at = None;
        if wants_date && let Some(name) = self.table.time_column() {
            time_at = Some((name, needed(name)?));
        }
        let concerned = self.concerned()?;
        if concerned.is_some() {
            for name in Erasures::columns(self.table).unwrap_or_default() {
                needed(name)?;
            }
        }
        let drops_rows = concerned.as_ref().is_some_and(|(_, emptied)| emptied.is_empty());
        let limit = limit.filter(|_| !drops_rows);
        let inputs: Vec<Arc<dyn ExecutionPlan>> = [
            self.scan_files(state, &columns, filters, limit)?,
            self.scan_hot(&columns)?,
        ]
        .into_iter()
        .flatten()
        .collect();
        let shown = Arc::new(self.shown.project(&wanted)?);
        if inputs.is_empty() {
            return Ok(Arc::new(EmptyExec::new(shown)));
        }
        let mut input = UnionExec::try_new(inputs)?;
        if time_at.is_none() && concerned.is_none() {
            return Ok(input);
        }
        let scanned = DFSchema::try_from(self.stored.project(&columns)?)?;
        if drops_rows && let Some((concerned, _)) = &concerned {
            let shown = state.create_physical_expr(!concerned.clone(), &scanned)?;
            input = Arc::new(FilterExec::try_new(shown, input)?);
        }
        let mut at = 0;
        let mut exprs = Vec::with_capacity(wanted.len());
        for &column in &wanted {
            let (expr, alias): (Arc<dyn PhysicalExpr>, &str) = match time_at {
                Some((time, time_at)) if column == date => {
                    let time = Arc::new(Column::new(time, time_at));
                    (Arc::new(CastExpr::new(time, DataType::Date32, None)), DATE)
                }
                _ => {
                    let field = self.stored.field(column);
                    let name = field.name().as_str();
                    at += 1;
                    match &concerned {
                        Some((concerned, emptied)) if emptied.contains(&name) => {
                            let nothing = lit(ScalarValue::try_from(field.data_type())?);
                            let shown = when(concerned.clone(), nothing).otherwise(col(name))?;
                            (state.create_physical_expr(shown, &scanned)?, name)
                        }
                        _ => (Arc::new(Column::new(name, at - 1)), name),
                    }
                }
            };
            exprs.push(ProjectionExpr {
                expr,
                alias: alias.to_owned(),
            });
        }
        Ok(Arc::new(ProjectionExec::try_new(exprs, input)?))
    }
}

/// What the manifest knows of each file's rows.
struct FileTimes<'a>(&'a LakeTable);

impl FileTimes<'_> {
    fn column(&self, column: &LogicalColumn, of: impl Fn(&FileEntry) -> Option<i64>) -> Option<ArrayRef> {
        let times = self.0.files.iter().map(|(_, file)| of(file));
        if column.name == DATE {
            let days: Date32Array = times.map(|time| time.and_then(date::day_of)).collect();
            Some(Arc::new(days))
        } else if Some(column.name.as_str()) == self.0.table.time_column() {
            let times: TimestampMillisecondArray = times.collect();
            Some(Arc::new(times.with_timezone("UTC")))
        } else {
            None
        }
    }
}

impl PruningStatistics for FileTimes<'_> {
    fn min_values(&self, column: &LogicalColumn) -> Option<ArrayRef> {
        self.column(column, |file| file.min_ms)
    }

    fn max_values(&self, column: &LogicalColumn) -> Option<ArrayRef> {
        self.column(column, |file| file.max_ms)
    }

    fn num_containers(&self) -> usize {
        self.0.files.len()
    }

    fn null_counts(&self, _: &LogicalColumn) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &LogicalColumn, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
