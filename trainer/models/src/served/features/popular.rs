//! What is popular, and at what point of a visit it is usually met.

use super::Column;
use crate::live::{HALF_LIVES, Sums, position_bucket};
use crate::served::context::Query;
use crate::served::places::{Places, Pool};

/// Half-lives at which interactions of any kind are shown.
const ACTS: [(Column, usize); 3] = [(Column::Acts1h, 0), (Column::Acts1d, 2), (Column::Acts30d, 4)];

/// Lets into `pool` the leaders of those columns that `reads` asks for.
pub(super) fn gather(query: &Query<'_>, reads: impl Fn(usize) -> bool, pool: &mut Pool) {
    for (_, sums, _) in sources(query).filter(|&(column, ..)| reads(column)) {
        for &item in sums.leaders() {
            pool.add(item);
        }
    }
}

pub(super) fn fill(query: &Query<'_>, places: impl Places, columns: &mut [Vec<f32>]) {
    for (column, sums, factor) in sources(query) {
        places.collect(sums.values(), factor, &mut columns[column]);
    }
}

/// Takes the moments of all items, of which only some may have a place.
pub(super) fn measure(query: &Query<'_>, moments: &mut [(f32, f32)]) {
    for (column, sums, factor) in sources(query) {
        moments[column] = sums.moments(query.binding.len(), factor);
    }
}

/// Each column with its sums and what brings them to now.
fn sources<'a>(query: &Query<'a>) -> impl Iterator<Item = (usize, &'a Sums, f64)> {
    let live = query.live.item_columns();
    let factors = query.live.popularity_factors(query.now_ms);
    let likes = (0..HALF_LIVES).map(move |slot| {
        let column = Column::Likes1h as usize + slot;
        (column, live.likes(slot), factors[slot])
    });
    let acts = ACTS
        .into_iter()
        .map(move |(column, slot)| (column as usize, live.interactions(slot), factors[slot]));
    let here = live.positions(position_bucket(query.context.length));
    let factor = query.live.position_factor(query.now_ms);
    likes
        .chain(acts)
        .chain([(Column::Position as usize, here, factor)])
}
