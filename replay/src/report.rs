//! One day in one document: traffic, latency, quality of data and of lists, models.
//!
//! [`daily`] asks the lake and gives a [`Report`], which renders itself as one HTML file with its pictures inside, or as
//! Markdown with SVG files beside it.

mod document;
mod questions;
mod svg;
mod timeline;

pub use document::{Chart, Report, Section, TableData};

use std::path::Path;

use crate::error::Error;
use crate::evaluation::{EvaluationOptions, SliceEvaluation, evaluate};
use crate::sql::{SqlEngine, SqlOptions};
use questions::{Ask, percent, value};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The report about the day that begins at `day_ms` (UTC).
///
/// # Errors
/// [`Error::Sql`] if the lake cannot be read, [`Error::Config`] for a moment that lies on no date.
pub async fn daily(lake_dir: &Path, day_ms: i64, options: EvaluationOptions) -> Result<Report, Error> {
    let day = crate::date::day_of(day_ms)
        .map(crate::date::name_of)
        .ok_or_else(|| Error::Config(format!("{day_ms} ms lies on no date")))?;
    let ask = Ask::new(SqlEngine::new(lake_dir, SqlOptions::default())?, &day);
    let evaluation = evaluate(lake_dir, day_ms, day_ms.saturating_add(DAY_MS), options).await?;
    Ok(Report {
        title: format!("marquee on {day}"),
        sections: vec![
            traffic(&ask).await?,
            latency(&ask).await?,
            lists(&ask).await?,
            outcome(&ask, &evaluation.slices(), options.k).await?,
            data(&ask).await?,
            models(&ask).await?,
        ],
    })
}

async fn traffic(ask: &Ask) -> Result<Section, Error> {
    let whole = ask
        .table(
            &["requests", "per minute", "users", "failed"],
            "SELECT count(*), round(count(*) / 1440.0, 2), count(DISTINCT user_id), \
             count(*) FILTER (WHERE status >= 500 OR status = 408) FROM request_logs WHERE {day}",
        )
        .await?;
    let hours = ask
        .by_hour(
            "SELECT date_part('hour', \"timestamp\"), CAST(count(*) AS DOUBLE) FROM request_logs WHERE {day} GROUP BY 1",
        )
        .await?;
    Ok(Section {
        title: "Traffic".into(),
        text: Vec::new(),
        tables: vec![whole],
        charts: vec![Chart::bars("requests-by-hour", "Requests by hour (UTC)", &hours)],
    })
}

async fn latency(ask: &Ask) -> Result<Section, Error> {
    let of = |column: &str| {
        format!(
            "count({column}), round(avg({column}), 3), round(hdr_percentile({column}, 0.5), 3), \
             round(hdr_percentile({column}, 0.95), 3), round(hdr_percentile({column}, 0.99), 3)"
        )
    };
    let head = ["", "requests", "mean ms", "p50 ms", "p95 ms", "p99 ms"];
    let endpoints = format!(
        "SELECT endpoint, {} FROM request_logs WHERE {{day}} GROUP BY 1 ORDER BY 1",
        of("latency_ms")
    );
    let mut stages = TableData::new(&head);
    for stage in ask.stages().await? {
        let name = stage.replace('\'', "''");
        let question = format!(
            "SELECT '{name}', {} FROM (SELECT stage_us(stages, '{name}') / 1000.0 AS ms FROM request_logs WHERE {{day}}) \
             WHERE ms IS NOT NULL",
            of("ms")
        );
        stages.rows.extend(ask.table(&head, &question).await?.rows);
    }
    let hours = ask
        .by_hour(
            "SELECT date_part('hour', \"timestamp\"), hdr_percentile(latency_ms, 0.95) FROM request_logs \
             WHERE {day} GROUP BY 1",
        )
        .await?;
    Ok(Section {
        title: "Latency".into(),
        text: vec![
            "By endpoint, then by stage; percentiles by HdrHistogram with three significant digits.".into(),
        ],
        tables: vec![ask.table(&head, &endpoints).await?, stages],
        charts: vec![Chart::line("p95-by-hour", "95th percentile by hour, ms", &hours)],
    })
}

async fn lists(ask: &Ask) -> Result<Section, Error> {
    let fallbacks = ask
        .table(
            &[
                "model",
                "lists",
                "fallback share",
                "movies shown",
                "share of the catalogue",
            ],
            "SELECT coalesce(model_version, 'none'), count(DISTINCT request_id), \
             round(count(DISTINCT request_id) FILTER (WHERE fallback_reason IS NOT NULL) / \
             CAST(count(DISTINCT request_id) AS DOUBLE), 4), count(DISTINCT movie_id), \
             round(count(DISTINCT movie_id) / CAST((SELECT nullif(count(*), 0) FROM movies) AS DOUBLE), 4) \
             FROM impressions WHERE {day} AND endpoint = 'recommend' GROUP BY 1 ORDER BY 1",
        )
        .await?;
    let reasons = ask
        .table(
            &["fallback", "lists"],
            "SELECT fallback_reason, count(*) FROM request_logs WHERE {day} AND fallback_reason IS NOT NULL \
             GROUP BY 1 ORDER BY 2 DESC",
        )
        .await?;
    Ok(Section {
        title: "Lists".into(),
        text: Vec::new(),
        tables: vec![fallbacks, reasons],
        charts: Vec::new(),
    })
}

