//! Where the lines of a conversation come from: keys at a terminal, or standard input.

use std::fs;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use console::{Term, measure_text_width};
use marquee_replay::sql::{FUNCTIONS, documentation};

use super::editor::{Editor, History, Outcome};

/// What the language has besides names; enough of it to be worth completing.
const KEYWORDS: [&str; 50] = [
    "AND",
    "ANALYZE",
    "AS",
    "ASC",
    "AVG",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COUNT",
    "CURRENT",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MAX",
    "MIN",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "SELECT",
    "SUM",
    "UNION",
    "USING",
    "WHERE",
    "WITH",
];

/// One line after the other.
pub(super) enum Lines {
    /// Typed at a terminal.
    Typed(Box<Typed>),
    /// Read as they come.
    Read,
}

/// What a person did at the prompt.
pub(super) enum Said {
    /// Wrote a line.
    Line(String),
    /// Gave up what they had begun.
    Nothing,
}

pub(super) struct Typed {
    term: Term,
    editor: Editor,
    /// Where the history is kept.
    file: PathBuf,
}

impl Lines {
    /// From a terminal with keys, if there is one.
    pub(super) fn new(history: PathBuf) -> Self {
        let term = Term::stdout();
        if !(std::io::IsTerminal::is_terminal(&std::io::stdin()) && term.is_term()) {
            return Self::Read;
        }
        let asked = fs::read_to_string(&history).unwrap_or_default();
        Self::Typed(Box::new(Typed {
            editor: Editor::new(History::of_text(&asked), words()),
            term,
            file: history,
        }))
    }

    pub(super) fn is_typed(&self) -> bool {
        matches!(self, Self::Typed(_))
    }

    /// The next line; `None` at the end. `continued`: a statement has been begun.
    pub(super) fn next(&mut self, continued: bool) -> Result<Option<Said>> {
        match self {
            Self::Typed(typed) => typed.next(if continued { "      -> " } else { "marquee> " }),
            Self::Read => {
                let mut line = String::new();
                let read = std::io::stdin().lock().read_line(&mut line)?;
                Ok((read > 0).then(|| Said::Line(line.trim_end_matches(['\r', '\n']).to_owned())))
            }
        }
    }

    /// Remembers a whole statement, in this conversation and the next ones.
    pub(super) fn remember(&mut self, statement: &str) -> Result<()> {
        let Self::Typed(typed) = self else {
            return Ok(());
        };
        // In one line, unless a comment would swallow the rest of it.
        if statement.contains("--") {
            statement.lines().for_each(|line| typed.editor.history.add(line));
        } else {
            let words: Vec<&str> = statement.split('\n').map(str::trim).collect();
            typed.editor.history.add(words.join(" ").trim());
        }
        if let Some(folder) = typed.file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        fs::write(&typed.file, typed.editor.history.to_text())
            .with_context(|| format!("writing {}", typed.file.display()))
    }
}

impl Typed {
    fn next(&mut self, prompt: &str) -> Result<Option<Said>> {
        loop {
            self.draw(prompt)?;
            match self.editor.press(self.term.read_key_raw()?) {
                Outcome::Editing => {}
                Outcome::Accepted(line) => {
                    // As a whole: while it was written only a part may have been in sight.
                    self.term.clear_line()?;
                    self.term.write_line(&format!("{prompt}{line}"))?;
                    return Ok(Some(Said::Line(line)));
                }
                Outcome::Cancelled => {
                    self.term.write_line("^C")?;
                    return Ok(Some(Said::Nothing));
                }
                Outcome::Ended => {
                    self.term.write_line("")?;
                    return Ok(None);
                }
                Outcome::Choices(choices) => {
                    self.term.write_line("")?;
                    self.term.write_line(&choices.join("  "))?;
                }
            }
        }
    }

    /// The part of the line around the cursor that the terminal has room for.
    fn draw(&mut self, prompt: &str) -> Result<()> {
        let (line, at) = self.editor.line();
        let columns = usize::from(self.term.size().1).saturating_sub(1);
        let (shown, before) = window(
            &line,
            at,
            columns.saturating_sub(measure_text_width(prompt)).max(8),
        );
        self.term.clear_line()?;
        self.term.write_str(&format!("{prompt}{shown}"))?;
        let back = measure_text_width(&shown).saturating_sub(before);
        if back > 0 {
            self.term.move_cursor_left(back)?;
        }
        self.term.flush()?;
        std::io::stdout().flush()?;
        Ok(())
    }
}

/// The part of `line` that fits into `room` columns with the cursor (after `at` characters) in it, and the columns
/// before the cursor.
fn window(line: &str, at: usize, room: usize) -> (String, usize) {
    let width = |text: &str| measure_text_width(text);
    let chars: Vec<char> = line.chars().collect();
    let text = |from: usize, to: usize| chars[from..to].iter().collect::<String>();
    let mut from = 0;
    while width(&text(from, at)) > room {
        from += 1;
    }
    let mut to = chars.len();
    while to > at && width(&text(from, to)) > room {
        to -= 1;
    }
    (text(from, to), width(&text(from, at)))
}

/// Everything that can be completed.
fn words() -> Vec<String> {
    let functions = FUNCTIONS
        .iter()
        .filter_map(|function| function.signature.split('(').next());
    let mut words: Vec<String> = KEYWORDS.into_iter().chain(functions).map(str::to_owned).collect();
    for table in documentation() {
        words.push(table.name.to_owned());
        words.extend(table.columns.iter().map(|column| column.name.to_owned()));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_its_cursor() {
        assert_eq!(window("abcdef", 6, 10), ("abcdef".into(), 6));
        assert_eq!(window("abcdef", 6, 4), ("cdef".into(), 4));
        assert_eq!(window("abcdef", 1, 4), ("abcd".into(), 1));
        assert_eq!(window("日本語", 3, 4), ("本語".into(), 4));
    }

    #[test]
    fn tables_columns_functions_and_keywords_can_be_completed() {
        let words = words();
        for word in ["request_logs", "latency_ms", "hdr_percentile", "SELECT"] {
            assert!(words.iter().any(|known| known == word), "{word}");
        }
    }
}
