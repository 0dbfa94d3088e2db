//! Small pictures: bars and lines with an axis, drawn as text.

use super::document::Band;

pub(super) const WIDTH: f64 = 720.0;
pub(super) const HEIGHT: f64 = 220.0;
pub(super) const LEFT: f64 = 56.0;
pub(super) const BOTTOM: f64 = 24.0;
const TOP: f64 = 12.0;
/// Labels along the axis, at most.
const LABELS: usize = 12;

/// Text that stands for itself in XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The next "round" number at or above `value`: 1, 2 or 5 times a power of ten.
pub(super) fn ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|&round| round >= value * (1.0 - 1e-12))
        .unwrap_or(value)
}

pub(super) fn y(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value / top).clamp(0.0, 1.0)
}

pub(super) fn frame(title: &str, labels: &[&str], top: f64, drawing: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         font-family=\"sans-serif\" font-size=\"11\" role=\"img\"><title>{}</title>",
        escape(title)
    );
    for share in [0.0, 0.5, 1.0] {
        let at = y(share * top, top);
        svg += &format!(
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            share * top
        );
    }
    svg += drawing;
    let step = (WIDTH - LEFT) / labels.len().max(1) as f64;
    let every = labels.len().div_ceil(LABELS).max(1);
    for (at, label) in labels.iter().enumerate().step_by(every) {
        let x = LEFT + step * (at as f64 + 0.5);
        svg += &format!(
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            HEIGHT - 8.0,
            escape(label)
        );
    }
    svg + "</svg>"
}

/// One bar per value.
pub(super) fn bars(title: &str, bands: &[Band]) -> String {
    let top = ceiling(bands.iter().map(|band| band.value).fold(0.0, f64::max));
    let step = (WIDTH - LEFT) / bands.len().max(1) as f64;
    let mut drawing = String::new();
    for (at, band) in bands.iter().enumerate() {
        let (x, y) = (LEFT + step * (at as f64 + 0.1), y(band.value, top));
        drawing += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#36c\"><title>{}: {}</title></rect>",
            step * 0.8,
            (HEIGHT - BOTTOM - y).max(0.0),
            escape(&band.label),
            band.value
        );
    }
    let labels: Vec<&str> = bands.iter().map(|band| band.label.as_str()).collect();
    frame(title, &labels, top, &drawing)
}

/// A line through the values, over the area between their lower and upper ends.
pub(super) fn band(title: &str, bands: &[Band]) -> String {
    let top = ceiling(bands.iter().map(|band| band.hi).fold(0.0, f64::max));
    let step = (WIDTH - LEFT) / bands.len().max(1) as f64;
    let point =
        |at: usize, value: f64| format!("{:.1},{:.1}", LEFT + step * (at as f64 + 0.5), y(value, top));
    let line: Vec<String> = bands
        .iter()
        .enumerate()
        .map(|(at, band)| point(at, band.value))
        .collect();
    let upper = bands.iter().enumerate().map(|(at, band)| point(at, band.hi));
    let lower = bands
        .iter()
        .enumerate()
        .rev()
        .map(|(at, band)| point(at, band.lo));
    let area: Vec<String> = upper.chain(lower).collect();
    let drawing = format!(
        "<polygon points=\"{}\" fill=\"#36c\" opacity=\"0.2\"/>\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#36c\" stroke-width=\"2\"/>",
        area.join(" "),
        line.join(" ")
    );
    let labels: Vec<&str> = bands.iter().map(|band| band.label.as_str()).collect();
    frame(title, &labels, top, &drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(
            [0.0, 0.7, 1.0, 1.1, 37.0, 5_000.1].map(ceiling),
            [1.0, 1.0, 1.0, 2.0, 50.0, 10_000.0]
        );
    }

    #[test]
    fn pictures_are_drawn_to_scale_and_texts_are_escaped() {
        let bands: Vec<Band> = [("a<b", 5.0), ("c", 10.0)]
            .map(|(label, value)| Band {
                label: label.into(),
                value,
                lo: value - 1.0,
                hi: value,
            })
            .into();
        let svg = bars("T & U", &bands);
        assert!(svg.contains("T &amp; U") && svg.contains("a&lt;b"), "{svg}");
        assert!(
            svg.contains("height=\"184.0\"") && svg.contains("height=\"92.0\""),
            "{svg}"
        );
        let svg = band("line", &bands);
        assert!(
            svg.contains("<polyline points=\"222.0,104.0 554.0,12.0\""),
            "{svg}"
        );
        assert!(bars("empty", &[]).ends_with("</svg>"));
    }
}
