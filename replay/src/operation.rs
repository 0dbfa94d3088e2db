//! How requests were answered, whatever became of the lists: latency, failures, fallbacks, by model version.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Float64Type, UInt16Type, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::prelude::{col, lit};
use futures::StreamExt;
use marquee_schemas::{Endpoint, RequestLog, online};
use marquee_statistics::{Estimate, cluster, quantile};

use crate::error::Error;
use crate::evaluation::{between, cluster_of_request, misshapen, text_at, with_session};

/// One user's requests.
#[derive(Debug, Clone, Copy, Default)]
struct OfUser {
    requests: f64,
    failed: f64,
    fallbacks: f64,
}

/// The requests that one model answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operation {
    latencies_ms: Vec<f64>,
    users: BTreeMap<u64, OfUser>,
}

impl Operation {
    fn add(&mut self, cluster: u64, latency_ms: f64, failed: bool, fallback: bool) {
        self.latencies_ms.push(latency_ms);
        let user = self.users.entry(cluster).or_default();
        user.requests += 1.0;
        user.failed += f64::from(u8::from(failed));
        user.fallbacks += f64::from(u8::from(fallback));
    }

    /// The figures of [`online`], by name, with 95% intervals; users are the clusters of the shares.
    pub(crate) fn figures(mut self) -> Vec<(&'static str, Estimate)> {
        let share = |of: fn(&OfUser) -> f64| {
            cluster::proportion(self.users.values().map(|user| (of(user), user.requests)))
        };
        let shares = [
            (online::ERROR_RATE, share(|user| user.failed)),
            (online::FALLBACK_RATE, share(|user| user.fallbacks)),
        ];
        let p95 = quantile::quantile(&mut self.latencies_ms, 0.95);
        [(online::LATENCY_P95_MS, p95)]
            .into_iter()
            .chain(shares)
            .filter_map(|(name, estimate)| Some((name, estimate?)))
            .collect()
    }
}

const COLUMNS: [&str; 6] = [
    "request_id",
    "user_id",
    "model_version",
    "status",
    "fallback_reason",
    "latency_ms",
];

/// The answers and failures of `POST /recommend` from `from_ms` (inclusive) to `to_ms` (exclusive), by the model that
/// gave or owed them; `None` before the first model. A log that was sent twice counts twice: the sink recognises its own
/// repetitions, and the recommender's are rare enough for a share of a window.
pub(crate) async fn operation(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
) -> Result<BTreeMap<Option<String>, Operation>, Error> {
    with_session(lake_dir, |context| async move {
        let mut found = BTreeMap::new();
        let mut rows = context
            .table("request_logs")
            .await?
            .filter(between(from_ms, to_ms).and(col("endpoint").eq(lit(Endpoint::Recommend.as_str()))))?
            .select_columns(&COLUMNS)?
            .execute_stream()
            .await?;
        while let Some(batch) = rows.next().await {
            add(&mut found, &batch?)?;
        }
        Ok(found)
    })
    .await
}

fn add(found: &mut BTreeMap<Option<String>, Operation>, batch: &RecordBatch) -> Result<(), DataFusionError> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(misshapen);
    let [request_id, user_id, version, status, fallback, latency] = COLUMNS.map(column);
    let (request_id, version, fallback) = (request_id?, version?, fallback?);
    let user_id = user_id?.as_primitive_opt::<UInt64Type>().ok_or_else(misshapen)?;
    let status = status?.as_primitive_opt::<UInt16Type>().ok_or_else(misshapen)?;
    let latency = latency?.as_primitive_opt::<Float64Type>().ok_or_else(misshapen)?;
    for row in 0..batch.num_rows() {
        let user = user_id.is_valid(row).then(|| user_id.value(row));
        let cluster = cluster_of_request(user, text_at(request_id, row)?.unwrap_or_default());
        let version = text_at(version, row)?.map(str::to_owned);
        found.entry(version).or_default().add(
            cluster,
            latency.value(row),
            RequestLog::is_failure(status.value(row)),
            fallback.is_valid(row),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_count_requests_and_their_intervals_count_users() {
        let mut operation = Operation::default();
        for n in 0..100_u32 {
            // Two users; one of them always gets a fallback.
            operation.add(u64::from(n % 2), f64::from(n + 1), n == 7, n % 2 == 0);
        }
        let figures: BTreeMap<_, _> = operation.figures().into_iter().collect();
        assert_eq!(figures[online::LATENCY_P95_MS].value, 95.0);
        assert_eq!(
            (figures[online::ERROR_RATE].value, figures[online::ERROR_RATE].n),
            (0.01, 100)
        );
        let fallbacks = figures[online::FALLBACK_RATE];
        assert_eq!(fallbacks.value, 0.5);
        // Two users who differ wholly say next to nothing, however many requests they make.
        let (lo, hi) = fallbacks.interval.unwrap();
        assert!(lo < 0.2 && hi > 0.8, "{lo} {hi}");
        assert!(Operation::default().figures().is_empty());
    }
}
