//! `marquee sql`: questions to the lake: one on the command line, or one after the other on standard input.

mod editor;
mod lines;

use anyhow::{Result, bail};
use marquee_replay::sql::{FUNCTIONS, documentation};
use marquee_replay::{Format, SqlEngine, SqlOptions};
use marquee_runtime::bus::Bus;

use lines::{Lines, Said};

use crate::cli::{Common, SqlArgs, SqlOutput};
use crate::config::Config;
use crate::instance::StateDir;

impl From<SqlOutput> for Format {
    fn from(output: SqlOutput) -> Self {
        match output {
            SqlOutput::Table => Self::Table,
            SqlOutput::Csv => Self::Csv,
            SqlOutput::Json => Self::Json,
        }
    }
}

pub(crate) async fn run(common: &Common, args: SqlArgs) -> Result<()> {
    if args.tables {
        print!("{}", tables());
        return Ok(());
    }
    let state = StateDir::new(&common.state_dir)?;
    let options = SqlOptions {
        attribution_window_ms: Config::load(common)?.replay.evaluation.attribution_window_ms,
        ..SqlOptions::default()
    };
    let mut engine = SqlEngine::new(state.lake(), options)?;
    if !args.cold
        && let Some(bus) = reachable_bus(common, &state)?
    {
        engine = engine.with_hot_tail(bus);
    }
    let format = args.output.into();
    if let Some(query) = args.query {
        return answer(&engine, &query, format).await;
    }
    ask_in_turn(&engine, format, Lines::new(state.sql_history())).await
}

/// Answers each statement as soon as its semicolon is there. At a terminal a mistake is told and the conversation goes
/// on, and Ctrl-C stops a question; a script ends with its first mistake.
async fn ask_in_turn(engine: &SqlEngine, format: Format, mut lines: Lines) -> Result<()> {
    let is_terminal = lines.is_typed();
    let (mut open, mut answered) = (String::new(), 0);
    loop {
        let said = lines.next(!open.is_empty())?;
        let is_end = said.is_none();
        match said {
            Some(Said::Line(line)) => {
                open += &line;
                open.push('\n');
            }
            Some(Said::Nothing) => {
                open.clear();
                continue;
            }
            None => {}
        }
        let is_whole =
            open.trim_end().ends_with(';') && split(&format!("{open}SELECT 0")).last() == Some(&"SELECT 0");
        if is_whole || is_end {
            lines.remember(&open)?;
            for statement in split(&open) {
                answered += 1;
                if !is_terminal {
                    answer(engine, statement, format).await?;
                    continue;
                }
                tokio::select! {
                    outcome = answer(engine, statement, format) => if let Err(error) = outcome {
                        eprintln!("{error:#}");
                    },
                    _ = tokio::signal::ctrl_c() => eprintln!("stopped"),
                }
            }
            open.clear();
        }
        // An empty line begins nothing.
        if open.trim().is_empty() {
            open.clear();
        }
        if is_end && answered == 0 && !is_terminal {
            bail!("a question is needed, on the command line or on standard input");
        }
        if is_end {
            return Ok(());
        }
    }
}

async fn answer(engine: &SqlEngine, query: &str, format: Format) -> Result<()> {
    let result = engine.run(query).await?;
    print!("{}", result.render(format)?);
    for notice in &result.notices {
        eprintln!("note: {notice}");
    }
    if format == Format::Table {
        println!("{} rows in {} ms", result.num_rows(), result.duration_ms);
    }
    Ok(())
}

/// Every table with its columns, and the functions that marquee adds.
fn tables() -> String {
    let mut text = String::new();
    for table in documentation() {
        text += &format!("{}\n  {}\n", table.name, table.description);
        for column in table.columns {
            text += &format!("    {:<18} {}\n", column.name, column.description);
        }
    }
    for function in FUNCTIONS {
        text += &format!("{}\n  {}\n", function.signature, function.description);
    }
    text
}

/// The statements of a script: what semicolons outside of texts, names and comments part.
fn split(script: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut start, mut quote, mut is_comment) = (0, None, false);
    let mut previous = ' ';
    for (at, c) in script.char_indices() {
        if is_comment {
            is_comment = c != '\n';
        } else if let Some(open) = quote {
            if c == open {
                quote = None;
            }
        } else {
            match c {
                '\'' | '"' => quote = Some(c),
                '-' if previous == '-' => is_comment = true,
                ';' => {
                    statements.push(&script[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        previous = c;
    }
    statements.push(&script[start..]);
    statements.retain(|statement| {
        statement
            .lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    });
    statements.into_iter().map(str::trim).collect()
}

/// The newest rows come from the broker, where one is named or running; otherwise the lake answers alone.
fn reachable_bus(common: &Common, state: &StateDir) -> Result<Option<Bus>> {
    if common.brokers.is_none() && state.running().is_none() {
        return Ok(None);
    }
    Ok(Some(Config::load(common)?.bus_of_running_instance(common)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_texts_and_comments() {
        assert_eq!(
            split("SELECT ';' AS \"a;b\"; -- no; end\nSELECT 2 -- two\n;\n;  -- nothing\n"),
            ["SELECT ';' AS \"a;b\"", "-- no; end\nSELECT 2 -- two"]
        );
        assert_eq!(split("SELECT 'it''s; one'"), ["SELECT 'it''s; one'"]);
        assert!(split(" ;\n").is_empty());
    }
}
