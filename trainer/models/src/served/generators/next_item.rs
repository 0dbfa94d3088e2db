//! A linear next-item model in closed form.
//!
//! Choi, Kim, Lee, Shim, Lee: "Session-aware Linear Item-Item Models for Session-based Recommendation" (WWW 2021,
//! §3.3, SLIT): ridge regression from the recency-weighted past `x` of a person to the events `y` that followed,
//! `B = (XᵀX + λI)⁻¹ XᵀY`. Unlike [EASE](crate::ease) it knows before from after, and near from far; unlike counts
//! of transitions it shares the credit among all items of the past.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

use crate::Error;
use crate::live::{HistoryEntry, Interaction};
use crate::transitions::Distance;

/// Newest entries of the past looked at.
pub(crate) const PAST: usize = 30;
/// Weight lost per step into the past.
pub(crate) const PAST_DECAY: f32 = 0.85;
/// Weight of a following event that was no like.
const DISLIKE_WEIGHT: f32 = 0.3;
/// Half-life of an example, milliseconds: two years.
const HALF_LIFE_MS: f64 = 2.0 * 365.0 * 24.0 * 3_600_000.0;

/// Fits on time-ordered events of items `0..items`, and gives the weights in row order: row, item of the past; column,
/// item scored.
pub(crate) fn fit(events: &[Interaction], items: usize, lambda: f32) -> Result<Vec<f32>, Error> {
    let end_ms = events.last().map_or(0, |event| event.time_ms);
    let users = events
        .iter()
        .map(|event| event.user as usize + 1)
        .max()
        .unwrap_or(0);
    let mut pasts: Vec<Vec<HistoryEntry>> = vec![Vec::new(); users];
    let mut gram = vec![0.0_f32; items * items];
    let mut cross = vec![0.0_f32; items * items];
    let mut past = Vec::with_capacity(PAST);
    for moment in events.chunk_by(|a, b| a.time_ms == b.time_ms && a.user == b.user) {
        let history = &mut pasts[moment[0].user as usize];
        weigh(history, &mut past);
        let age = (end_ms - moment[0].time_ms) as f64 / HALF_LIFE_MS;
        let unit = (-age).exp2() as f32;
        for &(row, a) in &past {
            let begin = row as usize * items;
            let gram = &mut gram[begin..begin + items];
            for &(column, b) in &past {
                gram[column as usize] += unit * moment.len() as f32 * a * b;
            }
            let cross = &mut cross[begin..begin + items];
            for event in moment {
                let weight = if event.is_like() { 1.0 } else { DISLIKE_WEIGHT };
                cross[event.item as usize] += unit * a * weight;
            }
        }
        history.extend(moment.iter().map(|event| HistoryEntry {
            item: event.item,
            rating: event.rating,
            weight: event.weight,
            time_ms: event.time_ms,
        }));
    }
    for item in 0..items {
        gram[item * items + item] += lambda;
    }
    let solved: Mat<f32> = faer::MatRef::from_row_major_slice(&gram, items, items)
        .llt(Side::Lower)
        .map_err(|error| Error::Data(format!("the next-item system cannot be factorised: {error:?}")))?
        .solve(faer::MatRef::from_row_major_slice(&cross, items, items));
    let mut weights = cross;
    for (column, values) in (0..items).map(|column| (column, solved.col(column))) {
        for (row, value) in values.iter().enumerate() {
            weights[row * items + column] = *value;
        }
    }
    if weights.iter().any(|weight| !weight.is_finite()) {
        return Err(Error::Data("the next-item system is numerically singular".into()));
    }
    Ok(weights)
}

/// The past as (item, weight): newest moment 1, each earlier one `PAST_DECAY` of the next.
pub(crate) fn weigh(history: &[HistoryEntry], past: &mut Vec<(u32, f32)>) {
    past.clear();
    let Some(last) = history.last() else { return };
    let mut distance = Distance::from(last.time_ms);
    for entry in history.iter().rev().take(PAST) {
        past.push((entry.item, PAST_DECAY.powi(distance.of(entry.time_ms))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: u32, item: u32, stars: f32, time_ms: i64) -> Interaction {
        Interaction {
            user,
            item,
            rating: Some(stars),
            weight: 1.0,
            time_ms,
        }
    }

    #[test]
    fn one_step_matches_the_ridge_by_hand() {
        // x = e0, y = e1: B[0][1] = 1 / (1 + λ).
        let weights = fit(&[event(0, 0, 5.0, 0), event(0, 1, 5.0, 1)], 2, 1.0).unwrap();
        assert!((weights[1] - 0.5).abs() < 1e-6);
        assert_eq!(weights[2], 0.0);
        // The same for an event that was no like.
        let weights = fit(&[event(0, 0, 5.0, 0), event(0, 1, 2.0, 1)], 2, 1.0).unwrap();
        assert!((weights[1] - 0.5 * DISLIKE_WEIGHT).abs() < 1e-6);
    }

    #[test]
    fn events_of_one_moment_do_not_explain_each_other() {
        let weights = fit(&[event(0, 0, 5.0, 7), event(0, 1, 5.0, 7)], 2, 1.0).unwrap();
        assert!(weights.iter().all(|weight| *weight == 0.0));
    }

    #[test]
    fn older_entries_weigh_less() {
        let mut past = Vec::new();
        let history = [
            HistoryEntry::like(4, 0),
            HistoryEntry::like(5, 9),
            HistoryEntry::like(6, 9),
        ];
        weigh(&history, &mut past);
        assert_eq!(past, [(6, 1.0), (5, 1.0), (4, PAST_DECAY)]);
    }
}
