//! What a data set amounts to, for people.

use std::collections::HashSet;
use std::fmt;

use super::Dataset;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Counts, period and mean of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Users with at least one rating.
    pub users: usize,
    /// Movies in the catalogue.
    pub movies: usize,
    /// Movies with at least one rating.
    pub rated_movies: usize,
    /// Rated movies that the catalogue does not hold.
    pub unknown_movies: usize,
    /// Ratings.
    pub ratings: usize,
    /// Ratings by stars: index 0 is half a star, index 9 is five (others are counted at the next half star).
    pub by_half_stars: [usize; 10],
    /// Mean rating, stars; 0 without ratings.
    pub mean_rating: f64,
    /// Time of the first rating, ms.
    pub first_ms: Option<i64>,
    /// Time of the last rating, ms.
    pub last_ms: Option<i64>,
    /// Rows left out because they were damaged.
    pub skipped_rows: u64,
}

impl Summary {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "counts far below 2^53, stars from 0.5 to 5"
    )]
    pub(super) fn of(dataset: &Dataset) -> Self {
        let mut users = HashSet::new();
        let mut rated = HashSet::new();
        let mut by_half_stars = [0; 10];
        let mut sum = 0.0_f64;
        for rating in &dataset.ratings {
            users.insert(rating.user_id);
            rated.insert(rating.movie_id);
            by_half_stars[((rating.rating * 2.0).round() as usize).clamp(1, 10) - 1] += 1;
            sum += f64::from(rating.rating);
        }
        let catalogue: HashSet<_> = dataset.movies.iter().map(|movie| movie.movie_id).collect();
        Self {
            name: dataset.name.clone(),
            users: users.len(),
            movies: dataset.movies.len(),
            rated_movies: rated.len(),
            unknown_movies: rated.difference(&catalogue).count(),
            ratings: dataset.ratings.len(),
            by_half_stars,
            mean_rating: sum / dataset.ratings.len().max(1) as f64,
            first_ms: dataset.ratings.first().map(|rating| rating.timestamp_ms),
            last_ms: dataset.ratings.last().map(|rating| rating.timestamp_ms),
            skipped_rows: dataset.skipped_rows,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ratings by {} users of {} movies",
            self.name,
            grouped(self.ratings),
            grouped(self.users),
            grouped(self.movies)
        )?;
        if let (Some(first), Some(last)) = (self.first_ms, self.last_ms) {
            write!(f, ", {} to {}", Date(first), Date(last))?;
            write!(f, ", mean {:.2} stars", self.mean_rating)?;
        }
        if self.unknown_movies > 0 {
            write!(
                f,
                ", {} movies not in the catalogue",
                grouped(self.unknown_movies)
            )?;
        }
        if self.skipped_rows > 0 {
            write!(f, ", {} damaged rows left out", self.skipped_rows)?;
        }
        Ok(())
    }
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1997-09-20` (UTC) of a time in ms.
struct Date(i64);

impl fmt::Display for Date {
    /// Days to civil date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let z = self.0.div_euclid(DAY_MS) + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_numbers_read_as_people_write_them() {
        assert_eq!(Date(0).to_string(), "1970-01-01");
        assert_eq!(Date(951_782_400_000).to_string(), "2000-02-29");
        assert_eq!(Date(874_724_710_000).to_string(), "1997-09-20");
        assert_eq!(Date(-1).to_string(), "1969-12-31");
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_000_209), "1,000,209");
        assert_eq!(grouped(100_000), "100,000");
    }
}
