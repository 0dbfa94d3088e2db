//! What the registry knows, for people: why a version was promoted or not, and how versions compare.
//!
//! A [`Page`] is made of the registry alone, on demand, so that no file can go stale; it renders as Markdown, which
//! is also readable in a terminal, and as a self-contained HTML page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use marquee_schemas::GateCheck;

use crate::registry::{Entry, RegistryReader};

/// A heading, texts and tables, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    title: String,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    Heading(String),
    Text(String),
    Table {
        head: Vec<String>,
        rows: Vec<Vec<String>>,
    },
}

impl Page {
    fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            blocks: Vec::new(),
        }
    }

    fn heading(&mut self, text: &str) {
        self.blocks.push(Block::Heading(text.to_owned()));
    }

    fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) {
        self.blocks.push(Block::Table {
            head: head.iter().map(|&cell| cell.to_owned()).collect(),
            rows,
        });
    }

    /// As Markdown, the columns of tables aligned.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n", self.title);
        for block in &self.blocks {
            out.push('\n');
            match block {
                Block::Heading(text) => out += &format!("## {text}\n"),
                Block::Text(text) => out += &format!("{text}\n"),
                Block::Table { head, rows } => markdown_table(&mut out, head, rows),
            }
        }
        out
    }

    /// As one HTML page that needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        let mut body = format!("<h1>{}</h1>\n", escaped(&self.title));
        for block in &self.blocks {
            match block {
                Block::Heading(text) => body += &format!("<h2>{}</h2>\n", escaped(text)),
                Block::Text(text) => body += &format!("<p>{}</p>\n", escaped(text)),
                Block::Table { head, rows } => {
                    let row = |cells: &[String], tag: &str| -> String {
                        let cells = cells
                            .iter()
                            .map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
                        format!("<tr>{}</tr>\n", cells.collect::<String>())
                    };
                    let rows: String = rows.iter().map(|cells| row(cells, "td")).collect();
                    body += &format!("<table>\n{}{rows}</table>\n", row(head, "th"));
                }
            }
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             {body}</body>\n</html>\n",
            escaped(&self.title)
        )
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
    table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}\
    th,td{padding:.25rem .75rem;border-bottom:1px solid #ccc;text-align:left}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn markdown_table(out: &mut String, head: &[String], rows: &[Vec<String>]) {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let width = |column: usize| {
        std::iter::once(head)
            .chain(rows.iter().map(Vec::as_slice))
            .filter_map(|row| row.get(column))
            .map(|text| cell(text).chars().count())
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &[String]| {
        for (text, width) in cells.iter().zip(&widths) {
            // Writing to a string cannot fail.
            write!(out, "| {:<width$} ", cell(text)).ok();
        }
        out.push_str("|\n");
    };
    line(head);
    line(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.fract() == 0.0 && value.abs() >= 1.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.4}"),
        None => String::new(),
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{:+.1}%", value * 100.0))
}

fn check_row(check: &GateCheck) -> Vec<String> {
    let interval = match (check.lo, check.hi) {
        (Some(lo), Some(hi)) => format!("{} to {}", percent(Some(lo)), percent(Some(hi))),
        _ => String::new(),
    };
    let required = match check.check.as_str() {
        "primary" | "secondary" => percent(check.required),
        _ => number(check.required),
    };
    vec![
        if check.passed { "passed" } else { "FAILED" }.to_owned(),
        check.check.clone(),
        check.metric.clone(),
        number(check.challenger),
        number(check.champion),
        percent(check.relative_change),
        interval,
        required,
    ]
}

fn state_name(entry: &Entry) -> String {
    format!("{:?}", entry.state)
}

fn time(at_ms: i64) -> String {
    humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(at_ms).unwrap_or(0)),
    )
    .to_string()
}

