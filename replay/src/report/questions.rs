//! Answers of the lake as tables and series.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, TimestampMillisecondType};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use marquee_schemas::StageLatency;
use marquee_statistics::Estimate;

use super::document::{Band, Mark, Series, TableData};
use crate::error::Error;
use crate::evaluation::text_at;
use crate::sql::{QueryResult, SqlEngine, SqlError};

/// Lists whose stages are looked at for their names.
const SAMPLE: usize = 1_000;

/// Asks about one day.
#[derive(Debug)]
pub(super) struct Ask {
    engine: SqlEngine,
    day: String,
}

fn fail(error: impl ToString) -> Error {
    Error::Sql(SqlError::Execution(error.to_string()))
}

impl Ask {
    /// `day` is a date as SQL writes it.
    pub(super) fn new(engine: SqlEngine, day: &str) -> Self {
        Self {
            engine,
            day: format!("date = '{day}'"),
        }
    }

    /// `{day}` in a question stands for the condition that a row is of this day.
    async fn run(&self, question: &str) -> Result<QueryResult, Error> {
        Ok(self.engine.run(&question.replace("{day}", &self.day)).await?)
    }

    pub(super) async fn table(&self, head: &[&str], question: &str) -> Result<TableData, Error> {
        let mut table = TableData::new(head);
        let options = FormatOptions::default().with_null("-");
        for batch in &self.run(question).await?.batches {
            let columns: Vec<ArrayFormatter<'_>> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options))
                .collect::<Result<_, _>>()
                .map_err(fail)?;
            table.rows.extend((0..batch.num_rows()).map(|row| {
                columns
                    .iter()
                    .map(|column| column.value(row).to_string())
                    .collect()
            }));
        }
        Ok(table)
    }

    /// One number for each of the 24 hours; 0 where there is no row.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "hours of a day"
    )]
    pub(super) async fn by_hour(&self, question: &str) -> Result<Vec<(String, f64)>, Error> {
        let mut hours: Vec<(String, f64)> = (0..24).map(|hour| (format!("{hour:02}"), 0.0)).collect();
        for batch in &self.run(question).await?.batches {
            let hour = cast(batch.column(0), &DataType::Float64).map_err(fail)?;
            let value = cast(batch.column(1), &DataType::Float64).map_err(fail)?;
            let (hour, value) = (
                hour.as_primitive::<Float64Type>(),
                value.as_primitive::<Float64Type>(),
            );
            for row in 0..batch.num_rows() {
                if let Some(bar) = hours.get_mut(hour.value(row) as usize) {
                    bar.1 = value.value(row);
                }
            }
        }
        Ok(hours)
    }

    /// Label, value, lower and upper end per row.
    pub(super) async fn series(&self, question: &str) -> Result<Vec<Band>, Error> {
        let mut series = Vec::new();
        for batch in &self.run(question).await?.batches {
            let number =
                |column: usize, row: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
            for row in 0..batch.num_rows() {
                series.push(Band {
                    label: text_at(batch.column(0), row)
                        .map_err(fail)?
                        .unwrap_or_default()
                        .to_owned(),
                    value: number(1, row),
                    lo: number(2, row),
                    hi: number(3, row),
                });
            }
        }
        Ok(series)
    }

    /// Name, moment, value, lower and upper end per row, in the order of names and moments.
    pub(super) async fn timeline(&self, question: &str) -> Result<Vec<Series>, Error> {
        let mut all: Vec<Series> = Vec::new();
        for batch in &self.run(question).await?.batches {
            let number =
                |column: usize, row: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
            let moments = batch.column(1).as_primitive::<TimestampMillisecondType>();
            for row in 0..batch.num_rows() {
                let name = text_at(batch.column(0), row).map_err(fail)?.unwrap_or_default();
                if all.last().is_none_or(|series| series.name != name) {
                    all.push(Series {
                        name: name.to_owned(),
                        points: Vec::new(),
                    });
                }
                let band = Band {
                    label: String::new(),
                    value: number(2, row),
                    lo: number(3, row),
                    hi: number(4, row),
                };
                if let Some(series) = all.last_mut() {
                    series.points.push((moments.value(row), band));
                }
            }
        }
        Ok(all)
    }

    /// Moment and text per row.
    pub(super) async fn marks(&self, question: &str) -> Result<Vec<Mark>, Error> {
        let mut marks = Vec::new();
        for batch in &self.run(question).await?.batches {
            let moments = batch.column(0).as_primitive::<TimestampMillisecondType>();
            for row in 0..batch.num_rows() {
                marks.push(Mark {
                    at_ms: moments.value(row),
                    text: text_at(batch.column(1), row)
                        .map_err(fail)?
                        .unwrap_or_default()
                        .to_owned(),
                });
            }
        }
        Ok(marks)
    }

    /// Names of the stages that requests of this day went through, in their order.
    pub(super) async fn stages(&self) -> Result<Vec<String>, Error> {
        let question = format!("SELECT stages FROM request_logs WHERE {{day}} LIMIT {SAMPLE}");
        let mut names: Vec<String> = Vec::new();
        for batch in &self.run(&question).await?.batches {
            for row in 0..batch.num_rows() {
                let text = text_at(batch.column(0), row).map_err(fail)?.unwrap_or("[]");
                let stages: Vec<StageLatency> = serde_json::from_str(text).map_err(fail)?;
                for stage in stages {
                    if !names.contains(&stage.stage) {
                        names.push(stage.stage);
                    }
                }
            }
        }
        Ok(names)
    }
}

/// An estimate with its interval, or a dash.
pub(super) fn value(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "-".to_owned(),
        Some(Estimate {
            value,
            interval: Some((lo, hi)),
            ..
        }) => format!("{value:.3} ({lo:.3} to {hi:.3})"),
        Some(Estimate { value, .. }) => format!("{value:.3}"),
    }
}

/// The same as a percentage.
pub(super) fn percent(estimate: Estimate) -> String {
    let interval = estimate.interval.map_or_else(String::new, |(lo, hi)| {
        format!(" ({:.2} to {:.2})", lo * 100.0, hi * 100.0)
    });
    format!("{:.2}%{interval}", estimate.value * 100.0)
}
