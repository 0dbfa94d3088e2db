//! A report, whatever it is about, and its two forms.

use super::{svg, timeline};

/// A table of texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableData {
    /// Column titles.
    pub head: Vec<String>,
    /// Rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
}

impl TableData {
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&title| title.to_owned()).collect(),
            rows: Vec::new(),
        }
    }
}

/// A value with its interval.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Band {
    pub(super) label: String,
    pub(super) value: f64,
    pub(super) lo: f64,
    pub(super) hi: f64,
}

/// Values over time, under one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    /// Moment, ms, with what was measured then.
    pub(super) points: Vec<(i64, Band)>,
}

/// Something that happened at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at_ms: i64,
    pub(super) text: String,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chart {
    /// File name without its ending.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// The picture, as SVG.
    pub svg: String,
}

fn plain(values: &[(String, f64)]) -> Vec<Band> {
    values
        .iter()
        .map(|(label, value)| Band {
            label: label.clone(),
            value: *value,
            lo: *value,
            hi: *value,
        })
        .collect()
}

impl Chart {
    fn new(name: &str, title: &str, svg: String) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            svg,
        }
    }

    pub(super) fn bars(name: &str, title: &str, values: &[(String, f64)]) -> Self {
        Self::new(name, title, svg::bars(title, &plain(values)))
    }

    pub(super) fn line(name: &str, title: &str, values: &[(String, f64)]) -> Self {
        Self::new(name, title, svg::band(title, &plain(values)))
    }

    pub(super) fn timeline(name: &str, title: &str, series: &[Series], marks: &[Mark]) -> Self {
        Self::new(name, title, timeline::timeline(title, series, marks))
    }

    pub(super) fn band(name: &str, title: &str, values: Vec<Band>) -> Self {
        Self::new(name, title, svg::band(title, &values))
    }
}

/// A chapter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Section {
    /// Title.
    pub title: String,
    /// Paragraphs.
    pub text: Vec<String>,
    /// Tables.
    pub tables: Vec<TableData>,
    /// Pictures.
    pub charts: Vec<Chart>,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Title.
    pub title: String,
    /// Chapters.
    pub sections: Vec<Section>,
}

/// Text that stands for itself in a Markdown table.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', " ")
}

impl Report {
    /// All pictures.
    pub fn charts(&self) -> impl Iterator<Item = &Chart> {
        self.sections.iter().flat_map(|section| &section.charts)
    }

    /// As Markdown; the pictures are expected as `<folder>/<name>.svg`.
    #[must_use]
    pub fn to_markdown(&self, folder: &str) -> String {
        let mut text = format!("# {}\n", self.title);
        for section in &self.sections {
            text += &format!("\n## {}\n", section.title);
            for paragraph in &section.text {
                text += &format!("\n{paragraph}\n");
            }
            for table in &section.tables {
                let row = |cells: &[String]| {
                    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
                    format!("| {} |\n", cells.join(" | "))
                };
                text += &format!("\n{}|{}\n", row(&table.head), "---|".repeat(table.head.len()));
                text.extend(table.rows.iter().map(|cells| row(cells)));
            }
            for chart in &section.charts {
                text += &format!("\n![{}]({folder}/{}.svg)\n", chart.title, chart.name);
            }
        }
        text
    }

    /// As one HTML page with the pictures in it.
    #[must_use]
    pub fn to_html(&self) -> String {
        let title = svg::escape(&self.title);
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>\
             body{{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}\
             table{{border-collapse:collapse;margin:1em 0}}td,th{{border:1px solid #ccc;padding:.2em .6em;\
             text-align:left}}svg{{max-width:100%;height:auto}}</style></head>\n<body><h1>{title}</h1>\n"
        );
        for section in &self.sections {
            text += &format!("<h2>{}</h2>\n", svg::escape(&section.title));
            for paragraph in &section.text {
                text += &format!("<p>{}</p>\n", svg::escape(paragraph));
            }
            for table in &section.tables {
                let row = |cells: &[String], tag: &str| {
                    let cells: String = cells
                        .iter()
                        .map(|cell| format!("<{tag}>{}</{tag}>", svg::escape(cell)))
                        .collect();
                    format!("<tr>{cells}</tr>\n")
                };
                text += &format!("<table>\n{}", row(&table.head, "th"));
                text.extend(table.rows.iter().map(|cells| row(cells, "td")));
                text += "</table>\n";
            }
            for chart in &section.charts {
                text += &format!("<h3>{}</h3>\n{}\n", svg::escape(&chart.title), chart.svg);
            }
        }
        text + "</body></html>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_everything_and_escape_what_users_wrote() {
        let report = Report {
            title: "A & B".into(),
            sections: vec![Section {
                title: "One".into(),
                text: vec!["<p>".into()],
                tables: vec![TableData {
                    head: vec!["a".into()],
                    rows: vec![vec!["x|<y>".into()]],
                }],
                charts: vec![Chart::bars("c", "Chart", &[("h".into(), 1.0)])],
            }],
        };
        let markdown = report.to_markdown("pictures");
        assert!(
            markdown.contains("| x\\|<y> |") && markdown.contains("![Chart](pictures/c.svg)"),
            "{markdown}"
        );
        let html = report.to_html();
        assert!(
            html.contains("<td>x|&lt;y&gt;</td>") && html.contains("A &amp; B"),
            "{html}"
        );
        assert!(
            html.contains("<svg") && html.contains("<p>&lt;p&gt;</p>"),
            "{html}"
        );
        assert_eq!(report.charts().count(), 1);
    }
}