async fn outcome(ask: &Ask, slices: &[SliceEvaluation], k: usize) -> Result<Section, Error> {
    let mut table = TableData::new(&[
        "model",
        "slice",
        "lists",
        "answered",
        "too young",
        "next-interaction hit rate",
        "NDCG",
        "MRR",
        "click-through rate",
    ]);
    for slice in slices {
        table.rows.push(vec![
            slice.model_version.clone().unwrap_or_else(|| "none".into()),
            slice.slice.to_string(),
            slice.lists.to_string(),
            slice.answered.to_string(),
            slice.censored.to_string(),
            value(slice.hit_rate),
            value(slice.ndcg),
            value(slice.mrr),
            slice.ctr.map_or_else(|| "-".to_owned(), percent),
        ]);
    }
    let windows = ask
        .series(
            "SELECT to_char(window_end, '%H:%M'), value, coalesce(lo, value), coalesce(hi, value) FROM (SELECT \
             metric_id, min(window_end) AS window_end, min(value) AS value, min(lo) AS lo, min(hi) AS hi \
             FROM quality_metrics WHERE {day} AND name LIKE 'next_interaction_hit_rate@%' AND scope = 'model' \
             AND population = 'all' GROUP BY metric_id) ORDER BY window_end",
        )
        .await?;
    Ok(Section {
        title: format!("What the lists led to, among the first {k}"),
        text: vec![
            "Intervals are at 95% with users as the independent units. Where no click names the list that it answers \
             there is no click-through rate; the next-interaction hit rate does not say that the list was seen."
                .into(),
        ],
        tables: vec![table],
        charts: vec![
            Chart::band(
                "hit-rate-by-window",
                "Next-interaction hit rate by evaluated window",
                windows,
            ),
            Chart::timeline(
                "ctr-by-model",
                "Share of lists with a click, by model and evaluated window",
                &ask.timeline(
                    "SELECT model_version, window_start, value, coalesce(lo, value), coalesce(hi, value) FROM (SELECT \
                     metric_id, min(model_version) AS model_version, min(window_start) AS window_start, \
                     min(value) AS value, min(lo) AS lo, min(hi) AS hi FROM quality_metrics WHERE {day} \
                     AND name = 'ctr' AND scope = 'model' AND population = 'all' AND model_version IS NOT NULL \
                     GROUP BY metric_id) ORDER BY model_version, window_start",
                )
                .await?,
                &ask.marks(
                    "SELECT at, concat(version, ' ', kind) FROM (SELECT event_id, min(\"timestamp\") AS at, \
                     min(version) AS version, min(kind) AS kind FROM model_events WHERE {day} \
                     AND kind NOT IN ('training_stage', 'command_refused') GROUP BY event_id) ORDER BY at",
                )
                .await?,
            ),
        ],
    })
}

async fn data(ask: &Ask) -> Result<Section, Error> {
    let table = ask
        .table(
            &["kind", "interactions", "users", "sent again", "movie not in the catalogue"],
            "SELECT i.kind, count(*), count(DISTINCT i.user_id), count(*) - count(DISTINCT i.event_id), \
             count(*) FILTER (WHERE i.movie_id IS NOT NULL AND m.movie_id IS NULL) \
             FROM interactions i LEFT JOIN movies m ON i.movie_id = m.movie_id WHERE i.{day} GROUP BY 1 ORDER BY 2 DESC",
        )
        .await?;
    Ok(Section {
        title: "Data".into(),
        text: Vec::new(),
        tables: vec![table],
        charts: Vec::new(),
    })
}

async fn models(ask: &Ask) -> Result<Section, Error> {
    let table = ask
        .table(
            &["at (UTC)", "model", "step", "reason"],
            "SELECT to_char(at, '%H:%M:%S'), version, kind, reason FROM (SELECT event_id, min(\"timestamp\") AS at, \
             min(version) AS version, min(kind) AS kind, min(reason) AS reason FROM model_events WHERE {day} \
             GROUP BY event_id) ORDER BY at",
        )
        .await?;
    Ok(Section {
        title: "Models".into(),
        text: Vec::new(),
        tables: vec![table],
        charts: Vec::new(),
    })
}
