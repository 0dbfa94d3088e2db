//! Why a query has no answer, in words for the one who wrote it.

use datafusion::common::DataFusionError;

use super::documentation;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// It is not SQL.
    #[error("syntax error{}: {message}{}", at(*position), excerpt.as_deref().unwrap_or_default())]
    Syntax {
        /// What the parser says.
        message: String,
        /// Line and column, from 1, where the parser gives one.
        position: Option<(u64, u64)>,
        /// The line with a mark under the place, with a line break before it.
        excerpt: Option<String>,
    },
    /// It is SQL, but names something unknown or combines types that do not fit.
    #[error("{message}{}\nhint: {hint}", excerpt.as_deref().unwrap_or_default())]
    Meaning {
        /// What is wrong.
        message: String,
        /// Line and column, from 1, where the planner gives one.
        position: Option<(u64, u64)>,
        /// The line with a mark under the place, with a line break before it.
        excerpt: Option<String>,
        /// What there is.
        hint: String,
    },
    /// It nests or chains more than can be planned.
    #[error("the query is too complex: {0}\nhint: write many values as IN (...), or ask in several queries")]
    TooComplex(String),
    /// It would change something.
    #[error("the lake is read-only: {0}\nhint: SELECT, EXPLAIN, DESCRIBE and SHOW are allowed")]
    NotReadOnly(String),
    /// It took too long and was stopped.
    #[error("stopped after {0} ms\nhint: narrow the query by date, or raise the time limit")]
    Timeout(u64),
    /// It needs more memory than it may have.
    #[error("out of the query's memory: {0}\nhint: narrow the query by date, or raise the memory limit")]
    Memory(String),
    /// Its result is larger than a result may be.
    #[error("the result has more than {0} rows\nhint: aggregate, or add a LIMIT")]
    TooManyRows(usize),
    /// Its result takes more memory than a result may.
    #[error("the result has more than {0} bytes\nhint: choose fewer columns, aggregate, or add a LIMIT")]
    TooManyBytes(usize),
    /// The lake cannot be read.
    #[error("reading the lake: {0}")]
    Lake(String),
    /// It failed while running (a division by zero, a cast that does not work).
    #[error("{0}")]
    Execution(String),
}

fn at(position: Option<(u64, u64)>) -> String {
    position.map_or_else(String::new, |(line, column)| {
        format!(" at line {line}, column {column}")
    })
}

impl SqlError {
    /// Line and column of the mistake, from 1, where known.
    #[must_use]
    pub fn position(&self) -> Option<(u64, u64)> {
        match self {
            Self::Syntax { position, .. } | Self::Meaning { position, .. } => *position,
            _ => None,
        }
    }

    /// Judges an error that came up while planning `query`.
    pub(super) fn of_plan(query: &str, error: &DataFusionError) -> Self {
        let root = error.find_root();
        if let DataFusionError::SQL(parser, _) = root {
            let text = parser.to_string();
            let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
            let (message, position) = split_position(text);
            return Self::Syntax {
                excerpt: position.and_then(|place| excerpt(query, place)),
                message,
                position,
            };
        }
        let message = text_of(root);
        let read_only = [
            "DDL not supported",
            "DML not supported",
            "Statement not supported",
        ];
        if let Some(what) = read_only.iter().find_map(|prefix| message.strip_prefix(prefix)) {
            return Self::NotReadOnly(format!("{} is refused", what.trim_start_matches(": ")));
        }
        if let DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) = root {
            return Self::Lake(message);
        }
        let position = error
            .diagnostic()
            .and_then(|diagnostic| diagnostic.span)
            .map(|span| (span.start.line, span.start.column));
        Self::Meaning {
            message,
            position,
            excerpt: position.and_then(|place| excerpt(query, place)),
            hint: hint(),
        }
    }

    /// Judges an error that came up while running.
    pub(crate) fn of_run(error: &DataFusionError) -> Self {
        let root = error.find_root();
        let message = text_of(root);
        match root {
            DataFusionError::ResourcesExhausted(_) => Self::Memory(message),
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => Self::Lake(message),
            _ => Self::Execution(message),
        }
    }
}

fn hint() -> String {
    let tables: Vec<&str> = documentation().iter().map(|table| table.name).collect();
    format!(
        "the tables are {}; DESCRIBE <table> lists columns",
        tables.join(", ")
    )
}

/// The message without the prefix that names the planner's part and without backtraces.
fn text_of(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    for prefix in [
        "Error during planning: ",
        "Schema error: ",
        "Execution error: ",
        "Arrow error: ",
        "Resources exhausted: ",
        "This feature is not implemented: ",
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return rest.to_owned();
        }
    }
    text
}

/// Splits `… at Line: 1, Column: 8` off the parser's message.
fn split_position(text: &str) -> (String, Option<(u64, u64)>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (text.to_owned(), None);
    };
    let position = place.split_once(", Column: ").and_then(|(line, column)| {
        let column: String = column.chars().take_while(char::is_ascii_digit).collect();
        Some((line.trim().parse().ok()?, column.parse().ok()?))
    });
    (message.to_owned(), position)
}

fn excerpt(query: &str, (line, column): (u64, u64)) -> Option<String> {
    let text = query.lines().nth(usize::try_from(line.checked_sub(1)?).ok()?)?;
    let indent = usize::try_from(column.checked_sub(1)?).ok()?;
    Some(format!(
        "\n  {text}\n  {}^",
        " ".repeat(indent.min(text.chars().count()))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_position_is_found_and_marked() {
        let (message, position) =
            split_position("Expected: an expression, found: FROM at Line: 2, Column: 3");
        assert_eq!(message, "Expected: an expression, found: FROM");
        assert_eq!(position, Some((2, 3)));
        assert_eq!(
            excerpt("SELECT\n  FROM t", (2, 3)).as_deref(),
            Some("\n    FROM t\n    ^")
        );
        assert_eq!(excerpt("SELECT", (9, 1)), None);
        assert_eq!(split_position("odd"), ("odd".to_owned(), None));
    }
}
