//! Several series over time in one picture, with what happened on the way.

use super::document::{Mark, Series};
use super::svg::{BOTTOM, HEIGHT, LEFT, WIDTH, ceiling, escape, frame, y};

/// One per series, again from the first where there are more.
const COLOURS: [&str; 6] = ["#36c", "#c33", "#292", "#a3a", "#c80", "#088"];
/// Labels along the axis.
const TICKS: i64 = 7;

/// `HH:MM:SS` (UTC).
fn clock(ms: i64) -> String {
    let s = ms.div_euclid(1_000).rem_euclid(24 * 60 * 60);
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// Lines over the areas between their lower and upper ends, with a vertical line for each mark.
pub(super) fn timeline(title: &str, series: &[Series], marks: &[Mark]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let top = ceiling(points().map(|(_, band)| band.hi).fold(0.0, f64::max));
    let first = points().map(|point| point.0).min().unwrap_or(0);
    let last = points().map(|point| point.0).max().unwrap_or(0);
    let span = (last - first).max(1) as f64;
    // As the frame places its labels: in the middle of equal parts.
    let inset = (WIDTH - LEFT) / TICKS as f64 / 2.0;
    let x = |ms: i64| LEFT + inset + (WIDTH - LEFT - 2.0 * inset) * ((ms - first) as f64 / span);
    let mut drawing = String::new();
    let seen = marks.iter().filter(|mark| (first..=last).contains(&mark.at_ms));
    for (at, mark) in seen.enumerate() {
        let x = x(mark.at_ms);
        // Neighbours stand at different heights.
        let height = HEIGHT - BOTTOM - 6.0 - 11.0 * (at % 4) as f64;
        drawing += &format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"12\" y2=\"{:.1}\" stroke=\"#999\" stroke-dasharray=\"3 3\"/>\
             <text x=\"{:.1}\" y=\"{height:.1}\" fill=\"#555\" font-size=\"9\">{}</text>",
            HEIGHT - BOTTOM,
            x + 2.0,
            escape(&mark.text)
        );
    }
    for (at, series) in series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let place = |ms: i64, value: f64| format!("{:.1},{:.1}", x(ms), y(value, top));
        let line: Vec<String> = series
            .points
            .iter()
            .map(|(ms, band)| place(*ms, band.value))
            .collect();
        let upper = series.points.iter().map(|(ms, band)| place(*ms, band.hi));
        let lower = series.points.iter().rev().map(|(ms, band)| place(*ms, band.lo));
        let area: Vec<String> = upper.chain(lower).collect();
        drawing += &format!(
            "<polygon points=\"{}\" fill=\"{colour}\" opacity=\"0.15\"/>\
             <polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"22\" fill=\"{colour}\">{}</text>",
            area.join(" "),
            line.join(" "),
            LEFT + 8.0 + 80.0 * at as f64,
            escape(&series.name)
        );
    }
    let labels: Vec<String> = (0..TICKS)
        .map(|tick| clock(first + (last - first) * tick / (TICKS - 1)))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    frame(title, &labels, top, &drawing)
}

#[cfg(test)]
mod tests {
    use super::super::document::Band;
    use super::*;

    fn series(name: &str, points: &[(i64, f64)]) -> Series {
        let band = |value: f64| Band {
            label: String::new(),
            value,
            lo: value,
            hi: value,
        };
        Series {
            name: name.into(),
            points: points.iter().map(|&(ms, value)| (ms, band(value))).collect(),
        }
    }

    #[test]
    fn series_stand_at_their_times_and_marks_between_them() {
        let marks = [(50, "v2 <promoted>"), (900, "later")].map(|(at_ms, text)| Mark {
            at_ms,
            text: text.into(),
        });
        let both = [series("v1", &[(0, 0.5), (100, 1.0)]), series("v2", &[(50, 0.25)])];
        let svg = timeline("CTR", &both, &marks);
        // The middle of the first and of the last of seven parts of 664.
        assert!(svg.contains("points=\"103.4,104.0 672.6,12.0\""), "{svg}");
        assert!(
            svg.contains("v2 &lt;promoted&gt;") && svg.contains("x1=\"388.0\""),
            "{svg}"
        );
        assert!(!svg.contains("later"), "{svg}");
        assert!(timeline("nothing", &[], &[]).ends_with("</svg>"));
        assert_eq!(clock(86_400_000 + 3_661_000), "01:01:01");
    }
}
