//! Errors of predicted star ratings.

use serde::{Deserialize, Serialize};

/// How far predicted ratings are from given ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatingError {
    /// Root of the mean squared error, stars.
    pub rmse: f64,
    /// Mean absolute error, stars.
    pub mae: f64,
    /// Coefficient of determination: 1 − residual sum of squares ÷ total sum of squares around the mean; 0 where
    /// all given ratings are equal.
    pub r2: f64,
}

/// Compares `(predicted, given)` pairs; `None` without a pair.
#[must_use]
pub fn rating_error(pairs: &[(f64, f64)]) -> Option<RatingError> {
    if pairs.is_empty() {
        return None;
    }
    let count = pairs.len() as f64;
    let mean = pairs.iter().map(|&(_, given)| given).sum::<f64>() / count;
    let residual: f64 = pairs
        .iter()
        .map(|&(predicted, given)| (predicted - given).powi(2))
        .sum();
    let total: f64 = pairs.iter().map(|&(_, given)| (given - mean).powi(2)).sum();
    let absolute: f64 = pairs
        .iter()
        .map(|&(predicted, given)| (predicted - given).abs())
        .sum();
    Some(RatingError {
        rmse: (residual / count).sqrt(),
        mae: absolute / count,
        r2: if total > 0.0 { 1.0 - residual / total } else { 0.0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_match_a_hand_computed_case() {
        // Residuals 1, -1, 0; mean of the given 3, total sum of squares 2.
        let error = rating_error(&[(3.0, 2.0), (2.0, 3.0), (4.0, 4.0)]).unwrap();
        assert!((error.rmse - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((error.mae - 2.0 / 3.0).abs() < 1e-12);
        assert!(error.r2.abs() < 1e-12);
    }

    #[test]
    fn equal_ratings_have_no_variance_to_explain_and_nothing_gives_none() {
        assert_eq!(
            rating_error(&[(1.0, 3.0), (3.0, 3.0)]).map(|error| error.r2),
            Some(0.0)
        );
        assert_eq!(rating_error(&[]), None);
    }
}
