//! What is searched.

use serde_json::{Number, Value};

use crate::Error;
use crate::served::ServedParams;

/// How a setting's range is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// By differences.
    Linear,
    /// By ratios.
    Logarithmic,
    /// By ratios, and the setting is a whole number.
    Count,
}

/// One setting and its range.
#[derive(Debug, Clone, PartialEq)]
pub struct Dimension {
    /// JSON pointer into [`ServedParams`].
    pub path: &'static str,
    /// Least value.
    pub low: f64,
    /// Greatest value.
    pub high: f64,
    /// Measure.
    pub scale: Scale,
}

const fn dimension(path: &'static str, low: f64, high: f64, scale: Scale) -> Dimension {
    Dimension {
        path,
        low,
        high,
        scale,
    }
}

/// The settings of the served model that are worth searching.
#[must_use]
pub fn served_space() -> Vec<Dimension> {
    use Scale::{Count, Linear, Logarithmic};
    vec![
        dimension("/ranker/gbdt/learning_rate", 0.03, 0.2, Logarithmic),
        dimension("/ranker/gbdt/leaves", 6.0, 32.0, Count),
        dimension("/ranker/gbdt/l2", 0.5, 50.0, Logarithmic),
        dimension("/ranker/gbdt/min_leaf_hessian", 0.5, 20.0, Logarithmic),
        dimension("/ranker/gbdt/feature_share", 0.2, 1.0, Linear),
        dimension("/ranker/gbdt/list_share", 0.2, 1.0, Linear),
        dimension("/ranker/truncation", 5.0, 60.0, Count),
        dimension("/fit/candidates", 100.0, 500.0, Count),
        dimension("/fit/hard_rows", 10.0, 50.0, Count),
        dimension("/fit/sampled_rows", 5.0, 50.0, Count),
        dimension("/generators/ease_lambda", 50.0, 1000.0, Logarithmic),
        dimension("/generators/ease_likes_lambda", 50.0, 1000.0, Logarithmic),
        dimension("/generators/next_item_lambda", 100.0, 5000.0, Logarithmic),
        dimension("/live/transitions/window", 5.0, 40.0, Count),
        dimension("/live/transitions/window_decay", 0.75, 0.98, Linear),
        // A month to four years.
        dimension("/live/transitions/half_life_ms", 2.6e9, 1.26e11, Count),
    ]
}

impl Dimension {
    /// Where a value lies in the range, 0 to 1.
    pub(super) fn unit_of(&self, value: f64) -> f64 {
        let (low, high, value) = match self.scale {
            Scale::Linear => (self.low, self.high, value),
            Scale::Logarithmic | Scale::Count => (self.low.ln(), self.high.ln(), value.max(1e-300).ln()),
        };
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    pub(super) fn at_unit(&self, unit: f64) -> f64 {
        let unit = unit.clamp(0.0, 1.0);
        let between = |low: f64, high: f64| low + unit * (high - low);
        let value = match self.scale {
            Scale::Linear => between(self.low, self.high),
            Scale::Logarithmic => between(self.low.ln(), self.high.ln()).exp(),
            Scale::Count => between(self.low.ln(), self.high.ln()).exp().round(),
        };
        value.clamp(self.low, self.high)
    }
}

pub(super) fn apply(base: &ServedParams, space: &[Dimension], point: &[f64]) -> Result<ServedParams, Error> {
    let refuse = |name: &'static str, value: String, requirement| Error::Hyperparameter {
        name,
        value,
        requirement,
    };
    let mut settings = serde_json::to_value(base)
        .map_err(|error| refuse("space", error.to_string(), "settings that can be written"))?;
    for (dimension, &value) in space.iter().zip(point) {
        let place = settings
            .pointer_mut(dimension.path)
            .ok_or_else(|| refuse("space", dimension.path.to_owned(), "a setting that exists"))?;
        let number = match dimension.scale {
            Scale::Count => Some(Number::from(value.round() as i64)),
            Scale::Linear | Scale::Logarithmic => Number::from_f64(value),
        };
        *place = Value::Number(
            number.ok_or_else(|| refuse("space", format!("{} = {value}", dimension.path), "finite"))?,
        );
    }
    let params: ServedParams = serde_json::from_value(settings)
        .map_err(|error| refuse("space", error.to_string(), "settings of the right type"))?;
    params.check()?;
    Ok(params)
}
