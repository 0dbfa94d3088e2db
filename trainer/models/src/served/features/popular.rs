//! What is popular, how well it is liked, and at what point of a visit it is usually met.

use super::Column;
use crate::live::position_bucket;
use crate::served::context::Query;

/// Interactions that an item's like-share is smoothed by.
const SHARE_PRIOR: f32 = 5.0;
/// Decayed interactions that an item's position statistic is smoothed by.
const POSITION_PRIOR: f64 = 5.0;
/// Time since an event that never was, milliseconds: a century.
const NEVER_MS: i64 = 100 * 365 * 24 * 3_600_000;
/// Half-lives at which interactions of any kind are shown.
const ACTS: [(Column, usize); 3] = [(Column::Acts1h, 0), (Column::Acts1d, 2), (Column::Acts30d, 4)];

pub(super) fn fill(query: &Query<'_>, columns: &mut [Vec<f32>]) {
    let live = query.live;
    let factors = live.popularity_factors(query.now_ms);
    let factor = live.position_factor(query.now_ms);
    let bucket = position_bucket(query.context.length);
    let (here, all) = live.item_states().iter().fold((0.0, 0.0), |(here, all), item| {
        (
            here + item.positions[bucket],
            all + item.positions.iter().sum::<f64>(),
        )
    });
    let usual = (here / all.max(1e-9)).max(1e-9);
    let share = live.like_share();
    for (index, item) in live.item_states().iter().enumerate().take(query.binding.len()) {
        let mut set = |column: Column, value: f32| columns[column as usize][index] = value;
        let here = item.positions[bucket] * factor;
        let all: f64 = item.positions.iter().sum::<f64>() * factor;
        set(Column::Position, here as f32);
        let lift = (here + usual * POSITION_PRIOR) / (all + POSITION_PRIOR) / usual;
        set(Column::PositionLift, lift as f32);
        set(Column::Count, item.count as f32);
        let likes = item.like_count as f32 + SHARE_PRIOR * share;
        set(Column::LikeShare, likes / (item.count as f32 + SHARE_PRIOR));
        set(Column::MeanRating, item.mean_rating().unwrap_or(0.0));
        let since = |at: Option<i64>, never: i64| at.map_or(never, |at| query.now_ms - at) as f32;
        set(Column::Idle, since(item.last_ms, NEVER_MS));
        set(Column::Age, since(item.first_ms, 0));
        for (column, slot) in ACTS {
            set(column, (item.interactions[slot] * factors[slot]) as f32);
        }
        for (slot, factor) in factors.into_iter().enumerate() {
            columns[Column::Likes1h as usize + slot][index] = (item.likes[slot] * factor) as f32;
        }
    }
}
