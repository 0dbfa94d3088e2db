//! What is popular, how well it is liked, and at what point of a visit it is usually met.

use super::Column;
use crate::live::{POSITION_BUCKETS, position_bucket};
use crate::served::context::Query;

const SHARE_PRIOR: f32 = 5.0;
const HOUR_MS: f32 = 3_600_000.0;

pub(super) fn fill(query: &Query<'_>, columns: &mut [Vec<f32>]) {
    let live = query.live;
    let factors = live.popularity_factors(query.now_ms);
    let likes = Column::Likes1h as usize;
    for (slot, factor) in factors.into_iter().enumerate() {
        for (score, item) in columns[likes + slot].iter_mut().zip(live.item_states()) {
            *score = (item.likes[slot] * factor) as f32;
        }
    }
    for (column, slot) in [(Column::Acts1h, 0), (Column::Acts1d, 2), (Column::Acts30d, 4)] {
        for (score, item) in columns[column as usize].iter_mut().zip(live.item_states()) {
            *score = (item.interactions[slot] * factors[slot]) as f32;
        }
    }

    let factor = live.position_factor(query.now_ms);
    let bucket = position_bucket(query.context.length);
    let mut totals = [0.0_f64; POSITION_BUCKETS];
    for item in live.item_states() {
        for (total, value) in totals.iter_mut().zip(item.positions) {
            *total += value * factor;
        }
    }
    let usual = totals[bucket] / totals.iter().sum::<f64>().max(1e-9);
    let share = live.like_share();
    for (index, item) in live.item_states().iter().enumerate().take(query.binding.len()) {
        let here = item.positions[bucket] * factor;
        let all: f64 = item.positions.iter().sum::<f64>() * factor;
        columns[Column::Position as usize][index] = here as f32;
        columns[Column::PositionLift as usize][index] =
            ((here + usual * 5.0) / (all + 5.0) / usual.max(1e-9)) as f32;
        columns[Column::Count as usize][index] = (1.0 + item.count as f32).ln();
        columns[Column::LikeShare as usize][index] =
            (item.like_count as f32 + SHARE_PRIOR * share) / (item.count as f32 + SHARE_PRIOR);
        columns[Column::MeanRating as usize][index] = item.mean_rating().unwrap_or(0.0);
        columns[Column::Idle as usize][index] = item.last_ms.map_or(20.0, |last| hours(query.now_ms - last));
        columns[Column::Age as usize][index] = item.first_ms.map_or(0.0, |first| hours(query.now_ms - first));
    }
}

/// Log of hours, so that minutes and years both have room.
fn hours(ms: i64) -> f32 {
    (1.0 + ms.max(0) as f32 / HOUR_MS * 60.0).ln()
}