/// Why a version is where it is: the gate's every question, the numbers, the life so far.
#[must_use]
pub fn explain(entry: &Entry) -> Page {
    let decision = &entry.decision;
    let mut page = Page::new(format!("Model {} ({})", entry.version, entry.semver));
    let outcome = if decision.promoted {
        "passed the gate"
    } else {
        "did not pass the gate"
    };
    page.text(format!(
        "{} today; it {outcome}: {}.",
        state_name(entry),
        decision.reason
    ));
    page.heading("What the gate asked");
    page.table(
        &[
            "",
            "check",
            "metric",
            "challenger",
            "champion",
            "change",
            "interval",
            "required",
        ],
        decision.checks.iter().map(check_row).collect(),
    );
    page.heading("In words");
    for check in &decision.checks {
        page.text(format!(
            "{} {}: {}.",
            if check.passed { "+" } else { "-" },
            check.check,
            check.detail
        ));
    }
    page.heading("All figures");
    let rows = decision
        .numbers
        .iter()
        .filter(|(name, _)| !name.starts_with("champion_"))
        .map(|(name, value)| {
            let champion = decision.numbers.get(&format!("champion_{name}")).copied();
            let change = champion
                .filter(|theirs| *theirs != 0.0)
                .map(|theirs| value / theirs - 1.0);
            vec![
                name.clone(),
                number(Some(*value)),
                number(champion),
                percent(change),
            ]
        })
        .collect();
    page.table(&["figure", "challenger", "champion", "change"], rows);
    page.heading("Life");
    let rows = entry
        .steps
        .iter()
        .map(|step| vec![time(step.at_ms), format!("{:?}", step.state), step.reason.clone()])
        .collect();
    page.table(&["time", "state", "why"], rows);
    page.heading("Origin");
    page.text(format!("Asked for by {}.", entry.retrain_event_ids.join(", ")));
    page.text(format!("Bundle SHA-256 {}.", entry.bundle_sha256));
    let rows = entry
        .offsets
        .iter()
        .map(|at| vec![at.topic.clone(), at.partition.to_string(), at.offset.to_string()])
        .collect();
    page.table(&["topic", "partition", "up to offset"], rows);
    page
}

/// All figures of the named versions side by side; with exactly two also the change from the first to the second.
///
/// Each version was measured on the data that was newest when it was trained, so only the gate's own comparison, in
/// [`explain`], puts two models to the same test.
#[must_use]
pub fn compare(entries: &[&Entry]) -> Page {
    let mut page = Page::new("Model comparison");
    page.text(
        "Each column is measured on what was held out at that model's own training. Two models on the same users and \
         events are compared by the gate: see `marquee models explain`.",
    );
    let names: BTreeSet<&String> = entries.iter().flat_map(|entry| entry.metrics.keys()).collect();
    let mut head = vec!["metric"];
    head.extend(entries.iter().map(|entry| entry.version.0.as_str()));
    if entries.len() == 2 {
        head.push("change");
    }
    let rows = names
        .into_iter()
        .map(|name| {
            let values: Vec<Option<f64>> = entries
                .iter()
                .map(|entry| entry.metrics.get(name).copied())
                .collect();
            let mut row = vec![name.clone()];
            row.extend(values.iter().map(|&value| number(value)));
            if let [old, new] = values[..] {
                row.push(percent(
                    old.zip(new)
                        .filter(|(old, _)| *old != 0.0)
                        .map(|(old, new)| new / old - 1.0),
                ));
            }
            row
        })
        .collect();
    page.table(&head, rows);
    page
}

/// `MODEL_COMPARISON.md`: every version with its state, the gate's verdict and its figures.
#[must_use]
pub fn overview(reader: &RegistryReader) -> Page {
    let entries: Vec<&Entry> = reader.list().iter().collect();
    let mut page = compare(&entries);
    page.heading("Versions");
    let rows = entries
        .iter()
        .map(|entry| {
            let alias = reader.alias_of(&entry.version).unwrap_or_default();
            vec![
                entry.version.0.clone(),
                entry.semver.clone(),
                state_name(entry),
                alias.to_owned(),
                time(entry.created_at_ms),
                entry.decision.reason.clone(),
            ]
        })
        .collect();
    page.table(
        &["version", "tag", "state", "alias", "trained", "the gate's reason"],
        rows,
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_tables_align_and_cells_cannot_break_out() {
        let mut page = Page::new("A & B");
        page.table(&["a", "bb"], vec![vec!["x|y".into(), "<b>".into()]]);
        assert_eq!(
            page.markdown(),
            "# A & B\n\n| a    | bb  |\n| ---- | --- |\n| x\\|y | <b> |\n"
        );
        let html = page.html();
        assert!(html.contains("<td>&lt;b&gt;</td>") && html.contains("<title>A &amp; B</title>"));
    }

    #[test]
    fn numbers_are_short_and_absent_ones_are_empty() {
        assert_eq!(number(Some(31.0)), "31");
        assert_eq!(number(Some(0.123_456)), "0.1235");
        assert_eq!(number(None), "");
        assert_eq!(percent(Some(-0.05)), "-5.0%");
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
    }
}
