//! Calendar dates (UTC) of event times.

use datafusion::arrow::temporal_conversions::date32_to_datetime;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// 9999-12-31: beyond it a date no longer has ten characters, and no engine reads it.
const LAST_DAY: i64 = 2_932_896;

/// Days since 1970-01-01 of a time in ms; `None` before 1970 and after the year 9999.
pub(crate) fn day_of(ms: i64) -> Option<i32> {
    let day = ms.div_euclid(DAY_MS);
    if (0..=LAST_DAY).contains(&day) {
        i32::try_from(day).ok()
    } else {
        None
    }
}

/// `YYYY-MM-DD` of a day.
pub(crate) fn name_of(day: i32) -> String {
    date32_to_datetime(day).map_or_else(|| day.to_string(), |at| at.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_named_in_utc_and_bounded() {
        assert_eq!(day_of(0).map(name_of).as_deref(), Some("1970-01-01"));
        assert_eq!(
            day_of(1_709_251_199_999).map(name_of).as_deref(),
            Some("2024-02-29")
        );
        assert_eq!(
            day_of(253_402_300_799_999).map(name_of).as_deref(),
            Some("9999-12-31")
        );
        assert_eq!(day_of(253_402_300_800_000), None);
        assert_eq!(day_of(-1), None);
        assert_eq!(day_of(i64::MAX), None);
    }
}
