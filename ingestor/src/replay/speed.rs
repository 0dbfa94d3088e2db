//! How fast a replay goes, as people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

const LONGEST_INTERVAL_S: f64 = 86_400.0 * 365.0;

/// How fast a replay goes. Written `max`, `1000x`, `500/s`, `200@5s`; the text gives the same speed back.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Speed {
    /// As fast as the broker takes the events.
    #[default]
    Max,
    /// So many times faster than it happened (`1000x`).
    Times(f64),
    /// So many events per second, whatever their times (`500/s`, also `30/m`).
    Rate(f64),
    /// So many events at once, again and again (`200@5s`, also `ms` and `m`).
    Bursts {
        /// Events in a burst.
        size: usize,
        /// From the start of one burst to the start of the next.
        every: Duration,
    },
}

impl FromStr for Speed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text.trim()).map_err(|detail| Error::InvalidSpeed {
            text: text.to_owned(),
            detail,
        })
    }
}

fn parse(text: &str) -> Result<Speed, &'static str> {
    if text.eq_ignore_ascii_case("max") {
        return Ok(Speed::Max);
    }
    if let Some((size, every)) = text.split_once('@') {
        let size = size
            .trim()
            .parse()
            .map_err(|_| "the burst is not a whole number")?;
        if size == 0 {
            return Err("a burst needs at least one event");
        }
        let every = interval(every.trim())?;
        return Ok(Speed::Bursts { size, every });
    }
    if let Some((count, unit)) = text.split_once('/') {
        let seconds = match unit.trim() {
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            _ => return Err("a rate is per s, m or h"),
        };
        return Ok(Speed::Rate(positive(count.trim())? / seconds));
    }
    if let Some(factor) = text.strip_suffix(['x', 'X']) {
        return Ok(Speed::Times(positive(factor.trim())?));
    }
    Err("a unit is missing")
}

fn positive(text: &str) -> Result<f64, &'static str> {
    let number: f64 = text.parse().map_err(|_| "not a number")?;
    if number.is_finite() && number >= 1e-9 {
        Ok(number)
    } else {
        Err("the number must be above zero")
    }
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    let units = [
        ("ms", 0.001),
        ("s", 1.0),
        ("min", 60.0),
        ("m", 60.0),
        ("h", 3_600.0),
    ];
    let found = units
        .iter()
        .find_map(|(unit, seconds)| text.strip_suffix(unit).map(|number| (number, seconds)));
    let (number, seconds) = found.ok_or("the time between bursts has no unit (ms, s, m, h)")?;
    let seconds = positive(number.trim())? * seconds;
    if !(0.000_001..=LONGEST_INTERVAL_S).contains(&seconds) {
        return Err("the time between bursts is out of range");
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Times(factor) => write!(f, "{factor}x"),
            Self::Rate(per_s) => write!(f, "{per_s}/s"),
            Self::Bursts { size, every } => write!(f, "{size}@{}s", every.as_secs_f64()),
        }
    }
}

impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Speed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_reads_as_it_is_written() {
        for (text, speed) in [
            ("max", Speed::Max),
            ("MAX", Speed::Max),
            ("1000x", Speed::Times(1000.0)),
            ("0.5x", Speed::Times(0.5)),
            ("500/s", Speed::Rate(500.0)),
            ("30/m", Speed::Rate(0.5)),
            (
                "200@5s",
                Speed::Bursts {
                    size: 200,
                    every: Duration::from_secs(5),
                },
            ),
            (
                "10 @ 250ms",
                Speed::Bursts {
                    size: 10,
                    every: Duration::from_millis(250),
                },
            ),
        ] {
            assert_eq!(text.parse::<Speed>().unwrap(), speed, "{text}");
            assert_eq!(speed.to_string().parse::<Speed>().unwrap(), speed, "{text}");
        }
        assert_eq!(Speed::Times(1000.0).to_string(), "1000x");
        let json = serde_json::to_string(&Speed::Rate(500.0)).unwrap();
        assert_eq!(json, "\"500/s\"");
        assert_eq!(serde_json::from_str::<Speed>(&json).unwrap(), Speed::Rate(500.0));
    }

    #[test]
    fn what_is_no_speed_is_refused_with_examples() {
        for text in [
            "",
            "fast",
            "x",
            "0x",
            "-3x",
            "NaNx",
            "infx",
            "5/d",
            "/s",
            "0/s",
            "0@5s",
            "5@",
            "5@5",
            "5@0s",
            "1e300@1e300h",
        ] {
            let error = text.parse::<Speed>().unwrap_err().to_string();
            assert!(error.contains("1000x"), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic_and_what_parses_comes_back(text in "[0-9.emaxsXh/@ -]{0,12}") {
            if let Ok(speed) = text.parse::<Speed>() {
                proptest::prop_assert_eq!(speed.to_string().parse::<Speed>().unwrap(), speed);
            }
        }
    }
}
